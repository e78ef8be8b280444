"""Durations of offloading the model's server and of making it resident again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from statistics import fmean

from localhpo.executor.clock import Clock


class SwitchDurations:
    """Measured durations by transition, with estimates before the first measurement.

    Args:
        clock: Measures the durations.
        model_mb: Memory of the model, in MB: what is copied on each transition.
    """

    def __init__(self, clock: Clock, model_mb: float) -> None:
        self._clock = clock
        self._model_mb = model_mb
        self._seen_s: dict[str, list[float]] = {}
        self.last_s = 0.0
        """Duration of the last block."""

    @contextlib.contextmanager
    def measure(self, transition: str) -> Iterator[None]:
        """Measure the block; a block that fails is not recorded."""
        began = self._clock.monotonic()
        yield
        self.last_s = self._clock.monotonic() - began
        self._seen_s.setdefault(transition, []).append(self.last_s)

    def __getitem__(self, transition: str) -> float:
        """Return the mean of the measured durations, or an estimate before the first."""
        seen = self._seen_s.get(transition)
        if seen:
            return fmean(seen)
        # 10 GB/s over the bus, 2 GB/s from a disk, half a minute to start a process.
        copy_s, read_s = self._model_mb / 10_000, self._model_mb / 2_000
        estimates_s = {"sleep": 1 + copy_s, "wake": 1 + copy_s, "stop": 5.0, "start": 30 + read_s}
        return estimates_s[transition]
