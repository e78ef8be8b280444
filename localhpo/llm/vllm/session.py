"""One process's use of a server: begun by starting or adopting one, ended by leaving it."""

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
from localhpo.llm.http_client import ServerClient
from localhpo.llm.vllm.lease import Lease
from localhpo.llm.vllm.process import GRACE_S, STUCK_S, ServerProcess, reap, tail, why_ended
from localhpo.llm.vllm.server_registry import ServerRecord, ServerSlot

POLL_S = 0.2
REQUEST_S = 300.0
"""For one request. Answers of a small model take seconds; a large one's may wait for others."""
CHECK_S = 10.0
"""For a server that is to be adopted to answer."""


@dataclass(frozen=True, slots=True)
class ServerSession:
    """A server as this process uses it."""

    slot: ServerSlot
    lease: Lease
    record: ServerRecord
    http: ServerClient
    process: ServerProcess | None
    """Where it was started here."""

    @classmethod
    def adopt(cls, slot: ServerSlot, lease: Lease, record: ServerRecord, name: str) -> Self | None:
        """Use a server that runs; None, and no lease, where it is not shown to serve that model."""
        is_well = False
        try:
            is_well = proves(record, name)
        finally:
            if not is_well:
                lease.close()
        return cls(slot, lease, record, _asking(record), None) if is_well else None

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
            slot: Its place.
            held: The descriptor that holds the place; it is closed here.
            name: Of the model, as the server is to call it.
            argv: From a port to the program that listens there.
            environment: From a key to variables that have it asked for.
            deadline: On the monotonic clock.

        Returns:
            None where no lease can be had: somebody keeps the last server of this place to
            himself, and has not seen that it ended.

        Raises:
            BackendError: it did not start, with the reason, or not in time. Nothing is left.
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
            os.close(held)  # the process has a copy
        record = ServerRecord(process.pid, runtime.start_of(process.pid), port, key, name)
        use = cls(slot, lease, record, _asking(record), process)
        try:
            _await(process, record, deadline)
            slot.write(record)
        except BaseException:
            use.leave()
            raise
        return use

    def leave(self) -> None:
        """Use it no more; it has ended when this returns, unless others use it."""
        self.http.close()
        if not self.lease.held:  # here is a fork of the process that uses it
            return
        self.lease.release()
        self._await_end()
        if not self.record.alive:
            self.slot.forget(self.record)
        if self.process is not None:
            self.process.leave()
        reap()  # another use of this process may have started it
        self.lease.close()

    def _await_end(self) -> None:
        """Wait until it has ended, unless others use it; kill a supervisor that is stuck."""
        give_up = time.monotonic() + GRACE_S + STUCK_S
        while self.record.alive and not self.lease.shared:
            if time.monotonic() > give_up:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.record.pid, signal.SIGKILL)
                return
            time.sleep(POLL_S / 4)


def proves(record: ServerRecord, name: str) -> bool:
    """Whether a server answers to its key and to no other, and serves the model of that name."""
    server = ServerClient(record.url, timeout_s=CHECK_S, key=record.key)
    stranger = ServerClient(record.url, timeout_s=CHECK_S, key=secrets.token_urlsafe(32))
    with contextlib.closing(server), contextlib.closing(stranger):
        with contextlib.suppress(BackendError):
            stranger.models()
            return False
        try:
            return name in [entry["id"] for entry in server.models()]
        except BackendError:
            return False


def _asking(record: ServerRecord) -> ServerClient:
    return ServerClient(record.url, timeout_s=REQUEST_S, key=record.key)


def _await(process: ServerProcess, record: ServerRecord, deadline: float) -> None:
    """Wait until a server answers.

    Raises:
        BackendError: it ended, or the deadline passed.
    """
    started = time.monotonic()
    while not proves(record, record.name):
        if process.ends_within(POLL_S):
            raise BackendError(
                f"the model's server did not start: {why_ended(process.log.parent)}",
                hint=f"its log: {process.log}",
            )
        if time.monotonic() > deadline:
            last = "".join(f"\n  {line}" for line in tail(process.log).splitlines()[-3:])
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
