"""Short sessions with `store.duckdb`: opens and closes it, and retries while it is in use.

DuckDB lets one process write, or many read. So LocalHPO does not keep the file open: a session
lasts milliseconds. A DuckDB instance in memory stays for the life of a `Database`, and the
file is attached to it for the session, which saves what a new instance costs each time
(measured: attach and detach 6 ms, open and close 25 ms).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from localhpo import __version__
from localhpo.errors import StoreError
from localhpo.store import schema
from localhpo.store.errors import ACCESS, FREE_SPACE, as_store_errors

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_RETRY_S = 0.02
_TAKEN = ("Could not set lock on file", "already attached", "Unique file handle conflict")
"""What DuckDB says when another process, or another part of this one, has the file."""
_INCOMPLETE = ("not a valid DuckDB database file",)
"""What it says of a file whose first block another process is still writing, or which is damaged:
which of the two shows after `_MAKING_S`."""
_MAKING_S = 0.5
_CTRL_C = "Query interrupted"
"""What DuckDB makes of a KeyboardInterrupt, which it swallows."""
_HINTS: dict[tuple[str, ...], str] = {
    ("No space left", "disk full"): FREE_SPACE,
    ("Permission denied", "Read-only file system"): ACCESS,
}
_REMADE = "it is made again from the journals of the studies when the next one runs"


class DatabaseBusyError(StoreError):
    """Another process has the database open."""

    default_hint = "close the DuckDB shell or program that has it open, or wait for it"


class Database:
    """A DuckDB file. Not for several threads."""

    def __init__(
        self,
        path: Path,
        migrations: schema.Migrations | None = None,
        *,
        without_it: str = _REMADE,
    ) -> None:
        """Name the file; nothing is opened yet.

        Args:
            path: of the file.
            migrations: which make its tables; those of the studies by default.
            without_it: what becomes of its content when the file is moved away.
        """
        self.path = path
        self._given_migrations = migrations
        self._without_it = without_it
        self._connection: DuckDBPyConnection | None = None

    @contextmanager
    def writing(self, *, wait_s: float = 0.0) -> Iterator[DuckDBPyConnection]:
        """Open the file for one transaction, made and migrated as needed.

        Raises:
            DatabaseBusyError: another has it, for longer than `wait_s`.
            StoreVersionError: a newer LocalHPO has written it; it is left untouched.
            StoreError: it cannot be written.
        """
        with as_store_errors(self.path, "write"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._is_empty():
                self.path.unlink()  # a full disk kept DuckDB from its first block; it would refuse
        with self._session("", wait_s) as connection:
            schema.migrate(connection, __version__, self._migrations)
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def reading(self, *, wait_s: float = 0.0) -> Iterator[DuckDBPyConnection | None]:
        """Open the file for reading; None where there is no file, or nothing in it yet.

        Tables of an older LocalHPO are read as a migrated copy in memory; the file stays as it is.

        Raises:
            DatabaseBusyError: another process writes it, for longer than `wait_s`.
            StoreVersionError: a newer LocalHPO has written it.
            StoreError: it cannot be read.
        """
        if not self.path.exists() or self._is_empty():
            yield None
            return
        with self._session("(READ_ONLY)", wait_s) as connection:
            version = schema.version_of(connection, self._migrations)
            if 0 < version < len(self._migrations):
                connection.execute("ATTACH ':memory:' AS migrated")
                connection.execute("COPY FROM DATABASE store TO migrated; USE migrated")
                schema.migrate(connection, __version__, self._migrations)
            yield connection if version else None

    def close(self) -> None:
        """Free the memory it holds. May be called twice, and the object used again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _migrations(self) -> schema.Migrations:
        given = self._given_migrations
        return schema.MIGRATIONS if given is None else given

    def _is_empty(self) -> bool:
        return self.path.exists() and self.path.stat().st_size == 0

    @contextmanager
    def _session(self, options: str, wait_s: float) -> Iterator[DuckDBPyConnection]:
        import duckdb

        try:
            connection = self._attached(options, wait_s)
            try:
                yield connection
                connection.execute("USE memory; DETACH store; DETACH DATABASE IF EXISTS migrated")
            except BaseException:
                # Dropping the whole instance releases the file whatever state it is in; what
                # was not committed is gone.
                self.close()
                raise
        except duckdb.Error as error:
            raise self._as_store_error(error) from error
        except RuntimeError as error:
            if str(error) == _CTRL_C:
                raise KeyboardInterrupt from error
            raise

    def _attached(self, options: str, wait_s: float) -> DuckDBPyConnection:
        import duckdb

        self._connection = self._connection or _instance()
        quoted = str(self.path).replace("'", "''")
        began = time.monotonic()
        while True:
            try:
                self._connection.execute(f"ATTACH '{quoted}' AS store {options}; USE store")
            except duckdb.Error as error:
                limit_s = wait_s if _says(error, _TAKEN) else _MAKING_S
                known = _says(error, _TAKEN + _INCOMPLETE)
                if not known or time.monotonic() >= began + limit_s:
                    raise
                time.sleep(_RETRY_S)
            else:
                return self._connection

    def _as_store_error(self, error: Exception) -> StoreError:
        lines = str(error).splitlines()
        if _says(error, _TAKEN):
            return DatabaseBusyError(f"{self.path} is in use: {lines[0]}")
        known = {**_HINTS, ("",): f"if it is damaged, move it away: {self._without_it}"}
        phrases, hint = next(each for each in known.items() if _says(error, each[0]))
        # DuckDB says what it was doing first, and why that failed further down.
        reason = next(line for line in lines if any(phrase in line for phrase in phrases))
        return StoreError(f"cannot use {self.path}: {reason}", hint=hint)


def _instance() -> DuckDBPyConnection:
    import duckdb

    # One thread: trials have the others. No spilling into the working directory, and nothing
    # fetched from the network: what we use is built in.
    return duckdb.connect(
        config={"threads": 1, "temp_directory": "", "autoinstall_known_extensions": False}
    )


def _says(error: Exception, phrases: tuple[str, ...]) -> bool:
    return any(phrase in str(error) for phrase in phrases)
