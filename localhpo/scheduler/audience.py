"""Everyone who is told about a study: its record, and the observers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from localhpo.executor.clock import Clock
from localhpo.scheduler.ledger import Recorder
from localhpo.scheduler.observer import EventKind, Observer, Snapshot
from localhpo.store.records import Event

_T = TypeVar("_T")

_URGENT: frozenset[EventKind] = frozenset({"finished", "pruned", "failed", "interrupted", "ended"})


class Audience:
    """Tells the record and the observers, and never waits for either.

    A record that is locked by another program is tried again later; an observer that raises
    is noted once.
    """

    def __init__(
        self, recorder: Recorder, observers: Sequence[Observer], clock: Clock, *, idle_s: float
    ) -> None:
        """Tell at least every `idle_s`, and at once when something happened."""
        self._recorder = recorder
        self._observers = tuple(observers)
        self._clock = clock
        self._idle_s = idle_s
        self._due = clock.monotonic()
        self._changed = True
        self._urgent = False
        self._locked = False
        self._faulty: set[int] = set()

    def say(
        self,
        kind: EventKind,
        message: str,
        trial: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell all what happened."""
        self._changed = True
        self._urgent |= kind in _URGENT
        event = Event(self._clock.time(), kind, message, trial, data or {})
        self._recorder.event(kind, message, trial, event.data)
        for observer in self._observers:
            self._tell(observer, observer.on_event, event)

    def stir(self) -> None:
        """Note that something changed that is no event: a measurement came."""
        self._changed = True

    def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
        """Bring the record and the observers up to date, if it is time to.

        Readers of the record see a trial that ended at once, anything else within `idle_s`.
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
            drawn = snapshot()
            for observer in self._observers:
                self._tell(observer, observer.on_change, drawn)

    def flush(self) -> None:
        """Let readers see the record; while it is locked, say so once and go on."""
        done = self._recorder.flush()
        if not done and not self._locked:
            self.say(
                "note", "another program holds the database; records are kept beside it until then"
            )
        self._locked = not done

    def _tell(self, observer: Observer, verb: Callable[[_T], None], what: _T) -> None:
        try:
            verb(what)
        except Exception as error:  # noqa: BLE001 - a user's callback must not cost trials
            if id(observer) not in self._faulty:
                self._faulty.add(id(observer))
                name = type(observer).__name__
                self.say("warning", f"{name} raised {error!r}; the study goes on")
