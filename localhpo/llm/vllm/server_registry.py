"""Which servers run on this machine, so that a second study finds the first one's.

    $XDG_RUNTIME_DIR/localhpo-<uid>/    or elsewhere, see `localhpo.runtime`
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
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from localhpo import runtime
from localhpo.errors import BackendError, LocalHPOError

SLOTS = 4
"""For one fingerprint: a server that cannot be adopted does not keep a study from its own."""

_RECORD = "server.json"


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """A server that answers."""

    pid: int
    """The process below which all of it hangs."""
    started: int
    """When that began, as `runtime.start_of` says it."""
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
        return self.started > 0 and runtime.start_of(self.pid) == self.started


class ServerSlot:
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

    def read(self) -> ServerRecord | None:
        """Return the server that runs here; None where none does, or none is ready yet."""
        record = self._noted()
        return record if record and record.alive else None

    def write(self, record: ServerRecord) -> None:
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

    def forget(self, record: ServerRecord) -> None:
        """Forget a server that has ended; one that has taken its place since stays noted."""
        if self._noted() == record:
            self.clear()

    def _noted(self) -> ServerRecord | None:
        try:
            return ServerRecord(**json.loads((self.folder / _RECORD).read_text()))
        except (OSError, ValueError, TypeError):
            return None


def slots(fingerprint: str, place: Path | None = None) -> Iterator[ServerSlot]:
    """Yield the places for servers of one fingerprint, in the order in which they are tried.

    Raises:
        BackendError: `place` is somebody else's, or cannot be made.
    """
    place = runtime.folder() if place is None else place
    try:
        runtime.make_private(place)
    except LocalHPOError as error:
        raise BackendError(str(error), hint=error.hint) from error
    for k in range(SLOTS):
        yield ServerSlot(place / f"{fingerprint}-{k}")
