"""The trials that run now: where each one is placed, since when, and what it was asked."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localhpo.executor.clock import Clock
from localhpo.executor.protocol import Executor, Job, Outcome, Run
from localhpo.scheduler import placement, sharing
from localhpo.scheduler.machine import SERVER, Machine
from localhpo.scheduler.placement import Assignment, Inventory, Need
from localhpo.scheduler.tenancy import Tenancy
from localhpo.store.records import WAITS, Wait
from localhpo.task import Task
from localhpo.trial import Config, Measurement, State, Trial

_OUTLASTS = 2.0
"""One that has run so many times as long as the others did tells that trials got longer."""

_LOOK_S = 3.0
"""Between looks at what others hold of the devices."""

_SOME = 5
"""So many ended trials, and as many as still run, tell how long trials take."""

Estimate = Callable[[Config], float | None]
"""From a configuration to the MB that its trial will take at its peak, of each device (of the
host, where trials hold no device); None where nobody knows, infinity where it is to be alone."""


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
        tenancy: Tenancy,
        estimate: Estimate | None = None,
        machine: Machine | None = None,
    ) -> None:
        """Begin with none; the task was admitted to the inventory."""
        self._task = task
        self._tenancy = tenancy
        self._estimate = estimate
        self._machine = machine
        self._executor = executor
        self._inventory = inventory
        self._clock = clock
        self._trial_folder = trial_folder
        self._active: dict[int, _Active] = {}
        self._ended_gpu_s = 0.0
        self._ended_s: list[float] = []
        self._server_held: Assignment | None = None
        self._looked_at = -math.inf
        self._waits_for_others = False
        self._told: set[Wait] = set()
        self.held_up: Wait | None = None
        """What the trial waits for that is next, as far as that was seen."""

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

    @property
    def trial_s(self) -> float | None:
        """Mean length of the trials seen; None before the first is started.

        Before one has ended, no longer than the one that runs longest: what takes long enough to
        be worth a change will soon have shown it, and a change for trials that turn out to be
        short is lost. Until some have ended, a mean below `SHORTEST_S` is not believed: the short
        ones end first.
        """
        longest_s = max(self.elapsed_s.values(), default=0.0)
        if not self._ended_s:
            return max(longest_s, sharing.SHORTEST_S) if self._active else None
        mean_s = sum(self._ended_s) / len(self._ended_s)
        if len(self._ended_s) < max(_SOME, len(self._active)):
            mean_s = max(mean_s, sharing.SHORTEST_S)
        return longest_s if longest_s > _OUTLASTS * mean_s else mean_s

    @property
    def held(self) -> list[Assignment]:
        """What the running trials hold."""
        return [active.assignment for active in self._active.values()]

    @property
    def ages_s(self) -> list[tuple[Assignment, float]]:
        """What each running trial holds, and how long it has run."""
        now = self._clock.monotonic()
        return [(active.assignment, now - active.started) for active in self._active.values()]

    @property
    def others(self) -> list[Assignment]:
        """What other studies hold."""
        return [] if self._machine is None else self._machine.others

    def look(self) -> bool:
        """Take note of what others hold of the devices now; return whether that has changed."""
        inventory, now = self._inventory, self._clock.monotonic()
        if inventory.look is None or now - self._looked_at < _LOOK_S:
            return False
        self._looked_at = now
        ours = [*self.held, *self.others, self._tenancy.holding]
        gpus = inventory.look(inventory.gpus, {id for held in ours for id in held.gpus})
        if gpus == inventory.gpus:
            return False
        inventory.gpus = gpus
        return True

    def need(self, config: Config | None) -> Need:
        """Return the memory that a trial needs; None for a configuration not known yet."""
        estimate_mb = self._estimate(config) if self._estimate and config is not None else None
        is_alone = estimate_mb == math.inf
        models = self._machine.models if self._machine is not None and is_alone else ()
        return placement.need(
            self._task.resources, self._inventory, estimate_mb, self._tenancy.least, models
        )

    def place(self, need: Need) -> Assignment | None:
        """Return a place for the next trial; None while there is no room."""
        return placement.place(
            self._task.resources,
            self._inventory,
            self.held,
            need=need,
            others=[*self.others, self._tenancy.kept_free],
        )

    def claim(self, number: int, need: Need) -> Assignment | None:
        """Take a place for a trial; None while there is none, or while it is another's turn."""
        if self._machine is None:
            return self.place(need)
        self.held_up = "turn"
        resources, server = self._task.resources, self._tenancy.kept_free
        wish = placement.place(
            resources, self._inventory, [], need=need, others=[self._tenancy.least_ever]
        )
        return self._machine.claim(
            str(number),
            wish or Assignment(resources.cpus),
            lambda others: placement.place(
                resources, self._inventory, self.held, need=need, others=[*others, server]
            ),
        )

    def await_turn(self, need: Need) -> None:
        """Let other studies know that this one would start a trial, were it not for them."""
        room, held_up = [self._tenancy.kept_free], self.held_up
        place = placement.place(
            self._task.resources, self._inventory, self.held, need=need, others=room
        )
        if (
            place is not None
            and self._machine is not None
            and self.claim(-1, need) is not None  # freed since: it is taken at the next turn
        ):
            self._machine.release("-1")
        self.held_up = held_up

    def claim_server(self) -> bool:
        """Take the memory that the model's server needs to be awake; False while it is not free."""
        wanted = self._tenancy.awake_holding
        if self._machine is None:
            return placement.has_room(self._inventory, self.held, wanted)

        def take(others: Sequence[Assignment]) -> Assignment | None:
            has_room = placement.has_room(self._inventory, [*self.held, *others], wanted)
            return wanted if has_room else None

        return self._machine.claim(SERVER, wanted, take) is not None

    def settle_server(self) -> None:
        """Let other studies know what the model's server holds now, where that has changed."""
        holding = self._tenancy.holding
        if not self._tenancy.shares:  # what was claimed before it was loaded stays
            return
        if self._machine is not None and holding != self._server_held:
            self._server_held = holding
            self._machine.hold(SERVER, holding)

    def never(self, need: Need) -> str | None:
        """Return why a trial can never run here, whatever the model's server does; None if it can.

        Its share of devices fits, or the task would not have been admitted: memory is the matter.
        What processes of others hold is waited for: they may leave.
        """
        return self._too_big(need, self._inventory.whole)

    def waits_for_others(self, need: Need) -> str | None:
        """Return a sentence on a trial that only others keep from running.

        Once per wait for other programs; of other studies, whose trials come and go, once a run.
        """
        self.held_up = self._what_is_short(need)
        if not self._waits_for_others and (why := self._too_big(need, self._inventory)):
            self._waits_for_others = True
            return f"a trial waits until other programs leave a device: {why}"
        if self.held_up == "memory" or self.held_up in self._told:
            return None
        self._told.add(self.held_up)
        return f"a trial waits for {WAITS[self.held_up]}"

    def _what_is_short(self, need: Need) -> Wait:
        """Return what a trial waits for that has no place: CPUs or GPUs, where others have them."""
        if not (others := self.others):
            return "memory"

        def has_place(others: Sequence[Assignment]) -> bool:
            room = [*others, self._tenancy.kept_free]
            where = self._task.resources, self._inventory, self.held
            return placement.place(*where, need=need, others=room) is not None

        without_cpus = [dataclasses.replace(held, cpus=0.0) for held in others]
        if has_place(without_cpus):
            return "cpus"
        without_both = [dataclasses.replace(held, gpu_share=0.0) for held in without_cpus]
        return "gpus" if has_place(without_both) else "memory"

    def _too_big(self, need: Need, inventory: Inventory) -> str | None:
        least = self._tenancy.least_ever
        if placement.place(self._task.resources, inventory, [], need=need, others=[least]):
            return None
        return placement.too_big(inventory, need, least)

    def start(self, trial: Trial, assignment: Assignment) -> None:
        """Start a trial.

        Raises:
            ExecutorError: the machine does not let trials be supervised at all.
        """
        task = self._task
        # Alone on the host it computes with as many threads as any other, or it would differ.
        usual = dataclasses.replace(assignment, cpus=task.resources.cpus)
        job = Job(
            task=task,
            number=trial.number,
            config=trial.config,
            seed=trial.seed,
            folder=self._trial_folder(trial.number),
            env=placement.environment(usual, {**os.environ, **task.env}),
            memory_mb=task.resources.memory_mb,
            timeout_s=task.budget.timeout_s,
            grace_s=task.budget.grace_s,
        )
        run = self._executor.start(job)
        self._waits_for_others = False
        self.held_up = None
        self._active[trial.number] = _Active(run, assignment, self._clock.monotonic())

    def poll(self) -> Iterator[Progress]:
        """Yield what is new about each trial; one that ended is let go."""
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
                if self._machine is not None:
                    self._machine.release(str(number))
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
