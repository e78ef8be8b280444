"""The running study's side of the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from localhpo.errors import StoreError
from localhpo.store import codec, spool, tables
from localhpo.store.database import Database, DatabaseBusyError
from localhpo.store.failures import as_store_errors
from localhpo.store.fold import Fold
from localhpo.store.locking import StudyLock
from localhpo.store.records import Event
from localhpo.store.spool import SpoolWriter
from localhpo.trial import Measurement, Trial

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_log = logging.getLogger(__name__)

_FLUSH_EVERY_S = 1.0
"""Closing a DuckDB file costs tens of milliseconds, however little was written."""
_CLOSE_WAIT_S = 0.2
"""How long the last flush waits for another study's flush, which takes milliseconds."""


class Writer:
    """Writes one study, and holds its lock. Made by `Store.writer`; not for several threads.

    What `trial` returned from is on the disk. Measurements and events survive a kill at once,
    and a power cut from the next `trial`, `sync` or `flush` on.
    """

    def __init__(self, lock: StudyLock, appender: SpoolWriter, database: Database) -> None:
        """Take over the lock and an open spool, which `close` gives up."""
        self._lock = lock
        self._spool = appender
        self._database = database
        self._header = spool.read_header(appender.path)
        self._fold = Fold.of(line for line, _ in spool.read_lines(appender.path))
        self._fold.rows.clear()  # only trials are needed from here on; rows may be many
        self._flushed = -1  # so much of the spool is in the tables; unknown as yet
        self._kept_up = True
        self._due_at = time.monotonic()

    @property
    def name(self) -> str:
        """Name of the study."""
        return self._header.record.name

    def trial(self, trial: Trial) -> None:
        """Write the trial as it is now, without its measurements. Blocks until it is on disk.

        Raises:
            StoreError: the disk is full, for instance.
            InputError: an attribute, or the state of an engine, is not JSON.
        """
        known = self._fold.trials.get(trial.number, {})
        changes = {
            name: value
            for name, value in codec.encode_trial(trial).items()
            if name == "number" or name not in known or known[name] != value
        }
        self._fold.add(*self._spool.append("trial", changes))
        self._spool.sync()

    def measurements(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Add what the present run of a trial reported.

        Raises:
            StoreError: no such trial was written, or the disk is full.
        """
        if number not in self._fold.trials:
            raise StoreError(f"study {self.name} has no trial {number} to measure")
        if measurements:
            run = self._fold.trials[number]["restarts"]
            rows = [codec.encode_measurement(m) for m in measurements]
            self._spool.append("measurements", {"trial": number, "run": run, "rows": rows})

    def event(
        self,
        kind: str,
        message: str,
        trial: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Write down that something happened, now.

        Raises:
            StoreError: the disk is full, for instance.
            InputError: `data` is not JSON.
        """
        event = Event(time.time(), kind, message, trial, data or {})
        self._spool.append("event", codec.encode_event(event))

    def sync(self) -> None:
        """Wait until everything written is on the disk.

        Raises:
            StoreError: the disk refuses.
        """
        self._spool.sync()

    def flush(self, *, wait_s: float = 0.0, now: bool = False) -> bool:
        """Bring the tables up to date, once a second at most, so that it may be called often.

        Args:
            wait_s: how long to try while another process has the tables.
            now: not to heed when it was done last.

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
        if self._flushed == self._spool.end:
            return True
        self._spool.sync()  # or a power cut could leave the tables ahead of the spool
        try:
            with self._database.writing(wait_s=wait_s) as connection:
                self._write_tables(connection)
        except DatabaseBusyError as error:
            _log.debug("tables of %s not written: %s", self.name, error)
            return False
        self._flushed = self._spool.end
        return True

    def _write_tables(self, connection: DuckDBPyConnection) -> None:
        end = self._spool.end
        start = tables.position(connection, self._header, end)
        if start < end:
            with as_store_errors(self._spool.path, "read"):  # somebody may remove it
                lines = [line for line, _ in spool.read_lines(self._spool.path, start, end)]
            tables.write(connection, self._header, self._fold.trials, lines, start, end)

    def close(self) -> None:
        """Flush if that can be done at once, and give the study free. May be called twice.

        Raises:
            StoreError: as `flush`; the study is given free all the same.
        """
        if self._lock.held:
            try:
                self.flush(wait_s=_CLOSE_WAIT_S, now=True)
            finally:
                self._spool.close()
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
