"""Scores of real trainings on disk, so that Creators, seeds and processes share them.

JSON lines, one `{"key": ..., "score": ...}` per training, only ever appended to: a line that
a kill cut short is dropped, and two processes that train the same configuration at the same
time write the same line twice.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from localhpo.errors import StoreError


class Cache:
    """The scores in one file, by key; NaN for a training that failed.

    Raises (in every method):
        StoreError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; it need not exist."""
        self._path = path
        self._known: dict[str, float] = {}
        self._read_bytes = 0

    def get(self, key: str) -> float | None:
        """Return a score that this process or another has put there."""
        if key not in self._known:
            self._read_news()
        return self._known.get(key)

    def put(self, key: str, score: float) -> None:
        """Keep a score."""
        self._known[key] = score
        line = json.dumps({"key": key, "score": score if math.isfinite(score) else None})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                # A line break before as well as after: what a kill cut short stays alone.
                os.write(fd, f"\n{line}\n".encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error

    def _read_news(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                news = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error.strerror}") from error
        whole = news[: news.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            try:
                row = json.loads(line)
                score = row["score"]
                self._known[row["key"]] = math.nan if score is None else float(score)
            except (ValueError, KeyError, TypeError):
                continue  # empty, or cut short
