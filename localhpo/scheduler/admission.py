"""Checks whether a task can run on this machine at all, before anything is written."""

from __future__ import annotations

import os

from localhpo.scheduler import budget, placement
from localhpo.scheduler.devices import find_inventory
from localhpo.scheduler.placement import Inventory
from localhpo.task import Task


def admit(task: Task, inventory: Inventory | None = None) -> Inventory:
    """Return what the trials of a task may use; by default of this machine.

    Raises:
        TaskError: a trial of this task can never run here, or the budget has no effect.
    """
    inventory = inventory or find_inventory({**os.environ, **task.env})
    budget.check_budget(task.budget, task.resources)
    placement.check_resources(task.resources, inventory)
    return inventory
