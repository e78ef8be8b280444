"""What observers of a run are told: events before its loop starts, and ended trials."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence

from localhpo.scheduler.events import EventKind, Observer, Snapshot
from localhpo.store import Event, StudyWriter
from localhpo.trial import COUNTED, Trial


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


class Callbacks:
    """Observer that calls callbacks once for each trial that has ended.

    Args:
        callbacks: called with each trial of this run that has ended, by number.
        before: the trials of earlier runs, which are not passed to callbacks again.
    """

    def __init__(
        self,
        callbacks: Sequence[Callable[[Trial], None]],
        before: Iterable[Trial],
    ) -> None:
        self._callbacks = callbacks
        self._reported = {trial.number for trial in before if trial.state in COUNTED}

    def on_event(self, event: Event) -> None:
        """Ignore events."""

    def on_change(self, snapshot: Snapshot) -> None:
        """Call every callback, even where one raises.

        Raises:
            Exception: the first that a callback raised, after all were called.
        """
        ended = [
            t for t in snapshot.trials if t.state in COUNTED and t.number not in self._reported
        ]
        errors: list[Exception] = []
        for trial in ended:
            self._reported.add(trial.number)
            for callback in self._callbacks:
                try:
                    callback(trial)
                except Exception as error:  # noqa: BLE001 - raised below
                    errors.append(error)
        if errors:
            raise errors[0]
