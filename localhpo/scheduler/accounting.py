"""Usage accounting of a run: what it waited for, and what the model used of the devices.

While the Creator makes a proposal, a free slot waits for the model. A queued trial waits for a
running one to end while all slots are taken; while a slot is free, it waits for what is short:
memory, what another study uses, or its turn. Before all that, the run waits for the model to load.
(How long a study waited for its user lies between its runs: `analysis` reads it from the events.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from localhpo.executor.clock import Clock
from localhpo.resources.meter import DeviceUse
from localhpo.scheduler.events import Snapshot
from localhpo.store.records import WAIT_TEXTS, Event, WaitCause
from localhpo.trial import State

ACCOUNTS = "accounts"
"""Kind of these events. Each covers the time since the one before, so that their data add up."""

_MIN_WAIT_S = 0.01
"""Shorter waits are not recorded."""


RecordEvent = Callable[[str, str, int | None, Mapping[str, Any]], object]
"""Stores an event: its kind, a sentence, the number of its trial, and data."""


def current_wait(snapshot: Snapshot) -> WaitCause | None:
    """Return what a free slot or the next trial waits for; None where nothing waits."""
    if snapshot.stop_reason:
        return None
    running = len(snapshot.running)
    if any(trial.state in (State.QUEUED, State.INTERRUPTED) for trial in snapshot.trials):
        return "device" if running >= snapshot.slots else snapshot.blocked_by
    return "model" if snapshot.proposing and running < snapshot.slots else None


class UsageAccounting:
    """An observer that records waiting times and the model's usage, per trial and at the end."""

    def __init__(
        self,
        record: RecordEvent,
        clock: Clock,
        model_use: Callable[[], DeviceUse],
        loading_s: float = 0.0,
    ) -> None:
        """Start to account for a run.

        Args:
            record: Stores the events.
            clock: Measures how long is waited.
            model_use: Returns what the model has used of the devices so far.
            loading_s: How long the model took to load before the run; 0 without a model.
        """
        self._record = record
        self._clock = clock
        self._model_use = model_use
        self._waiting: WaitCause | None = None
        self._since = clock.monotonic()
        self._waited_s: dict[WaitCause, float] = {"loading": loading_s}
        self._recorded_use = DeviceUse()

    def on_event(self, event: Event) -> None:
        """Record the usage so far with each trial that starts, and at the end."""
        if event.kind in ("started", "ended"):
            self._add_wait()
            self._write(event.trial)

    def on_change(self, snapshot: Snapshot) -> None:
        """Note what is waited for from now on."""
        self._add_wait()
        self._waiting = current_wait(snapshot)

    def _add_wait(self) -> None:
        now = self._clock.monotonic()
        if self._waiting is not None:
            self._waited_s[self._waiting] = self._waited_s.get(self._waiting, 0.0) + (
                now - self._since
            )
        self._since = now

    def _write(self, trial: int | None) -> None:
        waited_s = {cause: round(s, 3) for cause, s in self._waited_s.items() if s >= _MIN_WAIT_S}
        use, before = dataclasses.replace(self._model_use()), self._recorded_use
        gpu_s = use.gpu_s - before.gpu_s
        if not waited_s and not gpu_s:
            return
        data: dict[str, Any] = {"waited_s": waited_s}
        if gpu_s:
            data |= {"model_gpu_s": round(gpu_s, 3), "model_gpu_memory_mb": use.peak_mb}
        if use.energy_j is not None:
            data["model_energy_j"] = round(use.energy_j - (before.energy_j or 0.0), 3)
        waits = ", ".join(f"{s:.1f} s for {WAIT_TEXTS[cause]}" for cause, s in waited_s.items())
        self._record(ACCOUNTS, f"waited {waits}" if waits else "no waiting", trial, data)
        self._waited_s, self._recorded_use = {}, use
