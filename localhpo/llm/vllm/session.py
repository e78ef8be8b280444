"""A process's session with a server: it starts or adopts a server, and later leaves it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from localhpo import runtime
from localhpo.errors import BackendError
from localhpo.llm.servers.http_client import ServerClient
from localhpo.llm.vllm.lease import Lease
from localhpo.llm.vllm.process import (
    GRACE_S,
    STUCK_S,
    ServerProcess,
    find_end_reason,
    read_tail,
    reap_ended,
)
from localhpo.llm.vllm.server_registry import ServerRecord, ServerSlot

POLL_S = 0.2
"""Seconds between checks."""
REQUEST_S = 300.0
"""Timeout of a request. A small model answers in seconds; a large one may queue requests."""
CHECK_S = 10.0
"""Timeout of the check before a server is adopted."""


@dataclass(frozen=True, slots=True)
class ServerSession:
    """A session of this process with a server."""

    slot: ServerSlot
    lease: Lease
    record: ServerRecord
    http: ServerClient
    process: ServerProcess | None
    """Process of the server, if it was started here."""

    @classmethod
    def adopt(cls, slot: ServerSlot, lease: Lease, record: ServerRecord, name: str) -> Self | None:
        """Use a running server; if it does not serve the model, close the lease and return None."""
        is_valid = False
        try:
            is_valid = is_genuine(record, name)
        finally:
            if not is_valid:
                lease.close()
        return cls(slot, lease, record, _make_client(record), None) if is_valid else None

    @classmethod
    def start(
        cls,
        slot: ServerSlot,
        held: int,
        *,
        name: str,
        argv: Callable[[int], Sequence[str]],
        environment: Callable[[str], Mapping[str, str]],
        deadline: float,
    ) -> Self | None:
        """Start a server, and return when it answers.

        Args:
            slot: Its slot.
            held: Descriptor of the slot's lock; it is closed here.
            name: Name of the model in the server.
            argv: From a port to the command of a server that listens on it.
            environment: From a key to the variables of a server that requires it.
            deadline: Latest time, on the monotonic clock.

        Returns:
            None if there is no lease: another process has the last server of this slot
            exclusively, and has not noticed that it ended.

        Raises:
            BackendError: it did not start, with the reason, or not in time. It is ended then.
        """
        lease = Lease.take(slot.folder)
        if lease is None:
            os.close(held)
            return None
        slot.clear()
        port, key = _free_port(), secrets.token_urlsafe(32)
        try:
            process = ServerProcess(argv(port), environment(key), slot.folder, keep_open=[held])
        except BaseException:
            lease.close()
            raise
        finally:
            os.close(held)  # the server process has a copy
        record = ServerRecord(process.pid, runtime.process_start(process.pid), port, key, name)
        use = cls(slot, lease, record, _make_client(record), process)
        try:
            _wait_until_ready(process, record, deadline)
            slot.write(record)
        except BaseException:
            use.leave()
            raise
        return use

    def leave(self) -> None:
        """End the session; the server has ended when this returns, unless others use it."""
        self.http.close()
        if not self.lease.held:  # this is a fork of the process of the session
            return
        self.lease.release()
        self._await_end()
        if not self.record.alive:
            self.slot.forget(self.record)
        if self.process is not None:
            self.process.leave()
        reap_ended()  # another session of this process may have started it
        self.lease.close()

    def _await_end(self) -> None:
        """Wait for the end of the server, unless others use it; kill a stuck supervisor."""
        give_up = time.monotonic() + GRACE_S + STUCK_S
        while self.record.alive and not self.lease.shared:
            if time.monotonic() > give_up:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.record.pid, signal.SIGKILL)
                return
            time.sleep(POLL_S / 4)


def is_genuine(record: ServerRecord, name: str) -> bool:
    """Return whether a server accepts its key and no other, and serves the named model."""
    server = ServerClient(record.url, timeout_s=CHECK_S, key=record.key)
    impostor = ServerClient(record.url, timeout_s=CHECK_S, key=secrets.token_urlsafe(32))
    with contextlib.closing(server), contextlib.closing(impostor):
        with contextlib.suppress(BackendError):
            impostor.list_models()
            return False
        try:
            return name in [entry["id"] for entry in server.list_models()]
        except BackendError:
            return False


def _make_client(record: ServerRecord) -> ServerClient:
    return ServerClient(record.url, timeout_s=REQUEST_S, key=record.key)


def _wait_until_ready(process: ServerProcess, record: ServerRecord, deadline: float) -> None:
    """Wait until a server answers.

    Raises:
        BackendError: it ended, or the deadline passed.
    """
    started = time.monotonic()
    while not is_genuine(record, record.name):
        if process.ends_within(POLL_S):
            raise BackendError(
                f"the model's server did not start: {find_end_reason(process.log.parent)}",
                hint=f"its log: {process.log}",
            )
        if time.monotonic() > deadline:
            last = "".join(f"\n  {line}" for line in read_tail(process.log).splitlines()[-3:])
            waited_s = time.monotonic() - started
            raise BackendError(
                f"the model's server did not answer within {waited_s:.0f} s;"
                f" the end of its log:{last}",
                hint=f"its log: {process.log}",
            )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
