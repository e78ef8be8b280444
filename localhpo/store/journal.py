r"""The journal: the file `journal.jsonl` that a running study appends to (format 2).

JSON lines. The first is the study itself; then, in the order of what happened, the fields of a
trial that changed, what a run of a trial reported, and events:

    {"study": {"format": 2, "written_by": "0.1.0", "id": ..., ...}, "crc32": "1a2b3c4d"}
    {"trial": {"number": 3, ...}, "crc32": ...}
    {"measurements": {"trial": 3, "run": 0, "rows": [[step, name, value, time]]}, "crc32": ...}
    {"event": {...}, "crc32": ...}

Each line ends in `,"crc32":"XXXXXXXX"}` and a line break: the CRC-32 (of zlib, 8 lower-case hex
digits) of all bytes of the line before that comma. The first line keeps this form in all later
formats, so that an older LocalHPO can say which version it needs.

A line counts once its line break is on the disk. What follows the last line break was cut short
by a kill or a full disk: readers ignore it, and the next writer cuts it off. Any other line whose
checksum is missing or wrong is damage, and an error. Lines are never changed or moved, so the
length of the file at one time names everything that was written by then.

Format 1 is that of LocalHPO 0.1.0: `spool.jsonl`, without checksums. Its lines are translated while
they are read, so that nobody else knows the old names; `conversion` replaces the file when its
study goes on.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from localhpo import __version__
from localhpo.errors import StoreError, StoreVersionError
from localhpo.store import paths, serialization
from localhpo.store.errors import as_store_errors
from localhpo.store.records import StudyRecord
from localhpo.trial import Origin

FORMAT = 2
"""Raised when an older LocalHPO could not read, or would misread, what a newer one writes."""

Line = tuple[str, Any]
"""Kind and body."""

_CHECKSUM = b',"crc32":"%08x"}'
_CHECKSUM_BYTES = len(_CHECKSUM % 0)

_HINT = (
    "keep the file, its other lines are intact; but rename it, for instance to {name}.damaged: the "
    "study is then read from store.duckdb, which has its trials up to the last write to the tables"
)


@dataclass(frozen=True, slots=True)
class Source:
    """The journal of format 1 from which a journal was converted."""

    id: str
    """Its `Header.journal_id`."""
    size: int
    """Bytes that it had, without a torn last line."""
    lines: int


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a journal."""

    record: StudyRecord
    journal_id: str
    """Distinguishes this file from journals of other studies of the same name."""
    converted_from: Source | None = None


def create(
    path: Path,
    record: StudyRecord,
    lines: Iterable[Line] = (),
    *,
    converted_from: Source | None = None,
) -> None:
    """Write a journal atomically.

    Raises:
        StoreError: it cannot be written.
    """
    study = {
        "format": FORMAT,
        "written_by": __version__,
        "id": uuid.uuid4().hex,
        "converted_from": None if converted_from is None else asdict(converted_from),
        **serialization.encode_study(record),
    }
    partial = path.with_name(path.name + ".new")
    with as_store_errors(path, "write"):
        try:
            with partial.open("wb") as file:
                file.writelines(_encode(kind, body) for kind, body in [("study", study), *lines])
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)


def read_header(path: Path) -> Header:
    """Read the first line.

    Raises:
        FileNotFoundError: there is no journal.
        StoreVersionError: written in a newer format.
        StoreError: it cannot be read, or is damaged.
    """
    with _open(path) as file, as_store_errors(path, "read"):
        line = file.readline()
    if not line.endswith(b"\n"):
        raise _damaged(path, 0, "its first line is cut short")
    kind, body = _decoder_of(path)(line[:-1], path, 0)
    if kind != "study":
        raise _damaged(path, 0, "its first line is not that of a study")
    if body.get("format", 0) > FORMAT:
        raise StoreVersionError(
            f"{path} has format {body['format']}, written by LocalHPO "
            f"{body.get('written_by', body.get('version'))}; "
            f"this LocalHPO ({__version__}) reads formats up to {FORMAT}"
        )
    try:
        del body["format"]
        body.pop("written_by", None)
        journal_id, source = body.pop("id"), body.pop("converted_from", None)
        return Header(
            StudyRecord(**body),
            journal_id,
            None if source is None else Source(**source),
        )
    except (KeyError, TypeError) as error:
        raise _damaged(path, 0, f"the line of the study has other fields: {error}") from error


def read_lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[tuple[Line, int]]:
    """Yield the complete lines between two offsets, each with the offset after it.

    Raises:
        FileNotFoundError: there is no journal.
        StoreError: it cannot be read, or is damaged.
    """
    with _open(path) as file, as_store_errors(path, "read"):
        file.seek(start)
        data = file.read(-1 if end is None else end - start)
    offset, decode = start, _decoder_of(path)
    *lines, unfinished = data.split(b"\n")
    for line in lines:
        end_of_line = offset + len(line) + 1
        yield decode(line, path, offset), end_of_line
        offset = end_of_line
    _check_torn_line(unfinished, path, offset)


