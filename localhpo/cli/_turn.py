"""A training as the lowest-priority tenant of the machine: it holds what no study wants."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from localhpo.scheduler import placement
from localhpo.scheduler.machine import Machine
from localhpo.scheduler.placement import Assignment, Inventory
from localhpo.task import Resources

NAME = "finetune"
PRIORITY = 1e-3
"""Of a study it is 1: whoever else waits goes first."""

_KEY = "training"
_LOOK_S = 2.0
"""Between looks at the ledger."""
_RECENT_S = 10.0
"""A study that has not asked for so long was suspended, and keeps nobody waiting."""


class Turn:
    """The part of a training in the ledger of its machine, from construction to `close`.

    Args:
        inventory: what there is.
        threads: of the training.
        tell: is told when it waits, and when it goes on.
    """

    def __init__(
        self, inventory: Inventory, *, threads: int, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self._inventory = inventory
        self._machine = Machine(NAME, inventory, priority=PRIORITY)
        # More threads than there are CPUs would be waited for for ever.
        cpus, gpus = min(threads, inventory.cpus), 1 if inventory.gpus else 0
        self._resources = Resources(cpus=float(cpus), gpus=float(gpus))
        self._tell = tell
        self._looked = 0.0

    def take(self) -> Assignment:
        """Wait until there is room that nobody else wants; return what is held then."""
        waits = False
        while (held := self._claim()) is None:
            if not waits:
                self._tell("waiting: studies hold the machine")
            waits = True
            time.sleep(_LOOK_S)
        if waits:
            self._tell("going on")
        return held

    def give_way(self) -> None:
        """Let a study go first that waits; called between the steps of a training."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        if self._is_wanted():
            self._machine.release(_KEY)
            time.sleep(_LOOK_S)
            self.take()

    def close(self) -> None:
        """Hold nothing."""
        self._machine.close()

    def _claim(self) -> Assignment | None:
        wish = placement.place(self._resources, self._inventory, []) or Assignment(cpus=1.0)
        return self._machine.claim(_KEY, wish, self._place)

    def _place(self, others: Sequence[Assignment]) -> Assignment | None:
        return placement.place(self._resources, self._inventory, [], others=others)

    def _is_wanted(self) -> bool:
        now = time.time()
        return any(
            entry.wish is not None and now - entry.seen <= _RECENT_S
            for entry in self._machine.entries
            if entry.pid != os.getpid()
        )
