"""Fixtures for every test: a clean environment, a home of its own, and makers of values."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import RayCluster
from vllm_server import RealServer, real_server

from localhpo.objective import Objective
from localhpo.resources.broker import ResourceBroker
from localhpo.resources.placement import Inventory
from localhpo.space import Float, Int, Space
from localhpo.task import Budget, Task
from localhpo.trial import Origin, Proposal, State, Trial

pytest.register_assert_rewrite("localhpo.testing")


@pytest.fixture(scope="session", autouse=True)
def usual_signals() -> None:
    """What a shell lets its background jobs ignore, and they their children, is heard here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the user's reaches a test; everything is written below tmp_path."""
    for name in list(os.environ):
        if name.startswith(("LOCALHPO_", "CUDA_VISIBLE", "OPTUNA_", "HF_", "RAY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LOCALHPO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))  # no study or server of the user
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """The real vLLM with the built-in model: one for all tests, for it takes a minute to start."""
    with real_server(tmp_path_factory.mktemp("vllm")) as server:
        yield server


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
            objectives=(Objective("loss", "minimize"),),
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
        value: float | None = None,
        origin: str = "random",
        **changes: Any,
    ) -> Trial:
        return Trial(
            number=number,
            state=state,
            proposal=Proposal(config=dict(config), origin=Origin.parse(origin)),
            **({} if value is None else {"values": (value,)}),
            **changes,
        )

    return make


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """A head without CPUs and three nodes with one each; a test gives back what it changes."""
    pytest.importorskip("ray", reason="Ray is not installed")
    cluster = RayCluster()
    for _ in range(3):
        cluster.add()
    yield cluster
    cluster.close()


@pytest.fixture
def times() -> list[float]:
    """The time of the broker's clock, which a test may advance."""
    return [1_000.0]


@pytest.fixture
def make_broker(tmp_path: Path, times: list[float]) -> Callable[..., ResourceBroker]:
    """Return a maker of brokers of studies that share a folder of this test."""

    def make(study: str, inventory: Inventory | None = None, **arguments: Any) -> ResourceBroker:
        return ResourceBroker(
            study,
            inventory or Inventory(cpus=2),
            folder=tmp_path / "m",
            now=lambda: times[0],
            **arguments,
        )

    return make
