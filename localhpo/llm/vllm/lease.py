"""Who uses a server: it runs for as long as anybody holds a lease.

A lease is a lock of the kernel on one file beside the server. Those who use it share that lock,
and the kernel drops the part of a process that has ended, however sudden the end. The server's
supervisor tries again and again to lock the file for itself alone: it can once nobody uses the
server, keeps the lock, so that nobody comes any more, and ends the server.

The locks are of the open file (OFD locks, https://man7.org/linux/man-pages/man2/F_OFD_SETLK.2const.html):
two leases of one process are two, and to close one leaves the other. A process forked from this
one would keep a copy open, and the server alive: it closes its copies at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import weakref
from pathlib import Path
from typing import Self

FILE = "users"
"""In the server's folder. It stays there: who opens it must find the one that others have."""

_FLOCK = "hhqqi0q"
"""struct flock of 64-bit Linux: type, whence, start, length (0: all), and the owner's id."""

_held: weakref.WeakSet[Lease] = weakref.WeakSet()


class Lease:
    """The right to use the server of one folder; made by `take`."""

    def __init__(self, descriptor: int) -> None:
        """Take over an open file that is locked."""
        self._descriptor: int | None = descriptor
        _held.add(self)

    @classmethod
    def take(cls, folder: Path) -> Self | None:
        """Return a lease; None where the server ends, or another keeps it to itself."""
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o600)
        if _lock(descriptor, fcntl.F_RDLCK):
            return cls(descriptor)
        os.close(descriptor)
        return None

    @property
    def held(self) -> bool:
        """Whether it was not closed: in a process forked from the holder's it was."""
        return self._descriptor is not None

    @property
    def shared(self) -> bool:
        """Whether others hold one too; it may be released, and closed it is nobody's."""
        if self._descriptor is None:
            return False
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        in_the_way = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, wanted)
        return bool(struct.unpack(_FLOCK, in_the_way)[0] == fcntl.F_RDLCK)

    def make_exclusive(self) -> bool:
        """Let nobody else have one until `make_shared`; False, and no change, where somebody has."""
        return _lock(self._open, fcntl.F_WRLCK)

    def make_shared(self) -> None:
        """Undo `make_exclusive`."""
        _lock(self._open, fcntl.F_RDLCK)

    def release(self) -> None:
        """Use the server no more."""
        _lock(self._open, fcntl.F_UNLCK)

    def close(self) -> None:
        """Release it for good. May be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    @property
    def _open(self) -> int:
        if self._descriptor is None:
            raise ValueError("the lease is closed")
        return self._descriptor


def _lock(descriptor: int, kind: int) -> bool:
    """Change a lock in one step; False, and no change, where others are in the way."""
    with contextlib.suppress(BlockingIOError, PermissionError):  # EAGAIN or EACCES, says POSIX
        wanted = struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        return True
    return False


def _let_go_of_copies() -> None:
    for lease in list(_held):
        lease.close()


os.register_at_fork(after_in_child=_let_go_of_copies)
