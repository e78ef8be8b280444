"""Checks whether a task can run on this machine at all, before anything is written."""

from __future__ import annotations

import os

from localhpo.errors import TaskError
from localhpo.objective import MEASURED_ON_DEVICES
from localhpo.resources import placement
from localhpo.resources.inventory import find_inventory
from localhpo.resources.placement import Inventory
from localhpo.scheduler import budget
from localhpo.task import Task


def admit_task(task: Task, inventory: Inventory | None = None) -> Inventory:
    """Return what the trials of a task may use; by default of this machine.

    Raises:
        TaskError: a trial of this task can never run here, or the budget has no effect.
    """
    inventory = inventory or find_inventory({**os.environ, **task.env})
    budget.check_budget(task.budget, task.resources)
    placement.check_resources(task.resources, inventory)
    return inventory


def check_measurable(task: Task, *, measures_energy: bool) -> None:
    """Check that this machine can measure what the objectives and constraints name.

    Args:
        task: The task.
        measures_energy: Whether the energy of trials' devices is measured here.

    Raises:
        TaskError: It cannot; a study would find out only after its first trial.
    """
    named = [("[[objective]]", objective.name) for objective in task.objectives]
    named += [("[[constraint]]", constraint.name) for constraint in task.constraints]
    for section, name in named:
        if name not in MEASURED_ON_DEVICES:
            continue
        if task.resources.gpus == 0:
            raise TaskError(
                f"{section} {name}: must be reported under another name, or trials must hold a "
                "GPU, on which LocalHPO measures it; got [resources] gpus = 0",
                hint="set [resources] gpus to what a trial uses",
            )
        if name == "energy_j" and not measures_energy:
            raise TaskError(
                f"{section} {name}: must be measured by the GPU driver, which reports no energy "
                "on this machine, or cannot be read (NVML)",
                hint="install the extra `gpu` (nvidia-ml-py) where it is missing, or have the "
                "script report the energy under another name",
            )
