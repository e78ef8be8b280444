"""The folder where the running studies and servers of one user find each other."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from localhpo.errors import LocalHPOError

HINT = "remove it, or set XDG_RUNTIME_DIR to a folder of your own"

_OF_USERS = Path("/run/user")
"""Parent of XDG_RUNTIME_DIR: a cron job of the same user lacks the variable."""


def folder() -> Path:
    """Return the folder of this user's resource broker and servers; it need not exist."""
    name = f"localhpo-{os.getuid()}"
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base) / name
    own = _OF_USERS / str(os.getuid())
    is_ours = own.is_dir() and own.stat().st_uid == os.getuid()
    return (own if is_ours else Path(tempfile.gettempdir())) / name


def make_private(folder: Path) -> None:
    """Create a folder that only this user can use, or check that an existing one is so.

    In /tmp another user could have created it first.

    Raises:
        LocalHPOError: it belongs to another user, or cannot be created.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise unusable_folder_error(folder, error) from error
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        must = "must be a folder that belongs to you alone (mode 0700)"
        raise LocalHPOError(f"{folder} {must}", hint=HINT)


def unusable_folder_error(folder: Path, error: OSError) -> LocalHPOError:
    """Return the error for a folder that cannot be used."""
    message = f"{folder}, the folder of running studies and servers, cannot be used: {error}"
    return LocalHPOError(message, hint=HINT)


def process_start(pid: int) -> int:
    """Return when a process started, in kernel ticks since boot; 0 where it has ended.

    Process ids are reused; together with the start time they are unique, and a change of the
    clock does not alter it.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # pid (name, which may hold anything) state ppid ... starttime: see proc_pid_stat(5)
    fields = stat[stat.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
