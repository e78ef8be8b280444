"""A model server in simulated time: it holds memory, and takes time to free it and to come back."""

from __future__ import annotations

from localhpo.errors import ModelError
from localhpo.executor.clock import Clock
from localhpo.resources.placement import Assignment
from localhpo.scheduler.loaded_model import OffloadMethod, ServerState, list_offload_methods


class SimulatedModel:
    """A model server with given durations and sizes, on a simulated clock.

    Args:
        clock: Clock of the simulation.
        assignment: Memory that it holds while resident.
        asleep_mb: Memory that it still holds asleep; as much as resident where sleep frees nothing.
        sleep_s: Time to fall asleep.
        wake_s: Time to wake up.
        stop_s: Time to stop.
        start_s: Time to start.
        sleep_host_mb: Host memory that it takes while asleep.
        can_sleep: Whether it supports sleep.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        assignment: Assignment,
        asleep_mb: float,
        sleep_s: float,
        wake_s: float,
        stop_s: float,
        start_s: float,
        sleep_host_mb: float = 0.0,
        can_sleep: bool = True,
    ) -> None:
        self.assignment = assignment
        self.sleep_host_mb = sleep_host_mb
        self._clock = clock
        self._sleep_s, self._stop_s = sleep_s, stop_s
        self._restore_s: dict[ServerState, float] = {"offloaded": wake_s, "stopped": start_s}
        self._held_mb: dict[ServerState, float] = {
            "resident": max(assignment.memory_mb, assignment.gpu_memory_mb),
            "offloaded": asleep_mb,
            "stopped": 0.0,
        }
        self._can_sleep = can_sleep
        self._state: ServerState = "resident"

    @property
    def state(self) -> ServerState:
        """Its simulated state."""
        return self._state

    @property
    def offload_methods(self) -> frozenset[OffloadMethod]:
        """Stop, and sleep where it supports that."""
        return list_offload_methods(can_sleep=self._can_sleep)

    @property
    def shared(self) -> bool:
        """False: one study uses it."""
        return False

    def wake(self) -> None:
        """Let the given time pass."""
        self._clock.sleep(self._restore_s.get(self._state, 0.0))
        self._state = "resident"

    def sleep(self) -> None:
        """Let the given time pass."""
        if not self._can_sleep:
            raise ModelError("this server cannot sleep", hint='sharing = "stop"')
        self._clock.sleep(self._sleep_s)
        self._state = "offloaded"

    def stop(self) -> None:
        """Let the given time pass."""
        self._clock.sleep(self._stop_s)
        self._state = "stopped"

    def measure_mb(self) -> float | None:
        """Return the size of its present state."""
        return self._held_mb[self._state]
