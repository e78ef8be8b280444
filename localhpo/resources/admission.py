"""Checks whether a task can run on this machine at all, before anything is written."""

from __future__ import annotations

import math
import os

from localhpo.errors import TaskError
from localhpo.objective import MEASURED_ON_DEVICES
from localhpo.resources.inventory import find_inventory
from localhpo.resources.placement import Inventory
from localhpo.task import Budget, Resources, Task


def admit_task(task: Task, inventory: Inventory | None = None) -> Inventory:
    """Return what the trials of a task may use; by default of this machine.

    Raises:
        TaskError: a trial of this task can never run here, or the budget has no effect.
    """
    inventory = inventory or find_inventory({**os.environ, **task.env})
    check_budget(task.budget, task.resources)
    check_resources(task.resources, inventory)
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


def check_budget(budget: Budget, resources: Resources) -> None:
    """Check that every part of a budget has an effect.

    Raises:
        TaskError: one has none; the hint says what to change.
    """
    if budget.gpu_minutes is not None and resources.gpus == 0:
        raise TaskError(
            "[budget] gpu_minutes has no effect: trials use no GPU ([resources] gpus = 0)",
            hint="set [resources] gpus, or limit the study by trials or minutes",
        )


def check_resources(resources: Resources, inventory: Inventory) -> None:
    """Refuse a task whose trials can never run here.

    Raises:
        TaskError: says what the machine has, and what to change.
    """
    if resources.gpus > 1 and resources.gpus != int(resources.gpus):
        raise TaskError(
            f"[resources] gpus must be a fraction below 1 or a whole number, got {resources.gpus:g}"
        )
    needs: list[tuple[str, float, float]] = [
        ("gpus", resources.gpus, len(inventory.gpus)),
        ("cpus", resources.cpus, inventory.cpus),
    ]
    if resources.gpus and (largest_mb := _largest_mb(resources, inventory)) is not None:
        needs.append(("gpu_memory_mb", resources.gpu_memory_mb or 0.0, math.floor(largest_mb)))
    if inventory.memory_mb is not None:
        needs.append(("memory_mb", resources.memory_mb or 0.0, math.floor(inventory.memory_mb)))
    for key, wanted, there in needs:
        if wanted > there:
            raise TaskError(
                f"[resources] {key} = {wanted:g} per trial, but this machine offers {there:g}",
                hint=_hint(key, there),
            )


def _largest_mb(resources: Resources, inventory: Inventory) -> float | None:
    """Return the most memory that each device of a trial can have; None where it is not known.

    Memory that other programs hold counts as free: they may end.
    """
    sizes = [math.inf if gpu.memory_mb is None else gpu.memory_mb for gpu in inventory.gpus]
    largest = sorted(sizes, reverse=True)[: math.ceil(resources.gpus)]
    return min(largest) if largest and math.isfinite(largest[-1]) else None


def _hint(key: str, there: float) -> str:
    if there == 0:
        return f"set [resources] {key} = 0; `localhpo doctor` shows which devices are found"
    return f"set [resources] {key} to {there:g} or less"
