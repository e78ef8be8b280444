"""Clocks: the real one, and a simulated one for benchmarks and tests.

The loop asks its clock and never the `time` module, so that a benchmark runs the real loop
over trials of minutes in milliseconds (as Syne Tune does: swap backend and clock, keep the
loop, https://github.com/syne-tune/syne-tune/tree/main/syne_tune/backend/simulator_backend).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """A source of time, which can also wait."""

    def time(self) -> float:
        """Return the seconds since the epoch (UTC): for records."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back: for durations."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait that many seconds; return at once if the number is negative."""
        ...


class RealClock:
    """The clock of this machine."""

    def time(self) -> float:
        """Return the seconds since the epoch (UTC)."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(max(0.0, seconds))


class SimulatedClock:
    """A clock that advances only by `sleep`; not thread-safe."""

    def __init__(self, start: float = 0.0) -> None:
        """Start at `start` seconds since the epoch."""
        self._start = start
        self._elapsed_s = 0.0

    def aside(self, work: Callable[[], None]) -> float:
        """Run work whose simulated time passes in parallel, as if in a thread of its own.

        The clock advances for the work alone and is set back afterwards.

        Returns:
            When the work is done, in seconds of the monotonic clock; callers treat it as running
            until then.
        """
        began_s = self._elapsed_s
        try:
            work()
            return self._elapsed_s
        finally:
            self._elapsed_s = began_s

    def time(self) -> float:
        """Return the simulated seconds since the epoch."""
        return self._start + self._elapsed_s

    def monotonic(self) -> float:
        """Return the seconds slept so far."""
        return self._elapsed_s

    def sleep(self, seconds: float) -> None:
        """Put the clock forward; returns at once."""
        self._elapsed_s += max(0.0, seconds)
