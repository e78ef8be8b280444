"""A study against a memory limit, with real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from localhpo.space import Int, Space
from localhpo.store import Store
from localhpo.study import Study
from localhpo.study.family import earlier_trials
from localhpo.task import Budget, CreatorSettings, Resources, Task
from localhpo.trial import Cause, State

SCRIPT = """
import sys, time
from localhpo.reporter import report
held = bytearray(int(sys.argv[2]) * 2**20)
held[::4096] = b"x" * len(held[::4096])
time.sleep(0.4)
report(step=0, loss=float(sys.argv[2]))
"""


@pytest.mark.slow
def test_what_cannot_fit_is_refused_before_it_runs_and_later_studies_know(
    make_task: Callable[..., Task], tmp_path: Path, home: Path
) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    task = make_task(
        space=Space([Int("size", low=10, high=1000, log=True)]),
        resources=Resources(memory_mb=300),
        creator=CreatorSettings(name="random"),
        budget=Budget(trials=14),
    )
    study = Study.open(task)
    study.run()
    refused = [trial for trial in study.trials if trial.state is State.INFEASIBLE]
    failed = [trial for trial in study.trials if trial.state is State.FAILED]
    assert refused
    assert all(int(trial.config["size"]) > 200 for trial in refused)
    assert all("300 MB is all there is" in trial.summary for trial in refused)
    assert {t.failure.cause for t in failed if t.failure} <= {Cause.OUT_OF_MEMORY_HOST}
    assert sum(trial.state is not State.INFEASIBLE for trial in study.trials) == 14

    again = Study.open(task, "again")
    assert len(earlier_trials(Store(home), again.key, task)) == len(study.trials)
    again.enqueue({"size": 1000})
    again.run()
    assert again.trials[0].state is State.INFEASIBLE  # known from the first study
