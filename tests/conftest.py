"""Fixtures for every test: a clean environment, a home of its own, and makers of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localhpo.space import Float, Int, Space
from localhpo.task import Budget, Task
from localhpo.trial import Proposal, State, Trial


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the user's reaches a test; everything is written below tmp_path."""
    import os

    for name in list(os.environ):
        if name.startswith(("LOCALHPO_", "CUDA_VISIBLE", "OPTUNA_", "HF_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LOCALHPO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The store's folder of this test."""
    return tmp_path / "home"


@pytest.fixture
def small_space() -> Space:
    return Space(
        [Float("learning_rate", low=1e-4, high=1e-1, log=True), Int("depth", low=1, high=8)]
    )


@pytest.fixture
def make_task(small_space: Space, tmp_path: Path) -> Callable[..., Task]:
    """Return a maker of tasks: any field can be given by name."""

    def make(**changes: Any) -> Task:
        task = Task(
            name="small",
            command=("python", "train.py"),
            metric="loss",
            direction="minimize",
            space=small_space,
            budget=Budget(trials=4),
            folder=tmp_path,
        )
        return replace(task, **changes)

    return make


@pytest.fixture
def make_trial() -> Callable[..., Trial]:
    """Return a maker of trials: number and configuration, and any field by name."""

    def make(
        number: int,
        config: Mapping[str, Any],
        state: State = State.COMPLETE,
        score: float | None = None,
        origin: str = "engine:random",
        **changes: Any,
    ) -> Trial:
        return Trial(
            number=number,
            state=state,
            proposal=Proposal(config=dict(config), origin=origin),
            score=score,
            **changes,
        )

    return make
