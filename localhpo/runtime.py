"""Where the running studies and servers of one user meet on a machine, and who of them lives."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from localhpo.errors import LocalHPOError

HINT = "remove it, or set XDG_RUNTIME_DIR to a folder of your own"

_OF_USERS = Path("/run/user")
"""Where logins have their folders: a job of cron is of the same user, and has no variable."""


def folder() -> Path:
    """Return the folder of this user's ledger and servers; it need not exist."""
    name = f"localhpo-{os.getuid()}"
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base) / name
    own = _OF_USERS / str(os.getuid())
    is_ours = own.is_dir() and own.stat().st_uid == os.getuid()
    return (own if is_ours else Path(tempfile.gettempdir())) / name


def make_private(folder: Path) -> None:
    """Make a folder that nobody else can use; in /tmp anyone could have made it first.

    Raises:
        LocalHPOError: somebody did, or it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise unusable(folder, error) from error
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        must = "must be a folder that belongs to you alone (mode 0700)"
        raise LocalHPOError(f"{folder} {must}", hint=HINT)


def unusable(folder: Path, error: OSError) -> LocalHPOError:
    """Return the error on a folder that the machine does not let us use."""
    told = f"{folder}, where studies and servers of this machine meet, cannot be used: {error}"
    return LocalHPOError(told, hint=HINT)


def start_of(pid: int) -> int:
    """Return when a process began; 0 where it has ended.

    In ticks of the kernel since the machine did, which no change of the clock moves: an id may
    come again, and both together do not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # pid (name, which may hold anything) state ppid ... starttime: see proc_pid_stat(5)
    fields = stat[stat.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
