"""Leases on a server: it runs as long as any process holds one.

A lease is a shared kernel lock on a file beside the server. The kernel releases the lock of a
process that ends, even after a crash. The server's supervisor polls for an exclusive lock: it gets
it when no process uses the server, keeps it, so that no process can start to, and ends the server.

The locks belong to the open file (OFD locks, https://man7.org/linux/man-pages/man2/F_OFD_SETLK.2const.html):
two leases of one process are independent. A forked process would keep a copy open, and with it the
server running: so it closes its copies at once.
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
"""File in the server's folder. It is never deleted: all processes must lock the same file."""

_FLOCK = "hhqqi0q"
"""struct flock of 64-bit Linux: type, whence, start, length (0: the whole file), pid."""

_held: weakref.WeakSet[Lease] = weakref.WeakSet()


class Lease:
    """The right to use the server of a folder; created by `take`."""

    def __init__(self, descriptor: int) -> None:
        """Take ownership of a locked file descriptor."""
        self._descriptor: int | None = descriptor
        _held.add(self)

    @classmethod
    def take(cls, folder: Path) -> Self | None:
        """Return a lease; None if the server is ending or another process has it exclusively."""
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o600)
        if _lock(descriptor, fcntl.F_RDLCK):
            return cls(descriptor)
        os.close(descriptor)
        return None

    @property
    def held(self) -> bool:
        """Whether it is open; in a forked process it is not."""
        return self._descriptor is not None

    @property
    def shared(self) -> bool:
        """Whether others hold a lease too, also after `release`; False once this is closed."""
        if self._descriptor is None:
            return False
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        conflict = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, wanted)
        return bool(struct.unpack(_FLOCK, conflict)[0] == fcntl.F_RDLCK)

    def make_exclusive(self) -> bool:
        """Exclude other leases until `make_shared`; return False, unchanged, if there are any."""
        return _lock(self._open, fcntl.F_WRLCK)

    def make_shared(self) -> None:
        """Undo `make_exclusive`."""
        _lock(self._open, fcntl.F_RDLCK)

    def release(self) -> None:
        """Stop using the server; the file stays open."""
        _lock(self._open, fcntl.F_UNLCK)

    def close(self) -> None:
        """Close the lease. May be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    @property
    def _open(self) -> int:
        if self._descriptor is None:
            raise ValueError("the lease is closed")
        return self._descriptor


def _lock(descriptor: int, kind: int) -> bool:
    """Change the lock atomically; return False, unchanged, if another lock conflicts."""
    with contextlib.suppress(BlockingIOError, PermissionError):  # EAGAIN or EACCES, says POSIX
        wanted = struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        return True
    return False


def _close_copies() -> None:
    for lease in list(_held):
        lease.close()


os.register_at_fork(after_in_child=_close_copies)
