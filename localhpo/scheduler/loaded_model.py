"""The loaded language model as a holder of memory: in this process, or in a server.

Laws, which `tests/contracts/test_loaded_model_contract.py` checks for every implementation:

- `assignment`, what the model holds while it is resident, never changes;
- each of `offload_methods` works while the model is resident, and `wake` reverses it; `wake` of a
  resident model does nothing;
- a method that is not in `offload_methods` raises `ModelError` and changes nothing;
- `measure_mb` measures; it is None where nothing can be measured, never a guess;
- `state` is read from the model itself at each call.

Every method may block for as long as a server takes to start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Literal, Protocol

from localhpo.errors import ModelError
from localhpo.resources.placement import Assignment

OffloadMethod = Literal["sleep", "stop"]
"""How a server frees memory: it keeps its process, or its process ends."""

ServerState = Literal["resident", "offloaded", "stopped"]
"""Where the model is: in the memory that trials want, asleep without it, or without a process."""

_MARGIN, _SPARE_MB = 1.1, 1024.0
"""Sleep of level 1 needs free host memory of this multiple of the weights, plus MB for trials,
whose use grows while they run."""


def list_offload_methods(*, can_sleep: bool) -> frozenset[OffloadMethod]:
    """Return the methods of a server of this study's own: stop, and sleep where it supports it."""
    return frozenset({"sleep", "stop"} if can_sleep else {"stop"})


class LoadedModel(Protocol):
    """A language model that holds memory. See the module for the laws."""

    @property
    def assignment(self) -> Assignment:
        """Memory that it holds while resident: of the host, or of each of its devices."""
        ...

    @property
    def offload_methods(self) -> frozenset[OffloadMethod]:
        """Methods by which it can free memory."""
        ...

    @property
    def shared(self) -> bool:
        """Whether another study uses it now: it then keeps running when this study stops it."""
        ...

    @property
    def sleep_host_mb(self) -> float:
        """Host memory that it takes while asleep, or would take if it fell asleep now."""
        ...

    @property
    def state(self) -> ServerState:
        """Its present state; resident where it cannot be read, since it may hold everything."""
        ...

    def wake(self) -> None:
        """Make it resident, and ready to answer.

        Raises:
            ModelError: it cannot be.
        """
        ...

    def sleep(self) -> None:
        """Free memory without ending its process.

        Raises:
            ModelError: it cannot.
        """
        ...

    def stop(self) -> None:
        """End its process, and free everything.

        Raises:
            ModelError: it cannot.
        """
        ...

    def measure_mb(self) -> float | None:
        """Return the memory that it really holds now: host or device memory, as `assignment`."""
        ...


class InProcessModel:
    """A model within this process: it cannot free its memory.

    Args:
        assignment: Memory that it holds; none that trials could use by default.
    """

    def __init__(self, assignment: Assignment | None = None) -> None:
        self.assignment = assignment or Assignment(cpus=0.0, gpu_share=0.0)

    @property
    def offload_methods(self) -> frozenset[OffloadMethod]:
        """No methods."""
        return frozenset()

    @property
    def shared(self) -> bool:
        """False: it belongs to this process."""
        return False

    @property
    def sleep_host_mb(self) -> float:
        """0: it does not sleep."""
        return 0.0

    @property
    def state(self) -> ServerState:
        """Always resident."""
        return "resident"

    def wake(self) -> None:
        """Do nothing."""

    def sleep(self) -> None:
        """Refuse."""
        raise ModelError("a model in this process cannot sleep", hint='sharing = "resident"')

    def stop(self) -> None:
        """Refuse."""
        raise ModelError("a model in this process cannot be stopped", hint='sharing = "resident"')

    def measure_mb(self) -> float | None:
        """Return None: its memory is part of that of this process."""
        return None


class OffloadableServer(Protocol):
    """A server of one model that this process may start and stop."""

    @property
    def pid(self) -> int | None:
        """Process id; None while it does not run."""
        ...

    @property
    def sleeping(self) -> bool:
        """Whether it was put to sleep."""
        ...

    @property
    def shared(self) -> bool:
        """Whether another process uses it too."""
        ...

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        ...

    def stop(self) -> None:
        """Stop using it; it ends unless another process uses it."""
        ...

    def sleep(self, level: int) -> None:
        """Free device memory: level 1 keeps the weights in host memory, level 2 drops them."""
        ...

    def wake(self) -> None:
        """Reverse `sleep`, and wait until it is ready."""
        ...


class ServerModel:
    """A model in a server that this process manages.

    Args:
        server: The server; started before or not.
        assignment: Memory that it holds while resident.
        measure: From the id of its process to the MB that it and its children hold, of the memory
            in `assignment`; None where it cannot be measured.
        can_sleep: Whether the server supports sleep.
        weights_mb: Host memory that sleep of level 1 takes.
        host_free_mb: Returns the free host memory, which decides about the level; always level 1
            by default.
    """

    def __init__(
        self,
        server: OffloadableServer,
        *,
        assignment: Assignment,
        measure: Callable[[int], float | None],
        can_sleep: bool = True,
        weights_mb: float = 0.0,
        host_free_mb: Callable[[], float] | None = None,
    ) -> None:
        self.assignment = assignment
        self._server = server
        self._measure = measure
        self._can_sleep = can_sleep
        self._weights_mb = weights_mb
        self._host_free_mb = host_free_mb
        self._asleep_at_level: int | None = None

    @property
    def offload_methods(self) -> frozenset[OffloadMethod]:
        """Stop, and sleep where the server supports it."""
        return list_offload_methods(can_sleep=self._can_sleep)

    @property
    def shared(self) -> bool:
        """As the server says."""
        return self._server.shared

    @property
    def level(self) -> int:
        """Level of sleep: 1 while host memory can hold the weights, with a margin; else 2."""
        if self._asleep_at_level is not None:
            return self._asleep_at_level
        if self._host_free_mb is None:
            return 1
        return 1 if self._host_free_mb() >= self._weights_mb * _MARGIN + _SPARE_MB else 2

    @property
    def sleep_host_mb(self) -> float:
        """Size of the weights at level 1, else 0."""
        return self._weights_mb if self._can_sleep and self.level == 1 else 0.0

    @property
    def state(self) -> ServerState:
        """As the server says."""
        if self._server.pid is None:
            return "stopped"
        with contextlib.suppress(ModelError):
            return "offloaded" if self._server.sleeping else "resident"
        return "resident"

    def wake(self) -> None:
        """Start it or wake it up, where it is not resident."""
        if self._server.pid is None:
            self._server.start()
        elif self._server.sleeping:
            self._server.wake()
        self._asleep_at_level = None

    def sleep(self) -> None:
        """Put the server to sleep."""
        if not self._can_sleep:
            raise ModelError("this server cannot sleep", hint='sharing = "stop"')
        self._asleep_at_level = self.level
        self._server.sleep(self._asleep_at_level)

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()
        self._asleep_at_level = None

    def measure_mb(self) -> float | None:
        """Return the memory of the server's processes; 0 where it does not run."""
        pid = self._server.pid
        return 0.0 if pid is None else self._measure(pid)
