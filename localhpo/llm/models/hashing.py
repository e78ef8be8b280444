"""Cached sha256 of files: a listing of models must not read tens of gigabytes each time.

A large file counts as unchanged while its path, size, inode and modification time are the same, as
in git's index; `again` reads it anyway. Small files are cached in this process only. Where the
cache cannot be read or written, files are read.
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
"""Size in bytes from which a file is cached on disk."""
_SETTLED_S = 2.0
"""A file that changed less than this ago may change again within the same modification time."""


def file_sha256(path: Path, *, again: bool = False) -> str:
    """Return the sha256 of a file, computed now or cached.

    Args:
        path: The file.
        again: Read the file even where its hash is cached.
    """
    path = path.resolve()
    stat = path.stat()
    if again:
        _sha256.cache_clear()
    if stat.st_size < _LARGE:
        return _sha256(path, stat.st_size, stat.st_mtime_ns)
    key = f"{path}\n{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
    if not again and (known := _read_cache().get(key)):
        return known
    digest = _sha256(path, stat.st_size, stat.st_mtime_ns)
    if time.time() - stat.st_mtime > _SETTLED_S:
        _cache(key, digest)
    return digest


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - part of the cache's key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "localhpo" / "sha256.json"


def _read_cache() -> dict[str, str]:
    try:
        known = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _cache(key: str, digest: str) -> None:
    """Store the hash of a file in place of the old one; another process may do so too."""
    path = key.partition("\n")[0] + "\n"
    known = {k: v for k, v in _read_cache().items() if not k.startswith(path)}
    file_path = _cache_file()
    with contextlib.suppress(OSError):
        file_path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=file_path.parent, delete=False
        ) as file:
            json.dump(known | {key: digest}, file)
        Path(file.name).replace(file_path)
