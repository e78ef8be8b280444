"""A store of this test, trials with something in every field, and programs that get in the way."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from localhpo.store import Store, StudyRecord
from localhpo.trial import Cause, Failure, Measurement, Origin, Proposal, State, Trial, Usage

NAME = "water/main"


def make_record(name: str = NAME, created_at: float = 1_790_000_000.123456) -> StudyRecord:
    return StudyRecord(name, name.split("/")[0], {"seed": 7, "metric": "f1"}, created_at, "0.1.0")


@pytest.fixture
def record() -> Callable[..., StudyRecord]:
    return make_record


@pytest.fixture
def full_trial() -> Callable[..., Trial]:
    return make_full_trial


def make_full_trial(number: int = 0) -> Trial:
    """A trial in which every field has a value that is not its default."""
    return Trial(
        number=number,
        state=State.FAILED,
        proposal=Proposal(
            config={"lr": 3.1e-4, "depth": 7, "booster": 'da"rt\n😀', "flag": True, "big": 2**70},
            origin=Origin.parse("bo+llm"),
            rationale="because it's so",
            rationale_by="model",
            evidence=(0, 3),
            tries=4,
            seed=2**64 - 1,
            model_digest="ab" * 32,
            prompt_tokens=812,
            completion_tokens=97,
            seconds=0.42,
            prompt="line\nline\x00\u2028",
            prompt_sha256="cd" * 32,
            answer='{"lr":3.1e-4}',
            engine_state={"cma": [0.1, {"x": None}], "big": 2**70},
            note="an engine replaced the model",
        ),
        values=(-0.0, 1e-300),
        violations=(0.25, -math.inf),
        measurements=(
            Measurement(1, "f1", 0.1 + 0.2, 1_790_000_001.000001),
            Measurement(1, "f1", float("nan"), 1_790_000_001.5),
            Measurement(-2, "süß", float("-inf"), 1_790_000_002.25),
        ),
        failure=Failure(Cause.TIMEOUT, "ran too long", "Traceback\n  ..."),
        usage=Usage(
            wall_s=1.5,
            cpu_s=1.25,
            peak_memory_mb=512.5,
            peak_gpu_memory_mb=1024.0,
            gpu_s=0.75,
            gpu_utilization=0.5,
            energy_j=300.0,
        ),
        summary="rose, then fell",
        seed=2**31,
        restarts=2,
        user_attrs={"host": "a", "none": None, "inf": float("inf")},
        queued_at=1_790_000_000.5,
        started_at=1_790_000_001.5,
        finished_at=1_790_000_009.999999,
    )


@pytest.fixture
def store(home: Path) -> Store:
    """A store with one study, `water/main`, and no trials."""
    store = Store(home)
    store.create_study(make_record())
    return store


Start = Callable[[str], AbstractContextManager[subprocess.Popen[str]]]


@pytest.fixture
def start() -> Start:
    """Return a starter of Python programs that print a line once they are ready."""

    @contextmanager
    def start(code: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "the program ended before it was ready"
            yield process
        finally:
            process.kill()
            process.communicate()

    return start


@pytest.fixture
def shell(start: Start, home: Path) -> Callable[[bool], AbstractContextManager[object]]:
    """Return a function that opens a user's own DuckDB shell, in another process."""

    def shell(read_only: bool = False) -> AbstractContextManager[object]:
        return start(f"""
            import duckdb, sys
            connection = duckdb.connect({str(home / "store.duckdb")!r}, read_only={read_only})
            print("ready", flush=True)
            sys.stdin.read()
        """)

    return shell
