"""Errors of the operating system, and damaged files, as errors of the store that say what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localhpo.errors import StoreError

FREE_SPACE = "free space on that disk, then run the same command again: the study continues"
ACCESS = "make it readable and writable to you, or set LOCALHPO_HOME to another folder"
_NO_FOLDER = (
    "put back what was removed, or set LOCALHPO_HOME to a folder that can be made and stays"
)
_A_FILE = "move away the file that stands there, or set LOCALHPO_HOME to another folder"

_HINTS = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EACCES: ACCESS,
    errno.EPERM: ACCESS,
    errno.EROFS: ACCESS,
    errno.ENOENT: _NO_FOLDER,
    errno.ENOTDIR: _A_FILE,
    errno.EEXIST: _A_FILE,
}


@contextmanager
def as_store_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an OSError within into a StoreError that names the path and what was being done.

    Raises:
        StoreError: an OSError was raised within.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"cannot {doing} {path}: {reason}", hint=_HINTS.get(error.errno or 0, "")
        ) from error


@contextmanager
def name_damaged_file(path: Path) -> Iterator[None]:
    """Turn errors from content that LocalHPO cannot have written into one that names the file.

    Raises:
        StoreError: such an error was raised within.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{path} is damaged: {type(error).__name__}: {error}",
            hint=f"keep the file, but rename it, for instance to {path.name}.damaged",
        ) from error
