"""Files that are there only when they are whole, so that a step may take what exists as done."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, content: str | bytes) -> None:
    """Write a file in one move: a kill leaves the old one, or none, or the new one.

    Raises:
        OSError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as out:
        out.write(content.encode() if isinstance(content, str) else content)
        out.flush()
        os.fsync(out.fileno())  # a machine that stops must not leave an empty file of that name
    part.replace(path)
