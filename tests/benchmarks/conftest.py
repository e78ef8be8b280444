"""What the tests of the bench share: the folder of public data, small problems, a dead model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localhpo.errors import LocalHPOError
from localhpo.objective import Objective
from localhpo.space import Float, Int, Space
from localhpo.task import Task
from localhpo.trial import Config
from scripts.benchmarks import pool
from scripts.benchmarks.pool import FailedCall, PoolCall, ProgressCallback, RunProgress
from scripts.benchmarks.problems.problem import Problem
from scripts.benchmarks.problems.registry import DataFolders

DATA = Path(os.environ.get("LOCALHPO_DATA") or Path(__file__).parents[2].parent / "shared/data")


@pytest.fixture
def data() -> Path:
    """The folder of public data, which not every machine has."""
    if not (DATA / "yahpo").is_dir():
        pytest.skip(f"needs the folder of public data, {DATA}")
    pytest.importorskip("onnxruntime")
    return DATA


@pytest.fixture
def folders(tmp_path: Path) -> DataFolders:
    return DataFolders(None, tmp_path / "trainings")


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of a pool are made one after another, without the seconds that processes take."""

    def run_calls(
        calls: Sequence[PoolCall],
        *,
        on_result: Callable[[Any], None],
        on_progress: ProgressCallback,
        **_: object,
    ) -> list[FailedCall]:
        failed = []
        for done, call in enumerate(calls, start=1):
            try:
                on_result(call.function(*call.arguments))
            except LocalHPOError as error:
                failed.append(FailedCall(call.what, error))
            on_progress(RunProgress(done, len(calls), 0.0, call.what))
        return failed

    monkeypatch.setattr(pool, "run_calls", run_calls)


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    """Return a maker of problems on two parameters, whose score is a function of both."""

    def make(
        value: Callable[[float, int], float] = lambda x, n: (x - 0.3) ** 2 + abs(n - 4),
        direction: str = "minimize",
        name: str = "made",
        **changes: object,
    ) -> Problem:
        def score(configs: Sequence[Config]) -> np.ndarray:
            return np.array([value(c["x"], c["n"]) for c in configs])

        space = Space([Float("x", 0.0, 1.0), Int("n", 1, 8)])
        task = Task(name, (), (Objective("loss", direction),), space)
        return Problem(name, task, score, {"made": name}, **changes)

    return make
