"""The time that a study lives in: the real one, or a simulated one.

The loop asks its clock and never the `time` module, so that a benchmark runs the real loop
over trials of minutes in milliseconds (as Syne Tune does: swap backend and clock, keep the
loop, https://github.com/syne-tune/syne-tune/tree/main/syne_tune/backend/simulator_backend).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Tells the time and lets it pass."""

    def time(self) -> float:
        """Return the seconds since the epoch (UTC): for records."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back: for durations."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let that many seconds pass; a negative number is none."""
        ...


class RealClock:
    """The time of this machine."""

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
    """A time that passes only when somebody sleeps; not for several threads."""

    def __init__(self, start: float = 0.0) -> None:
        """Begin at `start` seconds since the epoch."""
        self._start = start
        self._elapsed_s = 0.0

    def aside(self, work: Callable[[], None]) -> float:
        """Do work that takes its time beside everything else, as a thread does.

        It sees the clock go on; for everyone else the time is as it was.

        Returns:
            When it is done, on the monotonic clock: pretend until then that it still goes on.
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
