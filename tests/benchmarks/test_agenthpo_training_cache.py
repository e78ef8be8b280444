"""The cache of trainings: results come back unchanged, and only for the same training."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from localhpo.errors import StoreError
from localhpo.executor import Job, Replay, SimulatedExecutor
from localhpo.executor.clock import SimulatedClock
from localhpo.trial import Cause, Failure, Measurement, State
from scripts.benchmarks.agenthpo.training_cache import CachingExecutor, TrainingCache


class Trainer:
    """Runs a trial of a task, and lists the trainings that were not in the cache."""

    def __init__(self, task, folder: Path, failure: Failure | None = None) -> None:
        self.started: list[Job] = []
        self.job = Job(task, 0, {"learning_rate": 0.001, "depth": 3}, 7, folder / "trial")
        self._folder, self._failure = folder / "trainings", failure

    def run(self, digest: str = "digest", **changes):
        clock = SimulatedClock()
        reports = [Measurement(0, "loss", 0.5, 0.0), Measurement(1, "test_loss", math.nan, 0.1)]
        inner = SimulatedExecutor(lambda *_: Replay(reports, 0.2, self._failure), clock)
        start = inner.start
        inner.start = lambda job: (self.started.append(job), start(job))[1]
        executor = CachingExecutor(inner, TrainingCache(self._folder, digest))
        run = executor.start(dataclasses.replace(self.job, **changes))
        while run.outcome is None:
            clock.sleep(0.1)
        return run.outcome, run.poll()


@pytest.fixture
def trainer(make_task, tmp_path) -> Trainer:
    return Trainer(make_task(), tmp_path)


def test_a_cached_training_has_the_same_outcome_and_measurements(trainer):
    first = trainer.run()
    again = trainer.run()
    assert len(trainer.started) == 1
    assert first[0] == again[0]
    assert repr([*first[1]]) == repr([*again[1]])  # as text, where NaN equals itself
    assert first[0].state is State.COMPLETE


@pytest.mark.parametrize(
    "changes",
    [{"seed": 8}, {"config": {"learning_rate": 0.001, "depth": 4}}, {"digest": "another"}],
    ids=str,
)
def test_another_seed_configuration_or_script_is_another_training(trainer, changes):
    trainer.run()
    trainer.run(**changes)
    assert len(trainer.started) == 2


def test_the_number_of_the_trial_does_not_matter(trainer):
    trainer.run()
    trainer.run(number=5)
    assert len(trainer.started) == 1


def test_a_failed_training_runs_again(make_task, tmp_path):
    trainer = Trainer(make_task(), tmp_path, Failure(Cause.EXIT_CODE, "crashed"))
    assert trainer.run()[0].state is State.FAILED
    trainer.run()
    assert len(trainer.started) == 2


def test_a_file_of_version_0_1_0_is_read(trainer, tmp_path):
    (outcome, _) = trainer.run()
    (path,) = (tmp_path / "trainings").rglob("*.json")
    record = json.loads(path.read_text())
    (record["score"],) = record.pop("values")
    record["usage"]["gpu_utilisation"] = record["usage"].pop("gpu_utilization")
    path.write_text(json.dumps(record))
    assert trainer.run()[0] == outcome
    assert len(trainer.started) == 1


def test_a_damaged_file_is_named(trainer, tmp_path):
    trainer.run()
    (path,) = (tmp_path / "trainings").rglob("*.json")
    assert json.loads(path.read_text())["values"] == [0.5]
    path.write_text("{")
    with pytest.raises(StoreError, match=path.name) as raised:
        trainer.run()
    assert "delete" in raised.value.hint
