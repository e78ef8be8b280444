"""Atomic writes: a file exists only when it is complete, so a step can skip files that exist."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically: a kill leaves the old file, no file, or the new one.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.temporary")
    with temporary.open("wb") as out:
        out.write(content.encode() if isinstance(content, str) else content)
        out.flush()
        os.fsync(out.fileno())  # a power loss must not leave an empty file
    temporary.replace(path)
