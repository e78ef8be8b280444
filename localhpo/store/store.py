"""The store: all studies and their trials on disk; several processes may read at once.

A study is kept in two forms:

- **Its journal** (`journal`) is what happened: JSON lines that its running process appends to,
  kept for as long as the study. Whoever reads a study through `Store` reads its journal, so
  what they see is complete and current, and no lock can keep them from it.
- **`store.duckdb`** is the same as tables, for SQL. Each write of rows records, in the same
  transaction, how far into the journal they go; so it can fail, be killed, or be put off while
  a shell has the file, and the next one goes on from there. `Store.verify` proves that the
  two agree.

Only where the journal of a study is gone are the tables read instead; to go on with such a
study, its journal is written again from them.

Not supported: two machines sharing a home; a home on a file system without locks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from localhpo.errors import InputError, StoreError, StoreVersionError, StudyNotFoundError
from localhpo.store import conversion, journal, paths, tables
from localhpo.store.database import Database, DatabaseBusyError
from localhpo.store.errors import as_store_errors, name_damaged_file
from localhpo.store.journal import Header, JournalWriter
from localhpo.store.records import Event, StudyRecord
from localhpo.store.replay import ReplayedStudy, find_differences
from localhpo.store.study_lock import StudyLock, check_free, is_held
from localhpo.store.writer import StudyWriter
from localhpo.trial import Trial

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_log = logging.getLogger(__name__)

_READ_WAIT_S = 0.5
"""How long a reader waits for a writer of the tables, which has them for milliseconds."""

_VERIFY_WAIT_S = 10.0
"""How long `verify` waits, which cannot do without the tables."""

T = TypeVar("T")


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
            if self._journal(record.name).exists():
                raise exists
            journal.create(self._journal(record.name), record)
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

        One whose journal cannot be read is logged, and listed only if the tables have it. One
        whose folder is gone is missing while another process writes to the database.

        Raises:
            StoreVersionError: a newer LocalHPO has written one of them, or the database.
            StoreError: the home cannot be read.
        """
        records: dict[str, StudyRecord] = {}
        for name in self._names():
            try:
                records[name] = self._read_journal(name, journal.read_header).record
            except FileNotFoundError:
                pass  # it was removed just now
            except StoreVersionError:
                raise
            except StoreError as error:
                _log.warning("study %s cannot be read: %s", name, error)
        try:
            with self._database.reading(wait_s=_READ_WAIT_S) as connection:
                stored = tables.read_records(connection) if connection else []
            records = {**{record.name: record for record in stored}, **records}
        except DatabaseBusyError as error:
            _log.debug("studies without a journal are not listed: %s", error)
        return sorted(records.values(), key=lambda record: (record.created_at, record.name))

    def trials(self, name: str) -> list[Trial]:
        """Return the trials of a study by number, with their measurements.

        Raises:
            StudyNotFoundError: there is no such study.
            StoreError: it cannot be read.
        """
        with name_damaged_file(self._journal(name)):
            return self._read_study(name).decode_trials()

    def events(self, name: str) -> list[Event]:
        """Return the events of a study in the order of their arrival.

        Raises:
            StudyNotFoundError: there is no such study.
            StoreError: it cannot be read.
        """
        with name_damaged_file(self._journal(name)):
            return self._read_study(name).decode_events()

    def writer(self, name: str) -> StudyWriter:
        """Lock the study and return its writer; closing it or the end of this process unlocks it.

        What earlier runs could not bring into the tables is brought in as well.

        Raises:
            StudyNotFoundError: there is no such study.
            StudyLockedError: another process, or another writer of this one, runs it.
            StoreVersionError: a newer LocalHPO has written the database.
            StoreError: the home cannot be written.
        """
        self.study(name)
        with ExitStack() as undo:
            lock = self._lock(name)
            undo.callback(lock.release)
            if not self._journal(name).exists():
                self._restore(name)
            conversion.convert_old_journal(self.study_folder(name))
            self.flush()
            path = self._journal(name)
            journal_writer = JournalWriter(path)
            undo.callback(journal_writer.close)
            with name_damaged_file(path):
                writer = StudyWriter(lock, journal_writer, self._database)
            undo.pop_all()
        return writer

    def is_taken(self, name: str) -> bool:
        """Return whether a process has locked the study, to run it or write to it.

        Raises:
            StoreError: its lock cannot be read.
        """
        return is_held(self.study_folder(name) / paths.LOCK)

    def check_free(self, name: str) -> None:
        """Refuse a study that another process has locked.

        Raises:
            StudyLockedError: another process, or another writer of this one, runs it.
            StoreError: its lock cannot be read.
        """
        check_free(self.study_folder(name) / paths.LOCK, name)

    def flush(self, *, wait_s: float = 0.0) -> bool:
        """Bring the tables up to every journal; False where another process has them.

        A study whose journal cannot be read is left as it is in the tables, and logged.

        Raises:
            StoreError: the tables cannot be written, and waiting will not help.
        """
        try:
            with self._database.writing(wait_s=wait_s) as connection:
                for name in self._names():
                    self._update_tables(connection, name)
        except DatabaseBusyError as error:
            _log.debug("tables not written: %s", error)
            return False
        return True

    def verify(self) -> list[str]:
        """Return where the tables differ from the journals, as far as they go; [] is good.

        Every journal is read completely, whether it is in the tables or not.

        Raises:
            StoreError: a journal is damaged, or the tables cannot be read. Of several damaged
                ones, the first.
        """
        problems: list[str] = []
        damaged: list[StoreError] = []
        with self._database.reading(wait_s=_VERIFY_WAIT_S) as connection:
            at = tables.read_positions(connection) if connection else {}
            for name in self._names():
                try:
                    if connection and name in at:
                        problems += self._compare(connection, name, *at[name])
                    else:
                        self._read_study(name)
                except StoreError as error:
                    damaged.append(error)
        if damaged:
            raise damaged[0]
        return problems

    def _names(self) -> list[str]:
        """Return the names of all studies that have a journal."""
        studies = self.home / paths.STUDIES
        with as_store_errors(studies, "read"):
            try:
                list(studies.iterdir())  # `glob` says nothing of a folder that it may not read
            except FileNotFoundError:
                return []
            found = {
                path.parent.relative_to(studies).as_posix()
                for file in (paths.JOURNAL, paths.OLD_JOURNAL)
                for path in studies.glob(f"*/*/{file}")
            }
            return sorted(found)

    def _journal(self, name: str) -> Path:
        """Return the journal of a study; it need not exist."""
        return conversion.find_journal(self.study_folder(name))

    def _read_journal(self, name: str, read: Callable[[Path], T]) -> T:
        """Return what `read` returns of the journal of a study.

        Raises:
            FileNotFoundError: there is none.
            StoreError: it cannot be read, or is damaged.
        """
        try:
            return read(self._journal(name))
        except FileNotFoundError:  # perhaps a writer has replaced an old one by a new one just now
            return read(self._journal(name))

    def _lock(self, name: str) -> StudyLock:
        return StudyLock(self.study_folder(name) / paths.LOCK, name)

    def _find(self, name: str) -> StudyRecord | None:
        try:
            return self._read_journal(name, journal.read_header).record
        except FileNotFoundError:
            pass
        try:
            with self._database.reading(wait_s=_READ_WAIT_S) as connection:
                stored = tables.read_records(connection) if connection else []
            return next((record for record in stored if record.name == name), None)
        except DatabaseBusyError as error:
            if (self.study_folder(name) / paths.TRIALS).exists():
                raise  # its journal was moved away: a new study would replace its rows
            # A shell that has the database open must not keep a new study from starting.
            _log.debug("not looked for in the tables: %s", error)
            return None

    def _read_study(self, name: str) -> ReplayedStudy:
        try:
            return self._read_journal(name, _replay)[1]
        except FileNotFoundError:
            pass
        try:
            with self._database.reading(wait_s=_READ_WAIT_S) as connection:
                if connection is not None and name in tables.read_positions(connection):
                    with name_damaged_file(self._database.path):
                        return tables.read_study(connection, name)
        except DatabaseBusyError:
            if self.study_folder(name).exists():  # else it is a new study, which must not wait
                raise
        raise self._not_found(name)

    def _restore(self, name: str) -> None:
        """Write the journal of a study whose folder is gone, from the tables."""
        record, study = self.study(name), self._read_study(name)
        path = self.study_folder(name) / paths.JOURNAL
        with as_store_errors(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
        journal.create(path, record, study.to_lines())

    def _update_tables(self, connection: DuckDBPyConnection, name: str) -> None:
        """Bring the tables up to the journal of one study."""
        try:
            path = self._journal(name)
            header, size = journal.read_header(path), path.stat().st_size
            start = tables.read_position(connection, header, size)
            if start == size:
                return
            journal.sync(path)
            lines = list(journal.read_lines(path))
            with name_damaged_file(path):
                study = ReplayedStudy.from_lines(line for line, _ in lines)
        except (FileNotFoundError, StoreError) as error:
            _log.warning("study %s is not in the tables: %s", name, error)
            return
        if all(end_of_line != start for _, end_of_line in lines):
            start = 0  # a line was removed by hand
        new_lines = (line for line, end_of_line in lines if end_of_line > start)
        tables.write_study(connection, header, study.trials, new_lines, start, lines[-1][1])

    def _compare(
        self, connection: DuckDBPyConnection, name: str, journal_id: str, end: int
    ) -> list[str]:
        """Return where the tables differ from the journal up to a position in it."""
        header, expected = self._read_journal(name, lambda path: _replay(path, end))
        if header.journal_id != journal_id:
            return [f"{name}: the tables hold another study of that name"]
        try:
            found = tables.read_study(connection, name)
        except (ValueError, KeyError) as error:
            return [f"{name}: {error}"]
        differences = find_differences(tables.round_times(expected), found)
        return [f"{name}: {difference}" for difference in differences]

    def _not_found(self, name: str) -> StudyNotFoundError:
        return StudyNotFoundError(f"there is no study {name} in {self.home}")


def _replay(path: Path, end: float = math.inf) -> tuple[Header, ReplayedStudy]:
    """Return the study as it was when the journal had `end` bytes; all of it is checked."""
    header = journal.read_header(path)
    with name_damaged_file(path):
        lines = journal.read_lines(path)
        return header, ReplayedStudy.from_lines(line for line, at in lines if at <= end)
