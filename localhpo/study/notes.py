"""What is to be said of a run before its loop begins."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from localhpo.scheduler.observer import EventKind, Observer
from localhpo.store import Event, Writer


class Notes:
    """Tells the observers at once, and the record as soon as there is one.

    The study is not written before its model is there: one that cannot be opened leaves nothing.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        """Begin without a record."""
        self._observers = observers
        self._writer: Writer | None = None
        self._kept: list[tuple[EventKind, str]] = []

    def say(self, kind: EventKind, message: str) -> None:
        """Tell all."""
        event = Event(time.time(), kind, message, None, {})
        for observer in self._observers:
            with contextlib.suppress(Exception):  # the loop notes one that raises
                observer.on_event(event)
        self._kept.append((kind, message))
        self._record()

    def record_by(self, writer: Writer) -> None:
        """Record what was said, and what will be."""
        self._writer = writer
        self._record()

    def _record(self) -> None:
        if self._writer is not None:
            for kind, message in self._kept:
                self._writer.event(kind, message)
            self._kept.clear()
