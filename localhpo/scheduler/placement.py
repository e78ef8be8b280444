"""Where the next trial goes: pure functions on what there is and what is held.

Rules: at most `parallel` trials at once; CPUs and memory are reserved per trial (memory only
where the task limits it); whole GPUs belong to one trial; a fraction shares a device, and
trials are spread over the devices with the most room. A task without `gpus` sees the devices
that it would see without LocalHPO.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from localhpo.errors import TaskError
from localhpo.task import Resources

_ROUNDING = 1e-9  # three thirds of a device are one device


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device."""

    id: str
    """What `CUDA_VISIBLE_DEVICES` calls it: an index, or a UUID."""
    name: str = ""
    """The model; empty where it is not known."""
    memory_mb: float | None = None
    """In all; None where it is not known."""
    foreign_mb: float = 0.0
    """Held by processes that are not ours."""

    @property
    def usable_mb(self) -> float | None:
        """Memory that trials and the model may share; None where it is not known."""
        return None if self.memory_mb is None else max(0.0, self.memory_mb - self.foreign_mb)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What trials may use of this machine."""

    cpus: int
    memory_mb: float | None = None
    """None where it is not known, and so does not bound anything."""
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one running trial holds."""

    cpus: float
    memory_mb: float = 0.0
    gpus: tuple[str, ...] = ()
    """Ids of the devices."""
    gpu_share: float = 1.0
    """Of each of its devices."""

    @property
    def gpu_total(self) -> float:
        """Devices held, as a number: what GPU minutes are counted in."""
        return len(self.gpus) * self.gpu_share


def place(
    resources: Resources, inventory: Inventory, held: Sequence[Assignment]
) -> Assignment | None:
    """Return what the next trial gets; None while it has to wait."""
    memory_mb = resources.memory_mb or 0.0
    if len(held) >= resources.parallel:
        return None
    if sum(a.cpus for a in held) + resources.cpus > inventory.cpus + _ROUNDING:
        return None
    if (
        inventory.memory_mb is not None
        and sum(a.memory_mb for a in held) + memory_mb > inventory.memory_mb
    ):
        return None
    share = min(resources.gpus, 1.0)
    free = _free(inventory, held)
    open_gpus = sorted(
        (gpu for gpu in free if free[gpu] + _ROUNDING >= share), key=lambda gpu: -free[gpu]
    )
    count = math.ceil(resources.gpus)
    if len(open_gpus) < count:
        return None
    return Assignment(resources.cpus, memory_mb, tuple(open_gpus[:count]), share)


def slots(resources: Resources, inventory: Inventory) -> int:
    """Return how many trials run at once on an otherwise idle machine."""
    held: list[Assignment] = []
    while (assignment := place(resources, inventory, held)) is not None:
        held.append(assignment)
    return len(held)


def check(resources: Resources, inventory: Inventory) -> None:
    """Refuse a task whose trials can never run here.

    Raises:
        TaskError: with what there is, and what to change.
    """
    if resources.gpus > 1 and resources.gpus != int(resources.gpus):
        raise TaskError(
            f"[resources] gpus must be a fraction below 1 or a whole number, got {resources.gpus:g}"
        )
    wants: list[tuple[str, float, float]] = [
        ("gpus", resources.gpus, len(inventory.gpus)),
        ("cpus", resources.cpus, inventory.cpus),
    ]
    if inventory.memory_mb is not None:
        wants.append(("memory_mb", resources.memory_mb or 0.0, math.floor(inventory.memory_mb)))
    for key, wanted, there in wants:
        if wanted > there:
            raise TaskError(
                f"[resources] {key} = {wanted:g} per trial, but this machine offers {there:g}",
                hint=_remedy(key, there),
            )


def environment(assignment: Assignment, user: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep a trial within its assignment.

    `CUDA_VISIBLE_DEVICES` names the devices granted; it is left alone where there are none.
    `OMP_NUM_THREADS` is `cpus` rounded down, as Ray and torchrun do, because threads beyond
    the cores that are free slow all trials down manyfold; a value in `user`, the environment
    that the user or the task set, is respected.
    """
    env = {}
    if "OMP_NUM_THREADS" not in user:
        env["OMP_NUM_THREADS"] = str(max(1, math.floor(assignment.cpus)))
    if assignment.gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(assignment.gpus)
    return env


def _free(inventory: Inventory, held: Sequence[Assignment]) -> dict[str, float]:
    """Return the free share of each device, in the order of the inventory."""
    free = {gpu.id: 1.0 for gpu in inventory.gpus}
    for assignment in held:
        for gpu in assignment.gpus:
            free[gpu] -= assignment.gpu_share
    return free


def _remedy(key: str, there: float) -> str:
    if there == 0:
        return f"set [resources] {key} = 0; `localhpo doctor` shows which devices are found"
    return f"set [resources] {key} to {there:g} or less"
