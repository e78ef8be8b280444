"""How many trials run at once beside the model, for each amount of memory that it may hold."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from localhpo.resources.placement import Assignment, Inventory, MemoryNeed, place_trial
from localhpo.task import Resources

_CACHE_SIZE = 1_000


def count_slots(
    resources: Resources,
    inventory: Inventory,
    *,
    need: MemoryNeed | None = None,
    others: Sequence[Assignment] = (),
) -> int:
    """Return how many trials of one size run at once, where only `others` hold anything else."""
    held: list[Assignment] = []
    while (a := place_trial(resources, inventory, held, need=need, others=others)) is not None:
        held.append(a)
    return len(held)


def count_concurrent_trials(
    resources: Resources,
    inventory: Inventory,
    needs: Sequence[MemoryNeed],
    *,
    others: Sequence[Assignment] = (),
) -> list[int]:
    """Return how many trials run at once after each start, where trials of these sizes alternate.

    Trials are started in order, again and again, until the machine was full once and each was
    started once more. Where the next one does not fit, the one that has run longest ends.

    Returns:
        One number per trial, or [0] where one of them can never run.
    """
    held: deque[Assignment] = deque()
    counts: list[int] = []
    full = False
    for need in itertools.cycle(needs):
        while (a := place_trial(resources, inventory, held, need=need, others=others)) is None:
            if not held:
                return [0]
            held.popleft()
            full = True
        held.append(a)
        if full:
            counts.append(len(held))
        if len(counts) == len(needs):
            break
    return counts


@dataclass(frozen=True, slots=True)
class TrialSlots:
    """Numbers of trials that run at once."""

    mean: float
    """Where trials of the given sizes start in turn; 0 where one of them never fits."""
    most: int
    """Where all trials have the smallest size."""


class SlotCounter:
    """Counts slots for one task and machine; caches, as each turn of the loop asks the same."""

    def __init__(self, resources: Resources, inventory: Inventory) -> None:
        """Start with an empty cache."""
        self._resources = resources
        self._inventory = inventory
        self._gpus = inventory.gpus  # for which the cache is valid
        self._counts: dict[tuple[MemoryNeed, Assignment], int] = {}
        self._asked: tuple[object, ...] = ()
        self._slots: dict[str, TrialSlots] = {}

    def count(self, need: MemoryNeed, model: Assignment) -> int:
        """Return how many trials of one need run at once beside the model."""
        key = (need, model)
        if self._gpus is not self._inventory.gpus or len(self._counts) > _CACHE_SIZE:
            self._counts.clear()
            self._gpus = self._inventory.gpus
        if key not in self._counts:
            self._counts[key] = count_slots(
                self._resources, self._inventory, need=need, others=[model]
            )
        return self._counts[key]

    def count_beside(
        self,
        models: Mapping[str, Assignment],
        needs: Sequence[MemoryNeed],
        smallest: Assignment,
    ) -> Mapping[str, TrialSlots]:
        """Return the slots beside each assignment of the model, under the same names.

        Args:
            models: What the model may hold, by name.
            needs: Of the last trials; those that can never run are left out.
            smallest: The least that the model can hold, which decides what can never run.
        """
        asked = (dict(models), list(needs), smallest, self._inventory.gpus)
        if asked != self._asked:
            possible = [n for n in needs if self.count(n, smallest)] or [MemoryNeed()]
            self._slots = {
                name: self._count_slots(possible, model) for name, model in models.items()
            }
            self._asked = asked
        return self._slots

    def _count_slots(self, needs: Sequence[MemoryNeed], model: Assignment) -> TrialSlots:
        counts = {need: self.count(need, model) for need in needs}
        if len(counts) == 1 or 0 in counts.values():
            return TrialSlots(float(min(counts.values())), max(counts.values()))
        in_turn = count_concurrent_trials(self._resources, self._inventory, needs, others=[model])
        return TrialSlots(fmean(in_turn), max(counts.values()))
