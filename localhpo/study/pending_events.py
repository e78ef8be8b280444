"""Events of a run before its loop starts, kept until the study can be written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from localhpo.scheduler.events import EventKind, Observer
from localhpo.store import Event, StudyWriter


class PendingEvents:
    """Publishes events to observers at once, and to the store as soon as there is a writer.

    The study is written only after its model was opened: a run whose model cannot be opened leaves
    nothing in the store.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        """Start without a writer."""
        self._observers = observers
        self._writer: StudyWriter | None = None
        self._unwritten: list[tuple[EventKind, str]] = []

    def publish(self, kind: EventKind, message: str) -> None:
        """Publish an event."""
        event = Event(time.time(), kind, message, None, {})
        for observer in self._observers:
            with contextlib.suppress(Exception):  # the loop reports an observer that raises
                observer.on_event(event)
        self._unwritten.append((kind, message))
        self._write()

    def attach_writer(self, writer: StudyWriter) -> None:
        """Write the events so far, and later ones at once."""
        self._writer = writer
        self._write()

    def _write(self) -> None:
        if self._writer is not None:
            for kind, message in self._unwritten:
                self._writer.write_event(kind, message)
            self._unwritten.clear()