def is_end_of_line(path: Path, offset: int) -> bool:
    """Return whether a line of a journal ends at an offset.

    Raises:
        FileNotFoundError: there is no journal.
        StoreError: it cannot be read.
    """
    with _open(path) as file, as_store_errors(path, "read"):
        return offset > 0 and os.pread(file.fileno(), 1, offset - 1) == b"\n"


def sync(path: Path) -> None:
    """Wait until all of a journal, which another process may be writing, is on disk.

    Raises:
        StoreError: the disk refuses.
    """
    with _open(path) as file, as_store_errors(path, "write"):
        os.fdatasync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names of the files in a folder are on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class JournalWriter:
    """Appends to a journal. One at a time (`StudyLock`); not for several threads."""

    def __init__(self, path: Path) -> None:
        """Open a journal that exists, and cut off what a kill left unfinished at its end.

        Raises:
            StoreError: it cannot be written.
        """
        self.path = path
        with as_store_errors(path, "append to"):
            data = path.read_bytes()
            self.end = data.rfind(b"\n") + 1
            _check_torn_line(data[self.end :], path, self.end)
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND)
            os.ftruncate(self._fd, self.end)
        self._synced = 0

    def append(self, kind: str, body: Mapping[str, Any]) -> Line:
        """Append one line and return it as a reader will see it.

        It survives the death of this process; `sync` makes it survive that of the machine.

        Raises:
            StoreError: the disk is full, for instance; the journal is as it was before.
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
        return kind, json.loads(line)[kind]

    def sync(self) -> None:
        """Wait until all lines are on disk. Blocks for milliseconds.

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
    content = serialization.dumps({kind: body})[:-1]
    return content + _CHECKSUM % zlib.crc32(content) + b"\n"


def _decoder_of(path: Path) -> Callable[[bytes, Path, int], Line]:
    """Return the function that decodes a line of a file, which begins at an offset.

    Raises (the function):
        StoreError: the line is damaged.
    """
    return _decode_old if path.name == paths.OLD_JOURNAL else _decode


def _decode(line: bytes, path: Path, start: int) -> Line:
    if not _has_checksum(line):
        raise _damaged(path, start, _describe_checksum(line))
    try:
        (kind, body), _checksum = json.loads(line.decode()).items()
    except (ValueError, AttributeError) as error:
        raise _damaged(path, start, str(error)) from error
    return kind, body


def _decode_old(line: bytes, path: Path, start: int) -> Line:
    try:
        [(kind, body)] = json.loads(line).items()
        return kind, _translate_trial(body) if kind == "trial" else body
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise _damaged(path, start, str(error)) from error


def _translate_trial(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a trial of format 1 as the present version writes them."""
    new = dict(changes)
    if "score" in new:
        score = new.pop("score")
        new["values"] = [] if score is None else [score]
    if "proposal" in new:
        origin = Origin.parse(new["proposal"]["origin"])
        new["proposal"] = {**new["proposal"], "origin": str(origin)}
    if "usage" in new:
        usage = dict(new["usage"])
        if "gpu_utilisation" in usage:
            usage["gpu_utilization"] = usage.pop("gpu_utilisation")
        new["usage"] = usage
    return new


def _check_torn_line(line: bytes, path: Path, start: int) -> None:
    """Refuse a complete last line whose line break was changed.

    Raises:
        StoreError: it is such a line.
    """
    if _has_checksum(line[:-1]):
        raise _damaged(path, start, f"expected a line break at its end, found {line[-1:]!r}")


def _has_checksum(line: bytes) -> bool:
    content, checksum = line[:-_CHECKSUM_BYTES], line[-_CHECKSUM_BYTES:]
    return checksum == _CHECKSUM % zlib.crc32(content)


def _describe_checksum(line: bytes) -> str:
    content, found = line[:-_CHECKSUM_BYTES], line[-_CHECKSUM_BYTES:]
    before, after = _CHECKSUM.split(b"%08x")
    if found.startswith(before) and found.endswith(after):
        stated = found[len(before) : -len(after)].decode(errors="replace")
        return f"expected the checksum {zlib.crc32(content):08x}, the line says {stated}"
    return f"it does not end in a checksum, but in {found.decode(errors='replace')!r}"


def _damaged(path: Path, start: int, reason: str) -> StoreError:
    with path.open("rb") as file:
        number = file.read(start).count(b"\n") + 1
    return StoreError(
        f"{path} is damaged at line {number} (byte {start}): {reason}",
        hint=_HINT.format(name=path.name),
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
