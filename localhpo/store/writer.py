"""The writer of a study: its journal first, then the tables."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from localhpo.errors import StoreError
from localhpo.store import journal, serialization, tables
from localhpo.store.database import Database, DatabaseBusyError
from localhpo.store.errors import as_store_errors
from localhpo.store.journal import JournalWriter
from localhpo.store.records import Event
from localhpo.store.replay import ReplayedStudy
from localhpo.store.study_lock import StudyLock
from localhpo.trial import Measurement, Trial

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_log = logging.getLogger(__name__)

_FLUSH_EVERY_S = 1.0
"""Closing a DuckDB file costs tens of milliseconds, however little was written."""
_CLOSE_WAIT_S = 0.2
"""How long the last flush waits for another study's flush, which takes milliseconds."""


class StudyWriter:
    """Writes one study, and holds its lock. Made by `Store.writer`; not for several threads.

    What `write_trial` returned from is on the disk. Measurements and events survive a kill at
    once, and a power cut from the next `write_trial`, `sync` or `flush` on.
    """

    def __init__(self, lock: StudyLock, journal_writer: JournalWriter, database: Database) -> None:
        """Take over the lock and an open journal, which `close` gives up."""
        path = journal_writer.path
        self._lock = lock
        self._journal = journal_writer
        self._database = database
        self._header = journal.read_header(path)
        self._study = ReplayedStudy.from_lines(line for line, _ in journal.read_lines(path))
        self._study.measurements.clear()  # only trials are needed from here on
        self._flushed = -1  # so many bytes of the journal are in the tables; unknown as yet
        self._kept_up = True
        self._due_at = time.monotonic()

    @property
    def name(self) -> str:
        """Name of the study."""
        return self._header.record.name

    def write_trial(self, trial: Trial) -> None:
        """Write the trial as it is now, without its measurements. Blocks until it is on disk.

        Raises:
            StoreError: the disk is full, for instance.
            InputError: an attribute, or the state of an engine, is not JSON.
        """
        known = self._study.trials.get(trial.number, {})
        changes = {
            name: value
            for name, value in serialization.encode_trial(trial).items()
            if name == "number" or name not in known or known[name] != value
        }
        self._study.apply(*self._journal.append("trial", changes))
        self._journal.sync()

    def write_measurements(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Add what the present run of a trial reported.

        Raises:
            StoreError: no such trial was written, or the disk is full.
        """
        if number not in self._study.trials:
            raise StoreError(f"study {self.name} has no trial {number} to measure")
        if measurements:
            run = self._study.trials[number]["restarts"]
            rows = [serialization.encode_measurement(m) for m in measurements]
            self._journal.append("measurements", {"trial": number, "run": run, "rows": rows})

    def write_event(
        self,
        kind: str,
        message: str,
        trial: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Write an event with the present time.

        Raises:
            StoreError: the disk is full, for instance.
            InputError: `data` is not JSON.
        """
        event = Event(time.time(), kind, message, trial, data or {})
        self._journal.append("event", serialization.encode_event(event))

    def sync(self) -> None:
        """Wait until everything written is on the disk.

        Raises:
            StoreError: the disk refuses.
        """
        self._journal.sync()

    def flush(self, *, wait_s: float = 0.0, now: bool = False) -> bool:
        """Bring the tables up to date, once a second at most, so that it may be called often.

        Args:
            wait_s: how long to try while another process has the tables.
            now: whenever it was done last.

        Returns:
            False where another process has the tables: nothing is lost, and a later flush, or
            the next writer of any study, brings them up to date.

        Raises:
            StoreError: the tables cannot be written, and waiting will not help.
        """
        if now or time.monotonic() >= self._due_at:
            self._kept_up = self._write(wait_s)
            self._due_at = time.monotonic() + _FLUSH_EVERY_S
        return self._kept_up

    def _write(self, wait_s: float) -> bool:
        if self._flushed == self._journal.end:
            return True
        self._journal.sync()  # or a power cut could leave the tables ahead of the journal
        try:
            with self._database.writing(wait_s=wait_s) as connection:
                self._write_tables(connection)
        except DatabaseBusyError as error:
            _log.debug("tables of %s not written: %s", self.name, error)
            return False
        self._flushed = self._journal.end
        return True

    def _write_tables(self, connection: DuckDBPyConnection) -> None:
        end = self._journal.end
        start = tables.read_position(connection, self._header, end)
        if start < end:
            path = self._journal.path
            with as_store_errors(path, "read"):  # it may be removed meanwhile
                if not journal.is_end_of_line(path, start):
                    start = 0
                lines = [line for line, _ in journal.read_lines(path, start, end)]
            tables.write_study(connection, self._header, self._study.trials, lines, start, end)

    def close(self) -> None:
        """Flush if that can be done at once, and release the study. May be called twice.

        Raises:
            StoreError: as `flush`; the study is released all the same.
        """
        if self._lock.held:
            try:
                self.flush(wait_s=_CLOSE_WAIT_S, now=True)
            finally:
                self._journal.close()
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
