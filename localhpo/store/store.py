"""The store: every study and its trials, on disk, whoever else is looking.

Two forms of the same thing, with one rule between them:

- **The spool of a study is what happened**: JSON lines that its running process appends to,
  kept for as long as the study. Whoever reads a study through `Store` reads its spool, so
  what they see is complete and current, and no lock can keep them from it.
- **`store.duckdb` is the same as tables**, for SQL. Each write of rows records, in the same
  transaction, how far into the spool they go; so it can fail, be killed, or be put off while
  a shell has the file, and the next one goes on from there. `Store.verify` proves that the
  two agree.

Only where the folder of a study is gone are the tables read instead; to go on with such a
study, its spool is written again from them.

What is not covered: two machines sharing a home; a home on a file system without locks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from localhpo.errors import InputError, StoreError, StoreVersionError, StudyNotFoundError
from localhpo.store import paths, spool, tables
from localhpo.store.database import Database, DatabaseBusyError
from localhpo.store.failures import as_store_errors
from localhpo.store.fold import Fold, differences
from localhpo.store.locking import StudyLock, check_free, is_held
from localhpo.store.records import Event, StudyRecord
from localhpo.store.spool import SpoolWriter
from localhpo.store.writer import Writer
from localhpo.trial import Trial

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_log = logging.getLogger(__name__)

_READ_WAIT_S = 0.5
"""How long a reader waits for a writer of the tables, which has them for milliseconds."""

_VERIFY_WAIT_S = 10.0
"""How long `verify` does, which has nothing else to go by."""


class Store:
    """The studies of one home. Nothing is made on disk until something is written."""

    def __init__(self, home: Path) -> None:
        """Name the folder; it need not exist."""
        self.home = Path(home).absolute()
        self._database = Database(self.home / paths.DATABASE)

    def study_folder(self, name: str) -> Path:
        """Return where a study keeps its files.

        Raises:
            InputError: `name` is not `<task>/<study>`.
        """
        return paths.study_folder(self.home, name)

    def trial_folder(self, name: str, number: int) -> Path:
        """Return where a trial keeps its files; it need not exist.

        Raises:
            InputError: `name` is not `<task>/<study>`.
        """
        return paths.trial_folder(self.home, name, number)

    def create_study(self, record: StudyRecord) -> None:
        """Add a study without trials.

        Raises:
            InputError: there is one of that name, or it is no name (`paths.study_name`), or
                the settings are not JSON.
            StoreVersionError: a newer LocalHPO has written the database.
            StoreError: the home cannot be written.
        """
        exists = InputError(
            f"there is a study {record.name} already",
            hint="continue it, or choose another name with --study NEW",
        )
        if self._find(record.name) is not None:
            raise exists
        lock = self._lock(record.name)
        try:
            if self._spool(record.name).exists():
                raise exists
            spool.create(self._spool(record.name), record)
        finally:
            lock.release()

    def study(self, name: str) -> StudyRecord:
        """Return the record of a study.

        Raises:
            StudyNotFoundError: there is none of that name.
            StoreError: it cannot be read.
        """
        record = self._find(name)
        if record is None:
            raise self._not_found(name)
        return record

    def studies(self) -> list[StudyRecord]:
        """Return all studies, the oldest first.

        One whose folder is gone is missing while another process writes to the database.

        Raises:
            StoreError: one of them cannot be read.
        """
        records = {name: spool.read_header(self._spool(name)).record for name in self._spooled()}
        try:
            with self._database.reading(wait_s=_READ_WAIT_S) as connection:
                stored = tables.read_records(connection) if connection else []
            records = {**{record.name: record for record in stored}, **records}
        except DatabaseBusyError as error:
            _log.debug("studies without a spool are not listed: %s", error)
        return sorted(records.values(), key=lambda record: (record.created_at, record.name))

    def trials(self, name: str) -> list[Trial]:
        """Return the trials of a study by number, with their measurements.

        Raises:
            StudyNotFoundError: there is no such study.
            StoreError: it cannot be read.
        """
        with _blaming(self._spool(name)):
            return self._content(name).decoded_trials()

    def events(self, name: str) -> list[Event]:
        """Return the events of a study in the order of their arrival.

        Raises:
            StudyNotFoundError: there is no such study.
            StoreError: it cannot be read.
        """
        with _blaming(self._spool(name)):
            return self._content(name).decoded_events()

    def writer(self, name: str) -> Writer:
        """Take the study: nobody else runs it until the writer is closed, or this process dies.

        What earlier runs could not bring into the tables is brought in as well.

        Raises:
            StudyNotFoundError: there is no such study.
            StudyLockedError: another process, or another writer of this one, runs it.
            StoreVersionError: a newer LocalHPO has written the database.
            StoreError: the home cannot be written.
        """
        self.study(name)
        path = self._spool(name)
        with ExitStack() as undo:
            lock = self._lock(name)
            undo.callback(lock.release)
            if not path.exists():
                self._restore(name)
            self.flush()
            appender = SpoolWriter(path)
            undo.callback(appender.close)
            with _blaming(path):
                writer = Writer(lock, appender, self._database)
            undo.pop_all()
        return writer

    def is_taken(self, name: str) -> bool:
        """Return whether a process has the study: runs it, or writes to it.

        Raises:
            StoreError: its lock cannot be read.
        """
        return is_held(self.study_folder(name) / paths.LOCK)

    def check_free(self, name: str) -> None:
        """Refuse a study that another process has, before anything is done for it.

        Raises:
            StudyLockedError: another process, or another writer of this one, runs it.
            StoreError: its lock cannot be read.
        """
        check_free(self.study_folder(name) / paths.LOCK, name)

    def flush(self, *, wait_s: float = 0.0) -> bool:
        """Bring the tables up to every spool; False where another process has them.

        A study whose spool cannot be read is left as it is in the tables, and logged.

        Raises:
            StoreError: the tables cannot be written, and waiting will not help.
        """
        try:
            with self._database.writing(wait_s=wait_s) as connection:
                for name in self._spooled():
                    self._bring_up(connection, name)
        except DatabaseBusyError as error:
            _log.debug("tables not written: %s", error)
            return False
        return True

    def verify(self) -> list[str]:
        """Return where the tables differ from the spools, as far as they go; [] is good.

        Raises:
            StoreError: one of the two cannot be read.
        """
        problems: list[str] = []
        with self._database.reading(wait_s=_VERIFY_WAIT_S) as connection:
            at = tables.positions(connection) if connection else {}
            for name in self._spooled():
                if connection and name in at:
                    problems += self._compare(connection, name, *at[name])
        return problems

    def rebuild(self) -> None:
        """Make the database anew from the spools; the old one stays beside it as `.old`.

        Raises:
            DatabaseBusyError: another process has it.
            StoreError: the home cannot be written.
        """
        try:
            with self._database.reading() as connection:
                at = tables.positions(connection) if connection else {}
            for name in set(at) - set(self._spooled()):
                self._restore(name)
        except (DatabaseBusyError, StoreVersionError):
            raise
        except StoreError as error:
            _log.warning("nothing can be saved from the old database: %s", error)
        self._database.close()
        self._database.move_away()
        self.flush()

    def _spooled(self) -> list[str]:
        """Return the names of all studies that have a spool."""
        studies = self.home / paths.STUDIES
        with as_store_errors(studies, "read"):
            try:
                list(studies.iterdir())  # `glob` says nothing of a folder that it may not read
            except FileNotFoundError:
                return []
            found = studies.glob(f"*/*/{paths.SPOOL}")
            return sorted(path.parent.relative_to(studies).as_posix() for path in found)

    def _spool(self, name: str) -> Path:
        return self.study_folder(name) / paths.SPOOL

    def _lock(self, name: str) -> StudyLock:
        return StudyLock(self.study_folder(name) / paths.LOCK, name)

    def _find(self, name: str) -> StudyRecord | None:
        try:
            return spool.read_header(self._spool(name)).record
        except FileNotFoundError:
            pass
        try:
            with self._database.reading(wait_s=_READ_WAIT_S) as connection:
                stored = tables.read_records(connection) if connection else []
            return next((record for record in stored if record.name == name), None)
        except DatabaseBusyError as error:
            # A shell that somebody left open must not keep a new study from starting.
            _log.debug("not looked for in the tables: %s", error)
            return None

    def _content(self, name: str) -> Fold:
        path = self._spool(name)
        try:
            return Fold.of(line for line, _ in spool.read_lines(path))
        except FileNotFoundError:
            pass
        try:
            with self._database.reading(wait_s=_READ_WAIT_S) as connection:
                if connection is not None and name in tables.positions(connection):
                    with _blaming(self._database.path):
                        return tables.read(connection, name)
        except DatabaseBusyError:
            if path.parent.exists():  # else it is a new study, which must not have to wait
                raise
        raise self._not_found(name)

    def _restore(self, name: str) -> None:
        """Write the spool of a study whose folder is gone, from the tables."""
        record, content, path = self.study(name), self._content(name), self._spool(name)
        with as_store_errors(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
        spool.create(path, record, content.lines())

    def _bring_up(self, connection: DuckDBPyConnection, name: str) -> None:
        path = self._spool(name)
        try:
            header, size = spool.read_header(path), path.stat().st_size
            start = tables.position(connection, header, size)
            if start == size:
                return
            spool.sync(path)
            lines = list(spool.read_lines(path))
            with _blaming(path):
                fold = Fold.of(line for line, _ in lines)
        except (FileNotFoundError, StoreError) as error:
            _log.warning("study %s is not in the tables: %s", name, error)
            return
        news = (line for line, end_of_line in lines if end_of_line > start)
        tables.write(connection, header, fold.trials, news, start, lines[-1][1])

    def _compare(
        self, connection: DuckDBPyConnection, name: str, spool_id: str, end: int
    ) -> list[str]:
        path = self._spool(name)
        if spool.read_header(path).spool_id != spool_id:
            return [f"{name}: the tables hold another study of that name"]
        with _blaming(path):
            fold = tables.as_read(Fold.of(line for line, _ in spool.read_lines(path, end=end)))
        try:
            stored = tables.read(connection, name)
        except (ValueError, KeyError) as error:
            return [f"{name}: {error}"]
        return [f"{name}: {problem}" for problem in differences(fold, stored)]

    def _not_found(self, name: str) -> StudyNotFoundError:
        return StudyNotFoundError(f"there is no study {name} in {self.home}")


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Name the file that holds what nobody can have written."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{path} is damaged: {type(error).__name__}: {error}",
            hint="put back a copy of it, or move it away",
        ) from error
