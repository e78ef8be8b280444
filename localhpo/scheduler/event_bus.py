"""Passes what happens in a study to its record and to its observers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from localhpo.executor.clock import Clock
from localhpo.scheduler.observer import EventKind, Observer, Snapshot
from localhpo.scheduler.trial_table import Recorder
from localhpo.store.records import Event

_T = TypeVar("_T")

_URGENT: frozenset[EventKind] = frozenset({"finished", "pruned", "failed", "interrupted", "ended"})
"""Kinds of events that readers of the store see at once."""


class EventBus:
    """Passes events to the record and to observers, and never waits for them.

    A record that another program has locked is tried again later. An observer that raises is
    reported once.
    """

    def __init__(
        self, recorder: Recorder, observers: Sequence[Observer], clock: Clock, *, idle_s: float
    ) -> None:
        """Update record and observers at least every `idle_s`, and at once after an event."""
        self._recorder = recorder
        self._observers = tuple(observers)
        self._clock = clock
        self._idle_s = idle_s
        self._due = clock.monotonic()
        self._changed = True
        self._urgent = False
        self._locked = False
        self._faulty: set[int] = set()  # ids of observers that raised

    def publish(
        self,
        kind: EventKind,
        message: str,
        trial: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Record an event and pass it to the observers."""
        self._changed = True
        self._urgent |= kind in _URGENT
        event = Event(self._clock.time(), kind, message, trial, data or {})
        self._recorder.write_event(kind, message, trial, event.data)
        for observer in self._observers:
            self._notify(observer, observer.on_event, event)

    def mark_dirty(self) -> None:
        """Have the observers updated for a change that is no event: a measurement came."""
        self._changed = True

    def update(self, make_snapshot: Callable[[], Snapshot]) -> None:
        """Bring the record and the observers up to date, where it is time.

        Readers of the record see the end of a trial at once, anything else within `idle_s`.
        """
        now = self._clock.monotonic()
        due = now >= self._due
        if due:
            self._due = now + self._idle_s
        if due or self._urgent:
            self._urgent = False
            self.flush()
        if self._observers and (due or self._changed):
            self._changed = False
            snapshot = make_snapshot()
            for observer in self._observers:
                self._notify(observer, observer.on_change, snapshot)

    def flush(self) -> None:
        """Make the record visible to readers; while it is locked, report that once and go on."""
        done = self._recorder.flush()
        if not done and not self._locked:
            self.publish(
                "note",
                "another program has the database open; until it closes it, new records are kept "
                "in a journal beside it",
            )
        self._locked = not done

    def _notify(self, observer: Observer, method: Callable[[_T], None], argument: _T) -> None:
        try:
            method(argument)
        except Exception as error:  # noqa: BLE001 - a user's callback must not cost trials
            if id(observer) not in self._faulty:
                self._faulty.add(id(observer))
                name = type(observer).__name__
                self.publish("warning", f"{name} raised {error!r}; the study goes on")
