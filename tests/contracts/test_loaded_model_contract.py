"""The laws of `localhpo.scheduler.loaded_model`, run over every LoadedModel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest
from fake_server import running

from localhpo.errors import ModelError
from localhpo.executor.clock import SimulatedClock
from localhpo.resources import footprint
from localhpo.resources.placement import Assignment
from localhpo.scheduler.loaded_model import (
    InProcessModel,
    LoadedModel,
    OffloadMethod,
    ServerModel,
)
from localhpo.scheduler.sharing import STATE_AFTER
from scripts.benchmarks.sharing.model import SimulatedModel

METHODS: tuple[OffloadMethod, ...] = ("sleep", "stop")

ON_HOST = Assignment(0.0, memory_mb=150, gpu_share=0.0)
ON_DEVICE = Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=16_000)

TOLERANCE_MB = 10.0
"""Two measurements of a process that does nothing differ by less."""


@dataclass(frozen=True)
class Case:
    """A resident model, and what is expected of it."""

    model: LoadedModel
    offload_methods: frozenset[OffloadMethod]
    is_measured: bool
    activity: Callable[[], object]
    """Returns a value that changes with everything that is done to the model."""


@contextmanager
def in_process(assignment: Assignment | None) -> Iterator[Case]:
    yield Case(InProcessModel(assignment), frozenset(), is_measured=False, activity=lambda: None)


@contextmanager
def managed(*, can_sleep: bool, is_measured: bool = True) -> Iterator[Case]:
    with running("frees") as server:
        measure: Callable[[int], float | None] = (
            footprint.measure_host_mb if is_measured else lambda pid: None
        )
        yield Case(
            ServerModel(server, assignment=ON_HOST, measure=measure, can_sleep=can_sleep),
            frozenset(METHODS if can_sleep else ("stop",)),
            is_measured,
            activity=lambda: (server.pid, tuple(server.orders)),
        )


@contextmanager
def simulated(assignment: Assignment, *, can_sleep: bool) -> Iterator[Case]:
    clock = SimulatedClock()
    model = SimulatedModel(
        clock, assignment=assignment, asleep_mb=20.0, can_sleep=can_sleep,
        sleep_s=2.0, wake_s=3.0, stop_s=4.0, start_s=40.0,
    )  # fmt: skip
    yield Case(
        model, frozenset(METHODS if can_sleep else ("stop",)), is_measured=True,
        activity=clock.monotonic,
    )  # fmt: skip


CASES: dict[str, Callable[[], AbstractContextManager[Case]]] = {
    "in process, unknown": lambda: in_process(None),
    "in process, on a device": lambda: in_process(ON_DEVICE),
    "managed": lambda: managed(can_sleep=True),
    "managed, only stops": lambda: managed(can_sleep=False),
    "managed, not measured": lambda: managed(can_sleep=True, is_measured=False),
    "simulated": lambda: simulated(ON_DEVICE, can_sleep=True),
    "simulated, only stops": lambda: simulated(ON_HOST, can_sleep=False),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with request.param() as made:
        yield made


def offload(model: LoadedModel, method: OffloadMethod) -> None:
    (model.sleep if method == "sleep" else model.stop)()


def measure_mb(case: Case) -> float:
    """Return the memory that it holds, 0 where it cannot be measured."""
    used = case.model.measure_mb()
    # The memory of a process that has ended is known: 0.
    assert used == 0.0 or (used is not None) == case.is_measured
    return used or 0.0


def test_it_has_the_expected_offload_methods(case: Case) -> None:
    assert case.model.offload_methods == case.offload_methods


def test_its_assignment_never_changes(case: Case) -> None:
    assignment = case.model.assignment
    for method in case.offload_methods:
        offload(case.model, method)
        assert case.model.assignment == assignment
        case.model.wake()
        assert case.model.assignment == assignment


def test_offloading_frees_memory_and_waking_reverses_it(case: Case) -> None:
    resident_mb = measure_mb(case)
    for method in sorted(case.offload_methods) * 2:
        before = case.activity()
        offload(case.model, method)
        assert case.activity() != before
        if case.is_measured:
            assert measure_mb(case) < 0.5 * resident_mb
        case.model.wake()
        assert measure_mb(case) == pytest.approx(resident_mb, abs=TOLERANCE_MB)


def test_a_stopped_model_holds_nothing(case: Case) -> None:
    if "stop" in case.offload_methods:
        case.model.stop()
        assert case.model.measure_mb() == 0.0


def test_waking_a_resident_model_does_nothing(case: Case) -> None:
    resident_mb, before = measure_mb(case), case.activity()
    case.model.wake()
    assert case.activity() == before
    for method in case.offload_methods:
        offload(case.model, method)
        case.model.wake()
        before = case.activity()
        case.model.wake()
        assert case.activity() == before
    assert measure_mb(case) == pytest.approx(resident_mb, abs=TOLERANCE_MB)


def test_its_state_follows_its_transitions(case: Case) -> None:
    assert case.model.state == "resident"
    for method, state in STATE_AFTER.items():
        if method in case.offload_methods:
            offload(case.model, method)
            assert case.model.state == state
            case.model.wake()
            assert case.model.state == "resident"


def test_other_methods_are_refused_and_change_nothing(case: Case) -> None:
    resident_mb, before, assignment = measure_mb(case), case.activity(), case.model.assignment
    for method in set(METHODS) - case.offload_methods:
        with pytest.raises(ModelError):
            offload(case.model, method)
    assert (case.activity(), case.model.assignment) == (before, assignment)
    assert measure_mb(case) == pytest.approx(resident_mb, abs=TOLERANCE_MB)


def test_its_memory_is_measured_or_none(case: Case) -> None:
    used = case.model.measure_mb()
    assert (used is not None) == case.is_measured
    if used is not None:
        assert used > 100.0
