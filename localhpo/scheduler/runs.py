"""The trials that run now: where each one is placed, since when, and what it was asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localhpo.executor.clock import Clock
from localhpo.executor.protocol import Executor, Job, Outcome, Run
from localhpo.scheduler import placement
from localhpo.scheduler.placement import Assignment, Inventory
from localhpo.task import Task
from localhpo.trial import Measurement, State, Trial


@dataclass(slots=True)
class _Active:
    run: Run
    assignment: Assignment
    started: float
    """On the monotonic clock."""
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """What is new about one running trial."""

    number: int
    measurements: Sequence[Measurement]
    outcome: Outcome | None
    """How it ended; it runs no more."""


class Runs:
    """Runs trials on the places that a machine has for them."""

    def __init__(
        self,
        *,
        task: Task,
        executor: Executor,
        inventory: Inventory,
        clock: Clock,
        trial_folder: Callable[[int], Path],
    ) -> None:
        """Begin with none; the task was admitted to the inventory."""
        self._task = task
        self._executor = executor
        self._inventory = inventory
        self._clock = clock
        self._trial_folder = trial_folder
        self._active: dict[int, _Active] = {}
        self._ended_gpu_s = 0.0
        self.slots = placement.slots(task.resources, inventory)
        """How many run at once, at most."""

    def __len__(self) -> int:
        return len(self._active)

    @property
    def elapsed_s(self) -> dict[int, float]:
        """How long each trial has run, by number."""
        now = self._clock.monotonic()
        return {number: now - active.started for number, active in sorted(self._active.items())}

    @property
    def gpu_s(self) -> float:
        """Seconds of trials, ended ones too, times the GPUs they held."""
        held = {number: active.assignment.gpu_total for number, active in self._active.items()}
        return self._ended_gpu_s + sum(s * held[number] for number, s in self.elapsed_s.items())

    def place(self) -> Assignment | None:
        """Return a place for the next trial; None while there is no room."""
        held = [active.assignment for active in self._active.values()]
        return placement.place(self._task.resources, self._inventory, held)

    def start(self, trial: Trial, assignment: Assignment) -> None:
        """Start a trial.

        Raises:
            ExecutorError: the machine does not let trials be supervised at all.
        """
        task = self._task
        job = Job(
            task=task,
            number=trial.number,
            config=trial.config,
            seed=trial.seed,
            folder=self._trial_folder(trial.number),
            env=placement.environment(assignment, {**os.environ, **task.env}),
            memory_mb=task.resources.memory_mb,
            timeout_s=task.budget.timeout_s,
            grace_s=task.budget.grace_s,
        )
        run = self._executor.start(job)
        self._active[trial.number] = _Active(run, assignment, self._clock.monotonic())

    def poll(self) -> Iterator[Progress]:
        """Yield what is new about each trial; one that ended is let go."""
        for number, active in list(self._active.items()):
            # The outcome first: once there is one, every measurement can be polled.
            outcome = active.run.outcome
            measurements = active.run.poll()
            if outcome is not None:
                self._ended_gpu_s += self.elapsed_s[number] * active.assignment.gpu_total
                del self._active[number]
            yield Progress(number, measurements, outcome)

    def stop(self, number: int, state: Literal[State.PRUNED, State.INTERRUPTED]) -> bool:
        """Ask a trial to end; False if it was asked before."""
        active = self._active[number]
        if active.stopping:
            return False
        active.stopping = True
        active.run.stop(state)
        return True

    def interrupt(self) -> None:
        """Ask all to end, so that they run again another time."""
        for number in self._active:
            self.stop(number, State.INTERRUPTED)

    def kill(self) -> None:
        """End all at once; the next `poll` says how."""
        self._executor.close()
