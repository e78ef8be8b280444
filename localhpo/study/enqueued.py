"""Configurations that were enqueued while another process runs the study.

One file each, written under a hidden name and then renamed, so that the running study sees it
complete or not at all. A file is deleted at the next reading after the one that returned it, when
its trial is in the record: after a crash between the two it is returned again, and the study drops
it as a known configuration.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from localhpo.trial import Config


class EnqueuedConfigs:
    """The enqueued configurations of one study, in the order in which they came."""

    def __init__(self, study_folder: Path) -> None:
        self._folder = study_folder / "enqueued"
        self._searched = (study_folder / "inbox", self._folder)  # the first is that of 0.1.0
        self._read: list[Path] = []

    def put(self, config: Config) -> None:
        """Enqueue a configuration."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}.json"
        hidden = self._folder / f".{name}"
        with hidden.open("w", encoding="utf-8") as file:
            json.dump(dict(config), file)
            file.flush()
            os.fsync(file.fileno())
        hidden.rename(self._folder / name)

    def read(self) -> Sequence[Config]:
        """Return the configurations since the last call, and delete the files of that call."""
        for path in self._read:
            path.unlink(missing_ok=True)
        self._read = [path for folder in self._searched for path in sorted(folder.glob("*.json"))]
        return [json.loads(path.read_text(encoding="utf-8")) for path in self._read]
