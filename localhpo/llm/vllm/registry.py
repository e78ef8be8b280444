"""Which servers run on this machine, so that a second study finds the first one's.

    $XDG_RUNTIME_DIR/localhpo-<uid>/    below the system's folder for temporary files by default
        <fingerprint>-<k>/              of a model and the settings that it is served with
            lock                        held by the server's supervisor, for as long as it runs
            users                       held by all who use it, see `localhpo.llm.vllm.lease`
            server.json                 pid, port, key, model: there once it answers
            server.log

All of it can be read by its owner alone. What server.json says is believed when the server
proves it, see `localhpo.llm.vllm.server`.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from localhpo.errors import BackendError

SLOTS = 4
"""For one fingerprint: a server that cannot be adopted does not keep a study from its own."""

_RECORD = "server.json"


@dataclass(frozen=True, slots=True)
class Record:
    """A server that answers."""

    pid: int
    """The process below which all of it hangs."""
    started: int
    """When that began, in ticks of the kernel since the machine did: an id may come again."""
    port: int
    """On 127.0.0.1."""
    key: str
    name: str
    """What it calls its model; the model's digest is part of it."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.started > 0 and start_of(self.pid) == self.started


def start_of(pid: int) -> int:
    """Return when a process began, as in `Record.started`; 0 where it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # pid (name, which may hold anything) state ppid ... starttime: see proc_pid_stat(5)
    fields = stat[stat.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


class Slot:
    """A place for one server."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, where there is none.

        Raises:
            BackendError: it cannot be made.
        """
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise BackendError(f"the folder of the model's server cannot be made: {exc}") from exc

    def take(self) -> int | None:
        """Take the place; return the descriptor that holds it, or None where a server has it.

        The place is free again when every copy of the descriptor is closed. Whatever else lies
        there is then of a server that has ended.
        """
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def read(self) -> Record | None:
        """Return the server that runs here; None where none does, or none is ready yet."""
        record = self._noted()
        return record if record and record.alive else None

    def write(self, record: Record) -> None:
        """Say that a server answers. The file is never there in part."""
        draft = self.folder / "server.draft"
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(record), file)
        draft.replace(self.folder / _RECORD)

    def clear(self) -> None:
        """Forget the server that was here; for who holds the place."""
        (self.folder / _RECORD).unlink(missing_ok=True)

    def forget(self, record: Record) -> None:
        """Forget a server that has ended; one that has taken its place since stays noted."""
        if self._noted() == record:
            self.clear()

    def _noted(self) -> Record | None:
        try:
            return Record(**json.loads((self.folder / _RECORD).read_text()))
        except (OSError, ValueError, TypeError):
            return None


def slots(fingerprint: str, place: Path | None = None) -> Iterator[Slot]:
    """Yield the places for servers of one fingerprint, in the order in which they are tried.

    Raises:
        BackendError: `place` is somebody else's.
    """
    place = runtime_folder() if place is None else place
    _make_private(place)
    for k in range(SLOTS):
        yield Slot(place / f"{fingerprint}-{k}")


def runtime_folder() -> Path:
    """Return where this user's running servers are noted."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"localhpo-{os.getuid()}"


def _make_private(folder: Path) -> None:
    """Make a folder that nobody else can write; in /tmp anyone could have made it first.

    Raises:
        BackendError: somebody did, or it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as exc:
        raise BackendError(f"the folder of the model's server cannot be made: {exc}") from exc
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BackendError(
            f"{folder} must be a folder that belongs to you alone (mode 0700)",
            hint="remove it, or set XDG_RUNTIME_DIR to a folder of your own",
        )
