"""Resources for a training at the lowest priority: it gives way to studies that wait."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from localhpo.resources import placement
from localhpo.resources.broker import ResourceBroker
from localhpo.resources.placement import Assignment, Inventory
from localhpo.task import Resources

NAME = "finetune"
PRIORITY = 1e-3
"""Priority of a training; that of a study is 1 by default."""

_KEY = "training"
_POLL_S = 2.0
"""Seconds between two requests to the resource broker."""
_RECENT_S = 10.0
"""Age in seconds of a request beyond which its study is taken for suspended."""


class LowPriorityClaim:
    """Claims one GPU, or CPUs where there is none, for a training; released by `close`.

    Args:
        inventory: The resources of this machine.
        threads: CPU threads of the training.
        report: Called with a message when the training waits, and when it continues.
    """

    def __init__(
        self, inventory: Inventory, *, threads: int, report: Callable[[str], None] = lambda _: None
    ) -> None:
        self._inventory = inventory
        self._broker = ResourceBroker(NAME, inventory, priority=PRIORITY)
        # A claim for more CPUs than there are would wait forever.
        cpus, gpus = min(threads, inventory.cpus), 1 if inventory.gpus else 0
        self._resources = Resources(cpus=float(cpus), gpus=float(gpus))
        self._report = report
        self._checked_at = 0.0

    def take(self) -> Assignment:
        """Wait until resources are free that no study waits for; return the assignment."""
        has_waited = False
        while (assignment := self._claim()) is None:
            if not has_waited:
                self._report("waiting: studies use the resources of this machine")
            has_waited = True
            time.sleep(_POLL_S)
        if has_waited:
            self._report("resources are free: training continues")
        return assignment

    def give_way(self) -> None:
        """Release the resources while a study waits; call this between the steps of a training."""
        now = time.monotonic()
        if now - self._checked_at < _POLL_S:
            return
        self._checked_at = now
        if self._is_wanted():
            self._broker.release(_KEY)
            time.sleep(_POLL_S)
            self.take()

    def close(self) -> None:
        """Release the resources."""
        self._broker.close()

    def _claim(self) -> Assignment | None:
        wish = placement.place_trial(self._resources, self._inventory, []) or Assignment(cpus=1.0)
        return self._broker.claim(_KEY, wish, self._place)

    def _place(self, others: Sequence[Assignment]) -> Assignment | None:
        return placement.place_trial(self._resources, self._inventory, [], others=others)

    def _is_wanted(self) -> bool:
        now = time.time()
        return any(
            entry.request is not None and now - entry.asked_at <= _RECENT_S
            for entry in self._broker.read_entries()
            if entry.pid != os.getpid()
        )
