"""Keeps the books of a run: what it waited for, and what the model took of the devices.

A free slot waits for the model while the Creator thinks; a trial that is ready waits for a
device while all slots are busy, and for what is short while there is a slot and no room: memory,
or what another study holds, or its turn. Before all that, the run waits for the model to be
loaded. (How long a study waited for its user is between its runs: `analysis.accounting` sees it
in the events.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from localhpo.executor.clock import Clock
from localhpo.scheduler.meter import DeviceUse
from localhpo.scheduler.observer import Snapshot
from localhpo.store.records import WAITS, Event, Wait
from localhpo.trial import State

ACCOUNTS = "accounts"
"""Kind of the events; their data add up."""

_LEAST_S = 0.01


class Record(Protocol):
    """Keeps an event; `store.Writer.event` is one."""

    def __call__(
        self, kind: str, message: str, trial: int | None, data: Mapping[str, Any]
    ) -> object:
        """Keep it."""
        ...


def waits_for(snapshot: Snapshot) -> Wait | None:
    """Return what a free slot, or the next trial, waits for; None where nothing waits."""
    if snapshot.closing:
        return None
    running = len(snapshot.running)
    if any(trial.state in (State.QUEUED, State.INTERRUPTED) for trial in snapshot.trials):
        return "device" if running >= snapshot.slots else snapshot.held_up
    return "model" if snapshot.proposing and running < snapshot.slots else None


class Accountant:
    """An observer that records what was waited for, with each trial that starts and at the end."""

    def __init__(
        self,
        record: Record,
        clock: Clock,
        model: Callable[[], DeviceUse],
        loading_s: float = 0.0,
    ) -> None:
        """Begin the books of a run.

        Args:
            record: Keeps them.
            clock: Measures what is waited for.
            model: Says what the model has taken of the devices so far.
            loading_s: Waited before the run, for the model to be loaded.
        """
        self._record = record
        self._clock = clock
        self._model = model
        self._waiting: Wait | None = None
        self._since = clock.monotonic()
        self._waited_s: dict[Wait, float] = {"loading": loading_s}
        self._before = DeviceUse()

    def on_event(self, event: Event) -> None:
        """Record what was waited for before a trial that starts, and at the end."""
        if event.kind in ("started", "ended"):
            self._pass()
            self._write(event.trial)

    def on_change(self, snapshot: Snapshot) -> None:
        """Take note of what is waited for from now on."""
        self._pass()
        self._waiting = waits_for(snapshot)

    def _pass(self) -> None:
        now = self._clock.monotonic()
        if self._waiting is not None:
            self._waited_s[self._waiting] = self._waited_s.get(self._waiting, 0.0) + (
                now - self._since
            )
        self._since = now

    def _write(self, trial: int | None) -> None:
        waited_s = {cause: round(s, 3) for cause, s in self._waited_s.items() if s >= _LEAST_S}
        model, before = dataclasses.replace(self._model()), self._before
        gpu_s = model.gpu_s - before.gpu_s
        if not waited_s and not gpu_s:
            return
        data: dict[str, Any] = {"waited_s": waited_s}
        if gpu_s:
            data |= {"model_gpu_s": round(gpu_s, 3), "model_gpu_memory_mb": model.peak_mb}
        if model.energy_j is not None:
            data["model_energy_j"] = round(model.energy_j - (before.energy_j or 0.0), 3)
        waits = ", ".join(f"{s:.1f} s for {WAITS[cause]}" for cause, s in waited_s.items())
        self._record(ACCOUNTS, f"waited {waits}" if waits else "nothing waited", trial, data)
        self._waited_s, self._before = {}, model
