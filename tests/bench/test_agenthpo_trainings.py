"""Trainings that are known: replayed as they went, and never another in their place."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from localhpo.bench.agenthpo.trainings import RememberingExecutor, Trainings
from localhpo.errors import StoreError
from localhpo.executor import Job, Replay, SimulatedExecutor
from localhpo.executor.clock import SimulatedClock
from localhpo.trial import Cause, Failure, Measurement, State


class Lab:
    """Runs trials of a task, and counts those that were really run."""

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
        executor = RememberingExecutor(inner, Trainings(self._folder, digest))
        run = executor.start(dataclasses.replace(self.job, **changes))
        while run.outcome is None:
            clock.sleep(0.1)
        return run.outcome, run.poll()


@pytest.fixture
def lab(make_task, tmp_path) -> Lab:
    return Lab(make_task(), tmp_path)


def test_a_known_training_is_replayed_as_it_went(lab):
    first = lab.run()
    again = lab.run()
    assert len(lab.started) == 1
    assert first[0] == again[0]
    assert repr([*first[1]]) == repr([*again[1]])  # as text, where NaN equals itself
    assert first[0].state is State.COMPLETE


@pytest.mark.parametrize(
    "changes",
    [{"seed": 8}, {"config": {"learning_rate": 0.001, "depth": 4}}, {"digest": "another"}],
    ids=str,
)
def test_another_seed_configuration_or_script_is_another_training(lab, changes):
    lab.run()
    lab.run(**changes)
    assert len(lab.started) == 2


def test_the_number_of_the_trial_does_not_matter(lab):
    lab.run()
    lab.run(number=5)
    assert len(lab.started) == 1


def test_what_failed_runs_again(make_task, tmp_path):
    lab = Lab(make_task(), tmp_path, Failure(Cause.EXIT_CODE, "crashed"))
    assert lab.run()[0].state is State.FAILED
    lab.run()
    assert len(lab.started) == 2


def test_a_damaged_file_is_named(lab, tmp_path):
    lab.run()
    (path,) = (tmp_path / "trainings").rglob("*.json")
    assert json.loads(path.read_text())["score"] == 0.5
    path.write_text("{")
    with pytest.raises(StoreError, match=path.name) as raised:
        lab.run()
    assert "delete" in raised.value.hint
