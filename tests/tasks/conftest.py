"""What the tests of ready tasks share: a trial of one, and the folder of public data."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from localhpo import tasks
from localhpo.executor import Job, Outcome, ProcessExecutor
from localhpo.task import load_task
from localhpo.trial import Measurement, Value

DATA = Path(os.environ.get("LOCALHPO_DATA") or Path(__file__).parents[2].parent / "shared/data")
PATIENCE_S = 300

Run = tuple[Outcome, list[Measurement]]


@pytest.fixture
def public_data() -> Callable[[str], Path]:
    """Return the folder of public data, which not every machine has, if it holds a data set."""

    def find(name: str) -> Path:
        if not (DATA / name).is_dir():
            pytest.skip(f"needs {name} in the folder of public data, {DATA}")
        return DATA

    return find


@pytest.fixture
def run_task(tmp_path: Path) -> Callable[..., Run]:
    """Return a runner of one trial of a ready task: on which data, with which words besides.

    `path` goes before the modules that the script imports.
    """

    def run(
        name: str, place: Path, *words: str, trial: int = 0, path: Path | None = None,
        **config: Value,
    ) -> Run:  # fmt: skip
        task = load_task(tasks.find(name))
        task = dataclasses.replace(task, command=(*task.command, *words))
        environment = {"OMP_NUM_THREADS": "1", "LOCALHPO_DATA": str(place)}
        environment |= {"PYTHONPATH": str(path)} if path else {}
        executor = ProcessExecutor()
        folder = tmp_path / "trials" / str(trial)
        job = Job(task, trial, config, seed=3, folder=folder, env=environment)
        started = executor.start(job)
        give_up = time.monotonic() + PATIENCE_S
        while (outcome := started.outcome) is None:
            assert time.monotonic() < give_up
            time.sleep(0.02)
        executor.close()
        return outcome, list(started.poll())

    return run
