"""Who holds memory beside the trials: the language model, in this process or in a server.

Laws, which `tests/contracts/test_tenant_contract.py` runs over every implementation:

- `holds` never changes: what the tenant holds while it is awake;
- each way of `rests` works from the awake state, and `wake` undoes it; `wake` of one who is
  awake does nothing;
- a way that is not in `rests` raises `ModelError`, and changes nothing;
- `used_mb` measures; it is None where nobody can tell, never a guess;
- `standing` is what the tenant says of itself, whatever it was told before.

All of them may block for as long as a server takes to start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

from localhpo.errors import ModelError
from localhpo.executor.clock import Clock
from localhpo.scheduler.placement import Assignment

if TYPE_CHECKING:
    from localhpo.scheduler.sharing import Standing

Rest = Literal["sleep", "stop"]
"""How a server makes room: it keeps its process, or it ends."""

_MARGIN, _SPARE_MB = 1.1, 1024.0
"""Host memory that must be free for level 1: so many times the weights, and so much for trials,
which take more as they run."""


class Tenant(Protocol):
    """The model as a holder of memory. See the module for the laws."""

    @property
    def holds(self) -> Assignment:
        """What it holds while it is awake: of the host, or of devices, as much of each."""
        ...

    @property
    def rests(self) -> frozenset[Rest]:
        """The ways in which it can make room."""
        ...

    @property
    def shared(self) -> bool:
        """Whether another study uses it now: to stop it is then to leave it to the other."""
        ...

    @property
    def keeps_mb(self) -> float:
        """Memory of the host that its sleep takes, or would take if it went to sleep now."""
        ...

    @property
    def standing(self) -> Standing:
        """What it does now; awake where it does not say, for it may hold all of it."""
        ...

    def wake(self) -> None:
        """Be ready for questions.

        Raises:
            ModelError: it cannot.
        """
        ...

    def sleep(self) -> None:
        """Free what can be freed without ending.

        Raises:
            ModelError: it cannot.
        """
        ...

    def stop(self) -> None:
        """End, and free everything.

        Raises:
            ModelError: it cannot.
        """
        ...

    def used_mb(self) -> float | None:
        """Return what it really holds now, where trials would like to have it."""
        ...


class InProcess:
    """A model within this process: it can make no room, on a device (resident) or on none (cpu).

    Args:
        holds: what it holds; nothing that anybody knows of by default.
    """

    def __init__(self, holds: Assignment | None = None) -> None:
        self.holds = holds or Assignment(cpus=0.0, gpu_share=0.0)

    @property
    def rests(self) -> frozenset[Rest]:
        """There is no way."""
        return frozenset()

    @property
    def shared(self) -> bool:
        """It is this process's own."""
        return False

    @property
    def keeps_mb(self) -> float:
        """It does not sleep."""
        return 0.0

    @property
    def standing(self) -> Standing:
        """It is awake."""
        return "awake"

    def wake(self) -> None:
        """It is awake."""

    def sleep(self) -> None:
        """Refuse."""
        raise ModelError("a model in this process cannot sleep", hint='sharing = "resident"')

    def stop(self) -> None:
        """Refuse."""
        raise ModelError("a model in this process cannot be stopped", hint='sharing = "resident"')

    def used_mb(self) -> float | None:
        """Nobody can tell: its memory is that of this process."""
        return None


class Server(Protocol):
    """A server of one model that this process may start and stop, whatever serves."""

    @property
    def pid(self) -> int | None:
        """Of its process; None while it does not run."""
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
        """End it; nothing of it is left, unless another process uses it."""
        ...

    def sleep(self, level: int) -> None:
        """Free device memory: 1 keeps the weights in host memory, 2 drops them."""
        ...

    def wake(self) -> None:
        """Undo `sleep`; ready when it returns."""
        ...


