"""How long the model's server takes to rest and to come back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from statistics import fmean

from localhpo.executor.clock import Clock


class Durations:
    """Remembers what was seen; guesses before.

    Args:
        clock: Measures.
        moved_mb: What the server moves, which bounds how fast it can be.
    """

    def __init__(self, clock: Clock, moved_mb: float) -> None:
        self._clock = clock
        self._moved_mb = moved_mb
        self._seen_s: dict[str, list[float]] = {}
        self.last_s = 0.0
        """How long the last block took."""

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Remember how long the block took; not where it failed."""
        began = self._clock.monotonic()
        yield
        self.last_s = self._clock.monotonic() - began
        self._seen_s.setdefault(what, []).append(self.last_s)

    def __getitem__(self, what: str) -> float:
        """Return how long it takes: the mean of what was seen, a guess before."""
        seen = self._seen_s.get(what)
        if seen:
            return fmean(seen)
        # Over the bus at 10 GB a second, from a disk at 2, after half a minute for the process.
        moved_s, read_s = self._moved_mb / 10_000, self._moved_mb / 2_000
        return {"sleep": 1 + moved_s, "wake": 1 + moved_s, "stop": 5.0, "start": 30 + read_s}[what]
