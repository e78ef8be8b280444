"""A file of the values of real trainings, shared by Creators, seeds and processes.

JSON lines, one `{"key": ..., "score": ...}` per training, only appended to. An incomplete line,
which a kill may leave, is ignored. Two processes that train the same configuration at the same
time write the same line twice.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from localhpo.errors import StoreError


class Cache:
    """The values in one file, by key; NaN for a training that failed.

    Raises (in every method):
        StoreError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; it need not exist."""
        self._path = path
        self._known: dict[str, float] = {}
        self._read_bytes = 0

    def get(self, key: str) -> float | None:
        """Return a value that this process or another has stored; None where there is none."""
        if key not in self._known:
            self._read_new_lines()
        return self._known.get(key)

    def put(self, key: str, value: float) -> None:
        """Store a value."""
        self._known[key] = value
        line = json.dumps({"key": key, "score": value if math.isfinite(value) else None})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                # Starts with a line break, in case a kill left an incomplete line.
                os.write(fd, f"\n{line}\n".encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error

    def _read_new_lines(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                new = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error.strerror}") from error
        lines = new[: new.rfind(b"\n") + 1]
        self._read_bytes += len(lines)
        for line in lines.splitlines():
            try:
                row = json.loads(line)
                value = row["score"]
                self._known[row["key"]] = math.nan if value is None else float(value)
            except (ValueError, KeyError, TypeError):
                continue  # empty or incomplete
