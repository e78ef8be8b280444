"""A study with a memory limit, with real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from localhpo.space import Int, Space
from localhpo.store import Store
from localhpo.study import Study
from localhpo.study.related_studies import read_related_trials
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
def test_configurations_that_cannot_fit_are_avoided_refused_and_known_to_later_studies(
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
    failed = [trial for trial in study.trials if trial.state is State.FAILED]
    assert {t.failure.cause for t in failed if t.failure} <= {Cause.OUT_OF_MEMORY_HOST}
    # A third of all draws cannot fit. The first failures show where the limit is.
    assert 1 <= len(failed) <= 4
    assert not [trial for trial in study.trials if trial.state is State.INFEASIBLE]
    assert len(study.trials) == 14

    again = Study.open(task, "again")
    assert len(read_related_trials(Store(home), again.key, task)) == len(study.trials)
    again.enqueue({"size": 1000})
    again.run()
    assert again.trials[0].state is State.INFEASIBLE  # known from the first study
    assert "of which there are 300 MB" in again.trials[0].summary
