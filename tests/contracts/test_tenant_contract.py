"""The laws of `localhpo.scheduler.tenant`, run over every Tenant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import pytest
from resting_server import running

from localhpo.errors import ModelError
from localhpo.executor.clock import SimulatedClock
from localhpo.scheduler import footprint
from localhpo.scheduler.placement import Assignment
from localhpo.scheduler.sharing import RESTING
from localhpo.scheduler.tenant import InProcess, Managed, Rest, Simulated, Tenant

WAYS: tuple[Rest, ...] = ("sleep", "stop")

ON_HOST = Assignment(0.0, memory_mb=150, gpu_share=0.0)
ON_DEVICE = Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=16_000)

RAGGED_MB = 10.0
"""Two measurements of a process that does nothing differ by less."""


@dataclass(frozen=True)
class Case:
    """A tenant that is awake, and what the laws say of it in particular."""

    tenant: Tenant
    rests: frozenset[Rest]
    is_measured: bool
    effort: Callable[[], object]
    """Changes with everything that was done to it."""


@contextmanager
def in_process(holds: Assignment | None) -> Iterator[Case]:
    yield Case(InProcess(holds), frozenset(), is_measured=False, effort=lambda: None)


@contextmanager
def managed(*, can_sleep: bool, is_measured: bool = True) -> Iterator[Case]:
    with running("frees") as server:
        measure: Callable[[int], float | None] = (
            footprint.host_mb if is_measured else lambda pid: None
        )
        yield Case(
            Managed(server, holds=ON_HOST, measure=measure, can_sleep=can_sleep),
            frozenset(WAYS if can_sleep else ("stop",)),
            is_measured,
            effort=lambda: (server.pid, tuple(server.orders)),
        )


@contextmanager
def simulated(holds: Assignment, *, can_sleep: bool) -> Iterator[Case]:
    clock = SimulatedClock()
    tenant = Simulated(
        clock, holds=holds, asleep_mb=20.0, sleep_s=2.0, wake_s=3.0, stop_s=4.0, start_s=40.0,
        can_sleep=can_sleep,
    )  # fmt: skip
    yield Case(
        tenant, frozenset(WAYS if can_sleep else ("stop",)), is_measured=True,
        effort=clock.monotonic,
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


def rest(tenant: Tenant, way: Literal["sleep", "stop"]) -> None:
    (tenant.sleep if way == "sleep" else tenant.stop)()


def used_mb(case: Case) -> float:
    """Return what it holds, 0 where nobody can tell."""
    used = case.tenant.used_mb()
    # Of a process that has ended everybody can tell: nothing.
    assert used == 0.0 or (used is not None) == case.is_measured
    return used or 0.0


def test_it_rests_in_the_ways_that_it_says(case: Case) -> None:
    assert case.tenant.rests == case.rests


def test_what_it_holds_never_changes(case: Case) -> None:
    holds = case.tenant.holds
    for way in case.rests:
        rest(case.tenant, way)
        assert case.tenant.holds == holds
        case.tenant.wake()
        assert case.tenant.holds == holds


def test_every_rest_makes_room_and_waking_undoes_it(case: Case) -> None:
    awake = used_mb(case)
    for way in sorted(case.rests) * 2:
        before = case.effort()
        rest(case.tenant, way)
        assert case.effort() != before
        if case.is_measured:
            assert used_mb(case) < 0.5 * awake
        case.tenant.wake()
        assert used_mb(case) == pytest.approx(awake, abs=RAGGED_MB)


def test_a_stop_leaves_nothing(case: Case) -> None:
    if "stop" in case.rests:
        case.tenant.stop()
        assert case.tenant.used_mb() == 0.0


def test_waking_one_who_is_awake_does_nothing(case: Case) -> None:
    awake, before = used_mb(case), case.effort()
    case.tenant.wake()
    assert case.effort() == before
    for way in case.rests:
        rest(case.tenant, way)
        case.tenant.wake()
        before = case.effort()
        case.tenant.wake()
        assert case.effort() == before
    assert used_mb(case) == pytest.approx(awake, abs=RAGGED_MB)


def test_it_says_how_it_stands(case: Case) -> None:
    assert case.tenant.standing == "awake"
    for way, standing in RESTING.items():
        if way in case.rests:
            rest(case.tenant, way)
            assert case.tenant.standing == standing
            case.tenant.wake()
            assert case.tenant.standing == "awake"


def test_a_way_that_it_has_not_is_refused_and_changes_nothing(case: Case) -> None:
    awake, before, holds = used_mb(case), case.effort(), case.tenant.holds
    for way in set(WAYS) - case.rests:
        with pytest.raises(ModelError):
            rest(case.tenant, way)
    assert (case.effort(), case.tenant.holds) == (before, holds)
    assert used_mb(case) == pytest.approx(awake, abs=RAGGED_MB)


def test_what_it_uses_is_measured_or_not_told(case: Case) -> None:
    used = case.tenant.used_mb()
    assert (used is not None) == case.is_measured
    if used is not None:
        assert used > 100.0
