"""Finds places for the trials of a study, beside its model and what others hold there.

`resources.placement` has the rules; this asks what is held now, claims places from the resource
broker, and says what a trial without a place waits for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from localhpo.resources import placement
from localhpo.resources.broker import MODEL_CLAIM
from localhpo.resources.placement import Assignment, Inventory, MemoryNeed
from localhpo.scheduler.model_residency import ModelResidency
from localhpo.scheduler.running_trials import ExecutionTarget, RunningTrials
from localhpo.store.records import WAIT_TEXTS, WaitCause
from localhpo.task import Task
from localhpo.trial import Config

_REFRESH_S = 3.0
"""Between two readings of what other programs hold of the devices."""


class TrialPlacement:
    """Places the trials of a study where they run."""

    def __init__(
        self,
        task: Task,
        target: ExecutionTarget,
        running: RunningTrials,
        residency: ModelResidency,
    ) -> None:
        self._task = task
        self._target = target
        self._running = running
        self._residency = residency
        self._inventory = target.inventory
        self._broker = target.broker
        self._model_claim: Assignment | None = None
        self._refreshed_at = -math.inf
        self._reported_lack = False
        self._reported_waits: set[WaitCause] = set()
        self.blocked_by: WaitCause | None = None
        """What the next trial waits for; None where that is unknown."""

    @property
    def other_claims(self) -> list[Assignment]:
        """What other studies hold of the machine."""
        return [] if self._broker is None else self._broker.read_other_claims()

    def refresh_inventory(self) -> bool:
        """Read again what other programs hold of the devices; return whether that has changed."""
        inventory, now = self._inventory, self._target.clock.monotonic()
        if inventory.refresh is None or now - self._refreshed_at < _REFRESH_S:
            return False
        self._refreshed_at = now
        ours = [*self._running.assignments, *self.other_claims, self._residency.current_assignment]
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
        where = self._task.resources, self._inventory, self._running.assignments
        return placement.place_trial(*where, need=need, others=others)

    def _find_place_alone(self, need: MemoryNeed, inventory: Inventory) -> Assignment | None:
        """Return a place beside nothing but the least that the model can ever hold."""
        least = self._residency.smallest_assignment
        return placement.place_trial(self._task.resources, inventory, [], need=need, others=[least])

    def claim_place(self, number: int, need: MemoryNeed) -> Assignment | None:
        """Claim a place for a trial; None while there is none, or while it is another's turn."""
        place = self._claim(str(number), need)
        if place is not None:
            self._reported_lack, self.blocked_by = False, None
        return place

    def _claim(self, key: str, need: MemoryNeed) -> Assignment | None:
        if self._broker is None:
            return self.find_place(need)
        self.blocked_by = "turn"
        wanted = self._find_place_alone(need, self._inventory)
        return self._broker.claim(
            key,
            wanted or Assignment(self._task.resources.cpus),
            lambda others: self._find_place_beside(others, need),
        )

    def request_turn(self, need: MemoryNeed) -> None:
        """Tell the broker that this study would start a trial, were it not for other studies."""
        if self._broker is None or self._find_place_beside([], need) is None:
            return
        blocked_by = self.blocked_by
        if self._claim("-1", need) is not None:  # freed meanwhile: the loop's next turn has it
            self._broker.release("-1")
        self.blocked_by = blocked_by

    def release(self, number: int) -> None:
        """Give back the place of a trial that has ended."""
        if self._broker is not None:
            self._broker.release(str(number))

    def claim_model_memory(self) -> bool:
        """Claim the memory that the model's server needs to be awake; False while not free."""
        wanted = self._residency.resident_assignment
        if self._broker is None:
            return placement.fits_in_memory(self._inventory, self._running.assignments, wanted)

        def take(others: Sequence[Assignment]) -> Assignment | None:
            has_room = placement.fits_in_memory(
                self._inventory, [*self._running.assignments, *others], wanted
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
