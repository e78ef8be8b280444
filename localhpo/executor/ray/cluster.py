"""The Ray cluster that trials run on: found, never started, and its nodes as they are."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from localhpo.errors import ExecutorError, MissingExtraError
from localhpo.task import Resources

REACH_S = 5.0
"""Seconds for the head of the cluster to answer; Ray itself would try for over a minute."""
_JOIN = (
    "start one with `ray start --head` and let this machine and the others join with"
    " `ray start --address=HEAD:6379`; then set RAY_ADDRESS or [resources] ray_address"
)
_MB = 2**20
_ROUNDING = 1e-9  # three thirds of a device are one device


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster, with what it offers to Ray in all."""

    id: str
    cpus: float
    memory_mb: float
    gpus: int

    def holds(self, resources: Resources) -> int:
        """Return how many trials run on it at once, if nothing else does."""
        limits = [self.cpus / resources.cpus]
        if resources.memory_mb:
            limits.append(self.memory_mb / resources.memory_mb)
        if resources.gpus >= 1:
            limits.append(self.gpus / resources.gpus)
        elif resources.gpus:  # a share is of one device
            limits.append(self.gpus * math.floor(1 / resources.gpus + _ROUNDING))
        return math.floor(min(limits) + _ROUNDING)


class Cluster:
    """The connection of this process to a cluster; there is one at a time, as Ray has it."""

    def __init__(self, address: str | None = None) -> None:
        """Join the cluster as a driver.

        Args:
            address: host:port of its head. None: RAY_ADDRESS, else a cluster of this machine.

        Raises:
            MissingExtraError: Ray is not installed.
            ExecutorError: no cluster answers, or it runs other versions of Ray or Python.
        """
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # looked up whenever Ray pleases
        try:
            import ray
        except ImportError as exc:
            raise MissingExtraError("ray", '[resources] executor = "ray"', "ray") from exc
        self._ray: Any = ray
        self.address = address or os.environ.get("RAY_ADDRESS") or "auto"
        self._joined = not ray.is_initialized()
        if self._joined:
            check_address(self.address)
            _print_on_stdout(False)
            self._join()
        elif address and address != (at := ray.get_runtime_context().gcs_address):
            raise ExecutorError(
                f"this process is a driver of the Ray cluster at {at}, not of {address}",
                hint="call ray.shutdown() before, or name that cluster",
            )
        else:
            _print_on_stdout(False)

    @property
    def nodes(self) -> list[Node]:
        """The nodes that are alive."""
        return [_node(entry) for entry in self._ray.nodes() if entry["Alive"]]

    def close(self) -> None:
        """Leave the cluster, if this was what joined it. May be called twice."""
        if self._joined:
            self._joined = False
            self._ray.shutdown()  # prints what it has held back
        _print_on_stdout(True)

    def _join(self) -> None:
        try:
            with _own_signals():
                self._ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as exc:  # Ray raises kinds of many sorts, bare ones too
            _print_on_stdout(True)
            raise _refusal(self.address, exc) from exc


def check_address(address: str) -> None:
    """Refuse an address where no cluster can be.

    Raises:
        ExecutorError: it is not host:port, or nothing answers there.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ExecutorError(
            f"the address of a Ray cluster must be host:port of its head; got {address!r}",
            hint="a client's address (ray://) will not do: this machine must be a node of it",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()
    except (OSError, OverflowError) as exc:
        raise ExecutorError(f"no Ray cluster answers at {address}: {exc}", hint=_JOIN) from exc


def _refusal(address: str, exc: Exception) -> ExecutorError:
    reason = " ".join(str(exc).split())
    if "Version mismatch" in reason:
        return ExecutorError(
            f"the Ray cluster at {address} was started with other versions: {reason}",
            hint="install the same Ray and the same Python on all nodes",
        )
    return ExecutorError(f"no Ray cluster can be joined at {address}: {reason}", hint=_JOIN)


def _node(entry: dict[str, Any]) -> Node:
    there = entry["Resources"]
    return Node(
        id=entry["NodeID"],
        cpus=there.get("CPU", 0.0),
        memory_mb=there.get("memory", 0.0) / _MB,
        gpus=int(there.get("GPU", 0)),
    )


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Put back the handlers of signals that a block sets: Ray ends the process on SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_on_stdout(wanted: bool) -> None:
    """Let Ray print what nodes say on this process's standard output, or not.

    `log_to_driver=False` stops the output of workers only; messages about a lost node would still
    be printed into results. This is the switch that Ray's debugger turns (ray/util/rpdb.py).
    """
    import ray._private.worker as worker

    worker._worker_logs_enabled = wanted
