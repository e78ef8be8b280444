"""How many trials run at once beside the model's server, by what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from localhpo.scheduler import placement
from localhpo.scheduler.placement import Assignment, Inventory, Need
from localhpo.task import Resources

_COUNTS = 1_000
"""So many answers to how many trials fit are remembered."""


@dataclass(frozen=True, slots=True)
class Room:
    """So many trials at once, for one thing that the server may hold."""

    mean: float
    """Where trials of their sizes start in turn; 0 where one of them never could."""
    most: int
    """Where all are of the smallest size."""


class Rooms:
    """Answers for one task and machine; the same question comes at every turn of the loop."""

    def __init__(self, resources: Resources, inventory: Inventory) -> None:
        """Remember nothing yet."""
        self._resources = resources
        self._inventory = inventory
        self._gpus = inventory.gpus  # that the answers are true of
        self._counts: dict[tuple[object, ...], int] = {}
        self._asked: tuple[object, ...] = ()
        self._rooms: dict[str, Room] = {}

    def count(self, need: Need, others: Sequence[Assignment], server: Assignment) -> int:
        """Return how many trials of one need fit."""
        key = (need, server, *others)
        if self._gpus is not self._inventory.gpus or len(self._counts) > _COUNTS:
            self._counts.clear()
            self._gpus = self._inventory.gpus
        if key not in self._counts:
            self._counts[key] = placement.slots(
                self._resources, self._inventory, need=need, others=[*others, server]
            )
        return self._counts[key]

    def beside(
        self,
        servers: Mapping[str, Assignment],
        needs: Sequence[Need],
        others: Sequence[Assignment],
        least: Assignment,
    ) -> Mapping[str, Room]:
        """Return the room beside each of the things that the server may hold, by its name.

        Args:
            servers: What it may hold.
            needs: Of the last trials; those that can never run do not count.
            others: What other studies hold.
            least: What the server holds at the very least: says what can never run.
        """
        asked = (dict(servers), list(needs), list(others), least, self._inventory.gpus)
        if asked != self._asked:
            able = [n for n in needs if self.count(n, (), least)] or [Need()]
            self._rooms = {
                name: self._room(able, others, server) for name, server in servers.items()
            }
            self._asked = asked
        return self._rooms

    def _room(
        self, needs: Sequence[Need], others: Sequence[Assignment], server: Assignment
    ) -> Room:
        counts = {need: self.count(need, others, server) for need in needs}
        if len(counts) == 1 or 0 in counts.values():
            return Room(float(min(counts.values())), max(counts.values()))
        in_turn = placement.at_once(
            self._resources, self._inventory, needs, others=[*others, server]
        )
        return Room(fmean(in_turn), max(counts.values()))
