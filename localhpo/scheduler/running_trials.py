"""The running trials of a study: it finds them places, starts, polls and stops them."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from localhpo.executor.clock import Clock, RealClock
from localhpo.executor.protocol import Executor, Job, Outcome, Run
from localhpo.resources import placement
from localhpo.resources.broker import MODEL_CLAIM, ResourceBroker
from localhpo.resources.placement import Assignment, Inventory, MemoryNeed
from localhpo.scheduler.loaded_model import LoadedModel
from localhpo.scheduler.model_residency import ModelResidency
from localhpo.store.records import WAIT_TEXTS, WaitCause
from localhpo.task import Task
from localhpo.trial import Config, Measurement, State, Trial

_REFRESH_S = 3.0
"""Between two readings of what other programs hold of the devices."""

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
    """Places and runs the trials of a study on this machine, beside what others hold there."""

    def __init__(self, task: Task, target: ExecutionTarget, residency: ModelResidency) -> None:
        """Start with none."""
        self._task = task
        self._target = target
        self._inventory = target.inventory
        self._clock = target.clock
        self._broker = target.broker
        self._residency = residency
        self._active: dict[int, _ActiveRun] = {}
        self._ended_gpu_s = 0.0
        self._ended_s: list[float] = []
        self._model_claim: Assignment | None = None
        self._refreshed_at = -math.inf
        self._reported_lack = False
        self._reported_waits: set[WaitCause] = set()
        self.blocked_by: WaitCause | None = None
        """What the next trial waits for; None where that is unknown."""

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

    @property
    def other_claims(self) -> list[Assignment]:
        """What other studies hold of the machine."""
        return [] if self._broker is None else self._broker.read_other_claims()

    def refresh_inventory(self) -> bool:
        """Read again what other programs hold of the devices; return whether that has changed."""
        inventory, now = self._inventory, self._clock.monotonic()
        if inventory.refresh is None or now - self._refreshed_at < _REFRESH_S:
            return False
        self._refreshed_at = now
        ours = [*self.assignments, *self.other_claims, self._residency.current_assignment]
        gpus = inventory.refresh(inventory.gpus, {id for held in ours for id in held.gpus})
        if gpus == inventory.gpus:
            return False
        inventory.gpus = gpus
        return True

    def memory_need(self, config: Config | None) -> MemoryNeed:
        """Return the memory that a trial needs; `config` is None where it is not known yet."""
        estimate_mb = None
        if self._target.estimate_mb is not None and config is not None:
            estimate_mb = self._target.estimate_mb(config)
        is_alone = estimate_mb == math.inf
        models = self._broker.read_model_claims() if self._broker is not None and is_alone else ()
        return placement.compute_memory_need(
            self._task.resources,
            self._inventory,
            estimate_mb,
            self._residency.smallest_assignment_now,
            models,
        )

    def find_place(self, need: MemoryNeed) -> Assignment | None:
        """Return a place for the next trial; None while there is none."""
        return self._find_place_beside(self.other_claims, need)

    def _find_place_beside(
        self, others: Sequence[Assignment], need: MemoryNeed
    ) -> Assignment | None:
        """Return a place beside the trials and the model of this study, and others' claims."""
        others = [*others, self._residency.reserved_assignment]
        where = self._task.resources, self._inventory, self.assignments
        return placement.place_trial(*where, need=need, others=others)

    def _find_place_alone(self, need: MemoryNeed, inventory: Inventory) -> Assignment | None:
        """Return a place beside nothing but the least that the model can ever hold."""
        least = self._residency.smallest_assignment
        return placement.place_trial(self._task.resources, inventory, [], need=need, others=[least])

    def claim_place(self, number: int, need: MemoryNeed) -> Assignment | None:
        """Claim a place for a trial; None while there is none, or while it is another's turn."""
        if self._broker is None:
            return self.find_place(need)
        self.blocked_by = "turn"
        wanted = self._find_place_alone(need, self._inventory)
        return self._broker.claim(
            str(number),
            wanted or Assignment(self._task.resources.cpus),
            lambda others: self._find_place_beside(others, need),
        )

    def request_turn(self, need: MemoryNeed) -> None:
        """Tell the broker that this study would start a trial, were it not for other studies."""
        if self._broker is None or self._find_place_beside([], need) is None:
            return
        blocked_by = self.blocked_by
        if self.claim_place(-1, need) is not None:  # freed meanwhile: the loop's next turn has it
            self._broker.release("-1")
        self.blocked_by = blocked_by

    def claim_model_memory(self) -> bool:
        """Claim the memory that the model's server needs to be awake; False while not free."""
        wanted = self._residency.resident_assignment
        if self._broker is None:
            return placement.fits_in_memory(self._inventory, self.assignments, wanted)

        def take(others: Sequence[Assignment]) -> Assignment | None:
            has_room = placement.fits_in_memory(
                self._inventory, [*self.assignments, *others], wanted
            )
            return wanted if has_room else None

        return self._broker.claim(MODEL_CLAIM, wanted, take) is not None

    def update_model_claim(self) -> None:
        """Tell the broker what the model's server holds now, where that has changed."""
        holding = self._residency.current_assignment
        if not self._residency.shares_memory:  # what was claimed before it was loaded stays
            return
        if self._broker is not None and holding != self._model_claim:
            self._model_claim = holding
            self._broker.update_claim(MODEL_CLAIM, holding)

    def why_impossible(self, need: MemoryNeed) -> str | None:
        """Return why a trial can never run here, whatever the model's server does; None if it can.

        Only memory can be the reason: its share of devices fits, or the task would not have been
        accepted. What other programs hold does not count, since they may end.
        """
        return self._describe_too_large(need, self._inventory.without_foreign)

    def update_blocked_by(self, need: MemoryNeed) -> str | None:
        """Find out what a trial without a place waits for; return a sentence to publish, if any.

        A wait for other programs is reported each time it begins. A wait for other studies, whose
        trials come and go, is reported once per run.
        """
        self.blocked_by = self._find_shortage(need)
        if not self._reported_lack and (why := self._describe_too_large(need, self._inventory)):
            self._reported_lack = True
            return f"a trial waits until other programs free memory: {why}"
        if self.blocked_by == "memory" or self.blocked_by in self._reported_waits:
            return None
        self._reported_waits.add(self.blocked_by)
        return f"a trial waits for {WAIT_TEXTS[self.blocked_by]}"

    def _find_shortage(self, need: MemoryNeed) -> WaitCause:
        """Return what is short for a trial: CPUs or GPUs where others have them, else memory."""
        if not (others := self.other_claims):
            return "memory"

        without_cpus = [dataclasses.replace(held, cpus=0.0) for held in others]
        if self._find_place_beside(without_cpus, need) is not None:
            return "cpus"
        without_both = [dataclasses.replace(held, gpu_share=0.0) for held in without_cpus]
        return "memory" if self._find_place_beside(without_both, need) is None else "gpus"

    def _describe_too_large(self, need: MemoryNeed, inventory: Inventory) -> str | None:
        if self._find_place_alone(need, inventory) is not None:
            return None
        return placement.describe_too_large(inventory, need, self._residency.smallest_assignment)

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
        self._reported_lack = False
        self.blocked_by = None
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
                if self._broker is not None:
                    self._broker.release(str(number))
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
