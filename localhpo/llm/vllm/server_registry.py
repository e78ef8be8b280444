"""Registry of the running servers of this machine, so that studies can share one.

    $XDG_RUNTIME_DIR/localhpo-<uid>/    or another folder, see `localhpo.runtime`
        <fingerprint>-<k>/              fingerprint of a model and its settings
            lock                        locked by the server's supervisor while it runs
            users                       locked by its users, see `localhpo.llm.vllm.lease`
            server.json                 pid, port, key, model; written when it answers
            server.log

Only the owner can read these files. The content of server.json is verified with the server, see
`localhpo.llm.vllm.server`.
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
"""Number of servers per fingerprint: if one cannot be shared, a study starts another."""

_RECORD = "server.json"


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """A running server."""

    pid: int
    """Process id of its supervisor."""
    started: int
    """Start time of that process, by `runtime.process_start`."""
    port: int
    """Port on 127.0.0.1."""
    key: str
    name: str
    """Name of its model in the server, which contains the digest."""

    @property
    def url(self) -> str:
        """Address of its OpenAI interface."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.started > 0 and runtime.process_start(self.pid) == self.started


class ServerSlot:
    """A folder for one server."""

    def __init__(self, folder: Path) -> None:
        """Create the folder if it does not exist.

        Raises:
            BackendError: it cannot be created.
        """
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise BackendError(
                f"the folder of the model's server cannot be created: {exc}"
            ) from exc

    def take(self) -> int | None:
        """Lock the slot; return the descriptor of the lock, or None if a server has it.

        The slot is free again when every copy of the descriptor is closed. Other files in it then
        belong to a server that has ended.
        """
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def read(self) -> ServerRecord | None:
        """Return the server in this slot; None if none runs or it is not ready yet."""
        record = self._read_record()
        return record if record and record.alive else None

    def write(self, record: ServerRecord) -> None:
        """Record a server that answers, atomically."""
        partial = self.folder / "server.partial"
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(record), file)
        partial.replace(self.folder / _RECORD)

    def clear(self) -> None:
        """Delete the record; only for the holder of the lock."""
        (self.folder / _RECORD).unlink(missing_ok=True)

    def forget(self, record: ServerRecord) -> None:
        """Delete the record of a server that has ended, unless another server has replaced it."""
        if self._read_record() == record:
            self.clear()

    def _read_record(self) -> ServerRecord | None:
        try:
            return ServerRecord(**json.loads((self.folder / _RECORD).read_text()))
        except (OSError, ValueError, TypeError):
            return None


def list_slots(fingerprint: str, folder: Path | None = None) -> Iterator[ServerSlot]:
    """Yield the slots of a fingerprint, in the order in which they are tried.

    Raises:
        BackendError: `folder` belongs to another user, or cannot be created.
    """
    folder = runtime.folder() if folder is None else folder
    try:
        runtime.make_private(folder)
    except LocalHPOError as error:
        raise BackendError(str(error), hint=error.hint) from error
    for k in range(SLOTS):
        yield ServerSlot(folder / f"{fingerprint}-{k}")