class Managed:
    """A tenant over a server that this process manages.

    Args:
        server: the server; started before or not.
        holds: what it holds while it is awake.
        measure: from the id of its process to the MB that it and its children hold, where
            trials would like to have them; None where nobody can tell.
        can_sleep: whether it knows how to sleep at all.
        weights_mb: of host memory that sleep of level 1 takes.
        host_free_mb: returns the free host memory; level 2 where it is too little.
    """

    def __init__(
        self,
        server: Server,
        *,
        holds: Assignment,
        measure: Callable[[int], float | None],
        can_sleep: bool = True,
        weights_mb: float = 0.0,
        host_free_mb: Callable[[], float] | None = None,
    ) -> None:
        self.holds = holds
        self._server = server
        self._measure = measure
        self._can_sleep = can_sleep
        self._weights_mb = weights_mb
        self._host_free_mb = host_free_mb
        self._asleep_at: int | None = None  # the level

    @property
    def rests(self) -> frozenset[Rest]:
        """It can stop; some can sleep."""
        return frozenset({"sleep", "stop"} if self._can_sleep else {"stop"})

    @property
    def shared(self) -> bool:
        """As the server says."""
        return self._server.shared

    @property
    def level(self) -> int:
        """The level of sleep: 1 while host memory can hold the weights, with a margin; else 2."""
        if self._asleep_at is not None:
            return self._asleep_at
        if self._host_free_mb is None:
            return 1
        return 1 if self._host_free_mb() >= self._weights_mb * _MARGIN + _SPARE_MB else 2

    @property
    def keeps_mb(self) -> float:
        """The weights, at level 1."""
        return self._weights_mb if self._can_sleep and self.level == 1 else 0.0

    @property
    def standing(self) -> Standing:
        """As the server says."""
        if self._server.pid is None:
            return "stopped"
        with contextlib.suppress(ModelError):
            return "asleep" if self._server.sleeping else "awake"
        return "awake"

    def wake(self) -> None:
        """Start it, or wake it; nothing where it is awake."""
        if self._server.pid is None:
            self._server.start()
        elif self._server.sleeping:
            self._server.wake()
        self._asleep_at = None

    def sleep(self) -> None:
        """Put it to sleep."""
        if not self._can_sleep:
            raise ModelError("this server cannot sleep", hint='sharing = "stop"')
        self._asleep_at = self.level
        self._server.sleep(self._asleep_at)

    def stop(self) -> None:
        """End it."""
        self._server.stop()
        self._asleep_at = None

    def used_mb(self) -> float | None:
        """Return what it holds."""
        pid = self._server.pid
        return 0.0 if pid is None else self._measure(pid)


class Simulated:
    """A server whose times and sizes are given; it takes them by a simulated clock.

    Args:
        clock: of the simulation.
        holds: what it holds while it is awake.
        asleep_mb: what it still holds asleep; as much as awake for one whose sleep frees nothing.
        sleep_s: from awake to asleep; also the next three, for what they say.
        wake_s: from asleep to awake.
        stop_s: from awake to stopped.
        start_s: from stopped to awake.
        keeps_mb: of the host while it sleeps.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        holds: Assignment,
        asleep_mb: float,
        sleep_s: float,
        wake_s: float,
        stop_s: float,
        start_s: float,
        keeps_mb: float = 0.0,
        can_sleep: bool = True,
    ) -> None:
        self.holds = holds
        self.keeps_mb = keeps_mb
        self._clock = clock
        self._takes_s = {"sleep": sleep_s, "asleep": wake_s, "stop": stop_s, "stopped": start_s}
        self._holds_mb = {
            "awake": max(holds.memory_mb, holds.gpu_memory_mb),
            "asleep": asleep_mb,
            "stopped": 0.0,
        }
        self._can_sleep = can_sleep
        self._standing: Standing = "awake"

    @property
    def standing(self) -> Standing:
        """As it was told."""
        return self._standing

    @property
    def rests(self) -> frozenset[Rest]:
        """It can stop; some can sleep."""
        return frozenset({"sleep", "stop"} if self._can_sleep else {"stop"})

    @property
    def shared(self) -> bool:
        """It is one study's own."""
        return False

    def wake(self) -> None:
        """Let the time pass that it takes."""
        self._clock.sleep(self._takes_s.get(self._standing, 0.0))
        self._standing = "awake"

    def sleep(self) -> None:
        """Let the time pass that it takes."""
        if not self._can_sleep:
            raise ModelError("this server cannot sleep", hint='sharing = "stop"')
        self._clock.sleep(self._takes_s["sleep"])
        self._standing = "asleep"

    def stop(self) -> None:
        """Let the time pass that it takes."""
        self._clock.sleep(self._takes_s["stop"])
        self._standing = "stopped"

    def used_mb(self) -> float | None:
        """Return what it holds."""
        return self._holds_mb[self._standing]
