"""The lock of a study: one process runs it, and the kernel releases it when that process dies.

The lock is `flock` on a file that stays; what the file says (pid, host, since when) is for
the message alone. A child made by `exec` does not inherit it (Python opens files with
O_CLOEXEC); one made by a bare `fork` would keep the study locked after its parent's death,
so its copy of the descriptor is closed in it. Not supported: file systems where `flock` does
nothing (some network mounts).
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from localhpo.errors import StudyLockedError
from localhpo.store import serialization
from localhpo.store.errors import as_store_errors

_held: weakref.WeakSet[StudyLock] = weakref.WeakSet()

_TRIES, _PAUSE_S = 5, 0.01
"""Tries to take a lock, and the pause between two: `is_held` may have it for a moment."""


class StudyLock:
    """The right to run a study, held from construction to `release`."""

    def __init__(self, path: Path, name: str) -> None:
        """Take the lock of the study `name`.

        Raises:
            StudyLockedError: another process, or another writer of this one, holds it.
            StoreError: the file cannot be made.
        """
        with as_store_errors(path, "lock"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _take(self._fd, name)
            except BaseException:
                self.release()
                raise
        _held.add(self)
        _watch_forks()

    @property
    def held(self) -> bool:
        """Whether the lock is held."""
        return self._fd >= 0

    def release(self) -> None:
        """Release the study. May be called twice."""
        if self.held:
            os.close(self._fd)
            self._fd = -1


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock of that file."""
    with _opened(path) as fd:
        return fd is not None and not _try_lock(fd, fcntl.LOCK_SH)


def check_free(path: Path, name: str) -> None:
    """Refuse a study that a process runs; the lock is not taken.

    Raises:
        StudyLockedError: another process, or another writer of this one, holds its lock.
        StoreError: the file cannot be read.
    """
    with _opened(path) as fd:
        if fd is not None:
            _wait(fd, fcntl.LOCK_SH, name)


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """Open the file of a lock to look at it; None where there is none."""
    with as_store_errors(path, "read"):
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            yield None
            return
        try:
            yield fd
        finally:
            os.close(fd)


def _take(fd: int, name: str) -> None:
    _wait(fd, fcntl.LOCK_EX, name)
    holder = {"pid": os.getpid(), "host": os.uname().nodename, "since": time.time()}
    os.ftruncate(fd, 0)
    os.pwrite(fd, serialization.dumps(holder), 0)


def _wait(fd: int, kind: int, name: str) -> None:
    for attempt in range(_TRIES):
        if _try_lock(fd, kind):
            return
        if attempt < _TRIES - 1:
            time.sleep(_PAUSE_S)
    raise StudyLockedError(f"study {name} is being run by {_read_holder(fd)}")


def _try_lock(fd: int, kind: int) -> bool:
    """Lock a file unless another process has locked it; return whether it did."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@functools.cache  # once a process: a handler cannot be taken back
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_release_all)


def _release_all() -> None:
    # Closing a copy leaves the lock with the parent, whose descriptor is still open.
    for lock in _held:
        lock.release()


def _read_holder(fd: int) -> str:
    try:
        holder = json.loads(os.pread(fd, 4096, 0))
        since = datetime.fromtimestamp(holder["since"], UTC)
        return f"process {holder['pid']} on {holder['host']} (since {since:%Y-%m-%d %H:%M:%S} UTC)"
    except (ValueError, KeyError, TypeError):  # it has the lock, and is about to write this
        return "another process"
