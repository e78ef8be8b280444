"""sha256 of files, remembered: a listing of models must not read tens of gigabytes each time.

A large file counts as unchanged while its path, size, inode and time of change are, as git's index
has it; `again` reads it whatever was remembered. Small files are remembered in this process only.
The memory is a cache: where it cannot be read or written, files are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from functools import lru_cache
from pathlib import Path

_LARGE = 2**26
"""Bytes from which reading a file takes longer than looking it up."""
_SETTLED_S = 2.0
"""A file that changed less than this ago may change again without a new time of change."""


def file_sha256(path: Path, *, again: bool = False) -> str:
    """Return the sha256 of a file, read now or remembered.

    Args:
        path: Of the file.
        again: Read it, whatever is remembered.
    """
    path = path.resolve()
    stat = path.stat()
    if again:
        _sha256.cache_clear()
    if stat.st_size < _LARGE:
        return _sha256(path, stat.st_size, stat.st_mtime_ns)
    key = f"{path}\n{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
    if not again and (known := _remembered().get(key)):
        return known
    digest = _sha256(path, stat.st_size, stat.st_mtime_ns)
    if time.time() - stat.st_mtime > _SETTLED_S:
        _remember(key, digest)
    return digest


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - part of the cache's key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _memory() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "localhpo" / "sha256.json"


def _remembered() -> dict[str, str]:
    try:
        known = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(key: str, digest: str) -> None:
    """Add a file, in place of what was known of its path; another process may do so too."""
    path = key.partition("\n")[0] + "\n"
    known = {k: v for k, v in _remembered().items() if not k.startswith(path)}
    memory = _memory()
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=memory.parent, delete=False
        ) as file:
            json.dump(known | {key: digest}, file)
        Path(file.name).replace(memory)
