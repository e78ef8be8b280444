"""Whether a task can be run on this machine at all: asked before anything is written."""

from __future__ import annotations

import os

from localhpo.scheduler import budget, placement
from localhpo.scheduler.devices import find_inventory
from localhpo.scheduler.placement import Inventory
from localhpo.task import Task


def admit(task: Task, inventory: Inventory | None = None) -> Inventory:
    """Return what the trials of a task may use; this machine by default.

    Raises:
        TaskError: a trial of this task can never run here, or its budget cannot bound it.
    """
    inventory = inventory or find_inventory({**os.environ, **task.env})
    budget.check(task.budget, task.resources)
    placement.check(task.resources, inventory)
    return inventory
