"""`localhpo.executor.clock`: real and simulated time."""

from __future__ import annotations

import time

import pytest

from localhpo.executor.clock import Clock, RealClock, SimulatedClock


@pytest.mark.parametrize("clock", [RealClock(), SimulatedClock(1.8e9)], ids=["real", "simulated"])
def test_time_passes_by_at_least_what_was_slept(clock: Clock) -> None:
    start, mono = clock.time(), clock.monotonic()
    clock.sleep(0.02)
    clock.sleep(-1.0)
    assert clock.time() - start >= 0.019
    assert clock.monotonic() - mono >= 0.02


def test_simulated_time_passes_by_sleeping_alone() -> None:
    clock = SimulatedClock(start=100.0)
    before = time.monotonic()
    clock.sleep(3600.0)
    assert (clock.time(), clock.monotonic()) == (3700.0, 3600.0)
    assert time.monotonic() - before < 3600.0
