"""Configurations handed to a study that is being run.

One file each, written aside and renamed, so that the running study sees it whole or not at
all. A letter stays until the next look, by which time its trial is in the record: a crash
between the two shows the configuration again, and it is then known and dropped.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from localhpo.trial import Config


class Inbox:
    """The letters in a folder, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: list[Path] = []

    def put(self, config: Config) -> None:
        """Leave a configuration to run next."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}.json"
        aside = self._folder / f".{name}"
        with aside.open("w", encoding="utf-8") as file:
            json.dump(dict(config), file)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self._folder / name)

    def look(self) -> Sequence[Config]:
        """Return what came since the last look, and throw away what came before it."""
        for path in self._read:
            path.unlink(missing_ok=True)
        self._read = sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []
        return [json.loads(path.read_text(encoding="utf-8")) for path in self._read]
