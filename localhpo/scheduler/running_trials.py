"""The running trials of a study: they are started, polled and stopped here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from localhpo.executor.clock import Clock, RealClock
from localhpo.executor.protocol import Executor, Job, Outcome, Run
from localhpo.resources import placement
from localhpo.resources.broker import ResourceBroker
from localhpo.resources.placement import Assignment, Inventory
from localhpo.scheduler.loaded_model import LoadedModel
from localhpo.task import Task
from localhpo.trial import Config, Measurement, State, Trial

EstimateMemoryMb = Callable[[Config], float | None]
"""From a configuration to the peak memory of its trial in MB: of each device, or of the host where
trials hold no device. None where it is unknown, infinity where the trial must run alone."""


@dataclass(frozen=True, slots=True)
class ExecutionTarget:
    """Where the trials of a study run, and what is known there about configurations."""

    executor: Executor
    """Runs the trials; whoever opened it closes it."""
    inventory: Inventory
    """What trials may use; `admission.admit_task` has accepted the task on it."""
    trial_folder: Callable[[int], Path]
    """Returns the folder of a trial, by number."""
    clock: Clock = field(default_factory=RealClock)
    """The time in which the executor runs."""
    loaded_model: LoadedModel | None = None
    """The model, where it shares memory with trials."""
    broker: ResourceBroker | None = None
    """Shares the machine with other studies; None for a study by itself."""
    estimate_mb: EstimateMemoryMb | None = None
    """Estimates the memory of a configuration's trial; None where nothing is known."""
    check_config: Callable[[Config], str | None] | None = None
    """Returns why a configuration must not run, or None; where this is None all may."""


@dataclass(slots=True)
class _ActiveRun:
    run: Run
    assignment: Assignment
    started: float
    """On the monotonic clock."""
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class TrialProgress:
    """What is new about a running trial."""

    number: int
    measurements: Sequence[Measurement]
    outcome: Outcome | None
    """How it ended; None while it runs."""


class RunningTrials:
    """The running trials of a study, and how long trials take."""

    def __init__(self, task: Task, target: ExecutionTarget) -> None:
        """Start with none."""
        self._task = task
        self._target = target
        self._clock = target.clock
        self._active: dict[int, _ActiveRun] = {}
        self._ended_gpu_s = 0.0
        self._ended_s: list[float] = []

    def __len__(self) -> int:
        return len(self._active)

    @property
    def elapsed_s(self) -> dict[int, float]:
        """How long each trial has run, by number."""
        now = self._clock.monotonic()
        return {number: now - active.started for number, active in sorted(self._active.items())}

    @property
    def gpu_s(self) -> float:
        """Durations of all trials of this run, times the GPUs they held."""
        held = {number: active.assignment.gpu_total for number, active in self._active.items()}
        return self._ended_gpu_s + sum(s * held[number] for number, s in self.elapsed_s.items())

    @property
    def completed(self) -> int:
        """Number of trials of this run that were evaluated, whose durations tell of the next."""
        return len(self._ended_s)

    @property
    def mean_trial_s(self) -> float:
        """Mean duration of the ended trials; before the first end, how long the longest has run."""
        if self._ended_s:
            return sum(self._ended_s) / len(self._ended_s)
        return max(self.elapsed_s.values(), default=0.0)

    @property
    def assignments(self) -> list[Assignment]:
        """What the running trials hold of the machine."""
        return [active.assignment for active in self._active.values()]

    def start(self, trial: Trial, assignment: Assignment) -> None:
        """Start a trial.

        Raises:
            ExecutorError: the machine does not let trials be supervised at all.
        """
        task = self._task
        # A trial that is alone on the host gets as many threads as any other: equal results.
        usual = dataclasses.replace(assignment, cpus=task.resources.cpus)
        job = Job(
            task=task,
            number=trial.number,
            config=trial.config,
            seed=trial.seed,
            folder=self._target.trial_folder(trial.number),
            env=placement.make_environment(usual, {**os.environ, **task.env}),
            memory_mb=task.resources.memory_mb,
            timeout_s=task.budget.timeout_s,
            grace_s=task.budget.grace_s,
        )
        run = self._target.executor.start(job)
        self._active[trial.number] = _ActiveRun(run, assignment, self._clock.monotonic())

    def poll(self) -> Iterator[TrialProgress]:
        """Yield what is new about each trial; ended ones are removed."""
        for number, active in list(self._active.items()):
            # The outcome first: once there is one, every measurement can be polled.
            outcome = active.run.outcome
            measurements = active.run.poll()
            if outcome is not None:
                elapsed_s = self.elapsed_s[number]
                self._ended_gpu_s += elapsed_s * active.assignment.gpu_total
                if outcome.state in (State.COMPLETE, State.PRUNED):
                    self._ended_s.append(elapsed_s)
                del self._active[number]
            yield TrialProgress(number, measurements, outcome)

    def stop(self, number: int, state: Literal[State.PRUNED, State.INTERRUPTED]) -> bool:
        """Ask a trial to end; False if that was done before."""
        active = self._active[number]
        if active.stopping:
            return False
        active.stopping = True
        active.run.stop(state)
        return True

    def interrupt_all(self) -> None:
        """Ask all trials to end as interrupted, to be run again later."""
        for number in self._active:
            self.stop(number, State.INTERRUPTED)

    def kill_all(self) -> None:
        """End all trials at once; the next `poll` yields their outcomes."""
        self._target.executor.close()
