"""The spool: the file that a running study appends to.

JSON lines, each `{"<kind>": {...}}`. The first is the study itself (kind `study`) with the
number of this format and an id of the file; then, in the order of what happened:

    {"trial": {"number": 3, ...}}            the fields of a trial that changed
    {"measurements": {"trial": 3, "run": 0, "rows": [[step, name, value, time], ...]}}
    {"event": {...}}

A line is in once its line break is. What follows the last line break was cut short by a
kill or a full disk: readers drop it, and the next writer cuts it off. A line break in the
file is never moved, so the length at one time names all that had been said by then.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from localhpo.errors import StoreError, StoreVersionError
from localhpo.store import codec
from localhpo.store.failures import as_store_errors
from localhpo.store.records import StudyRecord

FORMAT = 1
"""Raised when an older LocalHPO could not read, or would misread, what a newer one writes."""

Line = tuple[str, Any]
"""Kind and body."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a spool."""

    record: StudyRecord
    spool_id: str
    """Tells this file from another spool of a study of the same name."""


def create(path: Path, record: StudyRecord, lines: Iterable[Line] = ()) -> None:
    """Write a spool in one step: it is there complete, or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    head = {"format": FORMAT, "id": uuid.uuid4().hex, **codec.encode_study(record)}
    draft = path.with_name(path.name + ".new")
    with as_store_errors(path, "write"):
        try:
            with draft.open("wb") as file:
                file.writelines(_encode(kind, body) for kind, body in [("study", head), *lines])
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(path.parent)


def read_header(path: Path) -> Header:
    """Read the first line.

    Raises:
        FileNotFoundError: there is no spool.
        StoreVersionError: written in a newer format.
        StoreError: it cannot be read, or is damaged.
    """
    with _open(path) as file, as_store_errors(path, "read"):
        line = file.readline()
    kind, body = _decode(line, path, start=0)
    if kind != "study" or not line.endswith(b"\n"):
        raise _damaged(path, 0, "the first line is not that of a study")
    if body.get("format", 0) > FORMAT:
        raise StoreVersionError(
            f"{path} has format {body['format']}, written by LocalHPO {body.get('version')}; "
            f"this LocalHPO reads formats up to {FORMAT}"
        )
    try:
        del body["format"]
        spool_id = body.pop("id")
        return Header(codec.decode_study(body), spool_id)
    except (KeyError, TypeError) as error:
        raise _damaged(path, 0, str(error)) from error


def read_lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[tuple[Line, int]]:
    """Yield the complete lines between two offsets, each with the offset after it.

    Raises:
        FileNotFoundError: there is no spool.
        StoreError: it cannot be read, or is damaged.
    """
    with _open(path) as file, as_store_errors(path, "read"):
        file.seek(start)
        data = file.read(-1 if end is None else end - start)
    offset = start
    *lines, _unfinished = data.split(b"\n")
    for line in lines:
        end_of_line = offset + len(line) + 1
        yield _decode(line, path, offset), end_of_line
        offset = end_of_line


def sync(path: Path) -> None:
    """Wait until the disk has all of a spool that another process may be writing.

    Raises:
        StoreError: the disk refuses.
    """
    with _open(path) as file, as_store_errors(path, "write"):
        os.fdatasync(file.fileno())


class SpoolWriter:
    """Appends to a spool. One at a time (`StudyLock`); not for several threads."""

    def __init__(self, path: Path) -> None:
        """Open a spool that exists, and cut off what a kill left unfinished at its end.

        Raises:
            StoreError: it cannot be written.
        """
        self.path = path
        with as_store_errors(path, "append to"):
            self.end = path.read_bytes().rfind(b"\n") + 1
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND)
            os.ftruncate(self._fd, self.end)
        self._synced = 0

    def append(self, kind: str, body: Mapping[str, Any]) -> Line:
        """Append one line and return it as a reader will see it.

        It survives the death of this process; `sync` makes it survive that of the machine.

        Raises:
            StoreError: the disk is full, for instance; the spool is as it was before.
            InputError: the body is not JSON.
        """
        line = _encode(kind, body)
        with as_store_errors(self.path, "append to"):
            try:
                _write_all(self._fd, line)
            except OSError:
                os.ftruncate(self._fd, self.end)
                raise
        self.end += len(line)
        return _decode(line, self.path, self.end - len(line))

    def sync(self) -> None:
        """Wait until the disk has everything. Blocks for milliseconds.

        Raises:
            StoreError: the disk refuses.
        """
        if self._synced != self.end:
            with as_store_errors(self.path, "write"):
                os.fdatasync(self._fd)
            self._synced = self.end

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _encode(kind: str, body: Mapping[str, Any]) -> bytes:
    return codec.dumps({kind: body}) + b"\n"


def _decode(line: bytes, path: Path, start: int) -> Line:
    try:
        [(kind, body)] = codec.loads(line).items()
    except (ValueError, AttributeError) as error:
        raise _damaged(path, start, str(error)) from error
    return kind, body


def _damaged(path: Path, start: int, reason: str) -> StoreError:
    return StoreError(
        f"{path} is damaged at byte {start}: {reason}",
        hint="delete that line, or move the folder of the study away",
    )


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise
    except OSError:
        with as_store_errors(path, "read"):
            raise


def _write_all(fd: int, data: bytes) -> None:
    while data:  # on a full disk the first write may be short, and only the next one fails
        data = data[os.write(fd, data) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
