"""Placement of trials on CPUs, memory and GPUs: pure functions of the inventory and what is held.

Rules: at most `parallel` trials at once; CPUs and memory are reserved per trial (memory only
where the task limits it, or an estimate is known); a whole GPU belongs to one trial; trials that
need a fraction share a device, and are spread over the devices with the most free memory. A task
without `gpus` sees the devices that it would see without LocalHPO. An exclusive trial gets a whole
device, or the whole host, whatever its share: all that models leave there, and no other trial joins
it.

The model and the trials of other studies (`others`) count like the study's own trials, and a device
never holds more than its memory. What other programs hold (`Gpu.foreign_mb`) limits what is placed
now, not what can ever be placed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from localhpo.task import Resources

_ROUNDING = 1e-9  # three thirds of a device are one device

_MIN_EXCLUSIVE_SHARE = 0.5
"""Share of a device's memory, 0 to 1, that must be free for an exclusive trial, whose need is
not known."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one MIG slice of a GPU."""

    id: str
    """Name in `CUDA_VISIBLE_DEVICES`: the UUID, or the index where no UUID is known."""
    name: str = ""
    """Name of the product; empty where it is not known."""
    memory_mb: float | None = None
    """Total memory; None where it is not known."""
    foreign_mb: float = 0.0
    """Memory held by processes that LocalHPO did not start."""
    label: str = ""
    """Name shown to people; empty where it is the id."""

    @property
    def usable_mb(self) -> float | None:
        """Memory that trials and models may use; None where it is not known."""
        return None if self.memory_mb is None else max(0.0, self.memory_mb - self.foreign_mb)


@dataclass(frozen=True, slots=True)
class MachinePartition:
    """CPUs and memory group that a process may use: two jobs on one machine may differ in both."""

    processors: tuple[int, ...] = ()
    """Numbers of the CPUs; empty where they are not known."""
    cgroup: str = ""
    """Memory cgroup of the process; empty where it is not known."""
    limited: str = ""
    """Cgroup whose memory limit binds: that one or one above it; empty where there is no limit."""

    def overlap(self, assignment: Assignment, other: MachinePartition) -> Assignment:
        """Return what an assignment in another partition takes of this one."""
        other_cpus = bool(self.processors and other.processors)
        other_cpus = other_cpus and set(self.processors).isdisjoint(other.processors)
        above = self.limited.rstrip("/") + "/"
        other_memory = bool(self.limited and other.cgroup)
        other_memory = other_memory and not f"{other.cgroup.rstrip('/')}/".startswith(above)
        return dataclasses.replace(
            assignment,
            cpus=0.0 if other_cpus else assignment.cpus,
            memory_mb=0.0 if other_memory else assignment.memory_mb,
        )


RefreshGpus = Callable[[Sequence[Gpu], Collection[str]], tuple[Gpu, ...]]
"""From devices, and the ids of those on which this study runs something, to the same devices with
the memory that other programs hold now."""


@dataclass(slots=True)
class Inventory:
    """CPUs, memory and GPUs that trials may use.

    All parts of a study share one inventory. Only `gpus` changes: it is replaced when other
    programs take or free device memory (`RunningTrials.refresh_inventory`).
    """

    cpus: int
    memory_mb: float | None = None
    """Host memory; None where it is not known, and so limits nothing."""
    gpus: tuple[Gpu, ...] = ()
    partition: MachinePartition = MachinePartition()
    """Part of the machine that these CPUs and this memory are."""
    warnings: tuple[str, ...] = ()
    """Sentences for the user about devices that cannot be used."""
    refresh: RefreshGpus | None = field(default=None, compare=False, repr=False)
    """Reads the devices again; None where what others hold never changes, or is not known."""

    @property
    def without_foreign(self) -> Inventory:
        """The inventory as it would be if other programs held no device memory."""
        gpus = tuple(dataclasses.replace(gpu, foreign_mb=0.0) for gpu in self.gpus)
        return dataclasses.replace(self, gpus=gpus)


@dataclass(frozen=True, slots=True)
class Assignment:
    """Resources that one running trial, or the model, holds."""

    cpus: float
    memory_mb: float = 0.0
    """Host memory."""
    gpus: tuple[str, ...] = ()
    """Ids of the devices."""
    gpu_share: float = 1.0
    """Share of each of its devices, 0 to 1."""
    gpu_memory_mb: float = 0.0
    """Memory of each of its devices; 0 where it is not known."""

    @property
    def gpu_total(self) -> float:
        """Number of devices held, in fractions: GPU minutes are this times minutes."""
        return len(self.gpus) * self.gpu_share


@dataclass(frozen=True)
class MemoryNeed:
    """Memory that one trial needs."""

    memory_mb: float = 0.0
    """Host memory."""
    gpu_memory_mb: Mapping[str, float] = field(default_factory=dict)
    """Device memory by device id, for each device that it may get; 0 for an id that is absent."""
    exclusive: bool = False
    """Whether the trial must be the only one on its device, or on the host."""

    def __hash__(self) -> int:
        return hash((self.memory_mb, self.exclusive, *self.gpu_memory_mb.items()))


def compute_memory_need(
    resources: Resources,
    inventory: Inventory,
    estimate_mb: float | None,
    model: Assignment | None = None,
    other_models: Sequence[Assignment] = (),
) -> MemoryNeed:
    """Return the memory that a trial needs.

    The estimate is of the memory of each device, or of the host where trials hold no device.
    Without one, a trial that holds a share of a device needs that share of its memory, after what
    the model never gives up. It needs at least 1 MB, so that it waits where nothing is free.

    Args:
        resources: What the task declares.
        inventory: Resources of the machine.
        estimate_mb: Peak of this very trial; None where it is not known, infinity for an exclusive
            trial.
        model: What the model of this study holds at the least.
        other_models: What models of other studies hold; an exclusive trial runs beside them.
    """
    models = [] if model is None else [model]
    exclusive = estimate_mb == math.inf
    if resources.gpus == 0:
        if exclusive:
            return MemoryNeed(_free_host_mb(inventory, [*models, *other_models]), exclusive=True)
        return MemoryNeed(memory_mb=resources.memory_mb or estimate_mb or 0.0)
    free_mb = _free_gpu_mb(inventory, models)
    if exclusive:
        most_mb = _free_gpu_mb(inventory.without_foreign, models)
        left_mb = _free_gpu_mb(inventory, [*models, *other_models])
        by_gpu = {
            id: max(1.0, mb, _MIN_EXCLUSIVE_SHARE * most_mb[id]) for id, mb in left_mb.items()
        }
        return MemoryNeed(resources.memory_mb or 0.0, by_gpu, exclusive=True)
    share = min(resources.gpus, 1.0)
    known = resources.gpu_memory_mb if estimate_mb is None else estimate_mb
    by_gpu = {id: max(1.0, share * mb) if known is None else known for id, mb in free_mb.items()}
    return MemoryNeed(resources.memory_mb or 0.0, by_gpu)


def place_trial(
    resources: Resources,
    inventory: Inventory,
    held: Sequence[Assignment],
    *,
    need: MemoryNeed | None = None,
    others: Sequence[Assignment] = (),
) -> Assignment | None:
    """Return what the next trial gets; None while it has to wait.

    Args:
        resources: What the task declares.
        inventory: Resources of the machine.
        held: What the running trials of this study hold.
        need: Memory that the trial needs; what the task declares by default.
        others: What the model and other studies hold.
    """
    need = need or MemoryNeed(memory_mb=resources.memory_mb or 0.0)
    if len(held) >= resources.parallel:
        return None
    held = [*held, *others]
    cpus = inventory.cpus if need.exclusive and not resources.gpus else resources.cpus
    if sum(a.cpus for a in held) + cpus > inventory.cpus + _ROUNDING:
        return None
    if (
        inventory.memory_mb is not None
        and sum(a.memory_mb for a in held) + need.memory_mb > inventory.memory_mb
    ):
        return None
    share = 1.0 if need.exclusive else min(resources.gpus, 1.0)
    free_share, free_mb = _free_shares(inventory, held), _free_gpu_mb(inventory, held)
    open_gpus = [
        id
        for id in free_share
        if free_share[id] + _ROUNDING >= share
        and need.gpu_memory_mb.get(id, 0.0) <= free_mb.get(id, math.inf) * (1 + _ROUNDING)
    ]
    open_gpus.sort(key=lambda id: (-free_share[id], -free_mb.get(id, math.inf)))
    count = math.ceil(resources.gpus)
    if len(open_gpus) < count:
        return None
    gpus = tuple(open_gpus[:count])
    gpu_memory_mb = max((need.gpu_memory_mb.get(id, 0.0) for id in gpus), default=0.0)
    return Assignment(cpus, need.memory_mb, gpus, share, gpu_memory_mb)


def describe_too_large(inventory: Inventory, need: MemoryNeed, model: Assignment) -> str:
    """Return a sentence on a trial that needs more memory than any device, or the host, has."""
    free_mb = _free_gpu_mb(inventory, [model])
    if need.gpu_memory_mb and free_mb:
        wanted_mb, most_mb = min(need.gpu_memory_mb.values()), max(free_mb.values())
        where = "GPU memory"
    else:
        wanted_mb, most_mb = need.memory_mb, (inventory.memory_mb or 0.0) - model.memory_mb
        where = "memory"
    held = model.gpu_memory_mb or model.memory_mb
    beside = " beside the model" if held else ""
    unknown = " (reserved because its use is not known; set [resources] gpu_memory_mb)"
    why = unknown if need.exclusive and need.gpu_memory_mb else ""
    return (
        f"it needs {wanted_mb:.0f} MB of {where}{why}; at most {most_mb:.0f} MB can be free{beside}"
    )


def fits_in_memory(inventory: Inventory, held: Sequence[Assignment], wanted: Assignment) -> bool:
    """Return whether the memory that is wanted is free on the host and on each device."""
    free_mb = _free_gpu_mb(inventory, held)
    held_mb = sum(a.memory_mb for a in held)
    if inventory.memory_mb is not None and wanted.memory_mb > inventory.memory_mb - held_mb:
        return False
    return all(wanted.gpu_memory_mb <= free_mb.get(id, math.inf) for id in wanted.gpus)


def make_environment(assignment: Assignment, user: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that keep a trial within its assignment.

    `CUDA_VISIBLE_DEVICES` names the assigned devices; it is not set where there are none. Where it
    names them by index, `CUDA_DEVICE_ORDER` makes CUDA count devices as `nvidia-smi` does.
    `OMP_NUM_THREADS` is `cpus` rounded down, as in Ray and torchrun: more threads than free cores
    slow all trials down several times. Values in `user`, the environment that the user or the task
    set, take precedence.
    """
    env = {}
    if "OMP_NUM_THREADS" not in user:
        env["OMP_NUM_THREADS"] = str(max(1, math.floor(assignment.cpus)))
    if assignment.gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(assignment.gpus)
        if "CUDA_DEVICE_ORDER" not in user and any(id.isdigit() for id in assignment.gpus):
            env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return env


def _free_shares(inventory: Inventory, held: Sequence[Assignment]) -> dict[str, float]:
    """Return the free share of each device, in the order of the inventory."""
    free = {gpu.id: 1.0 for gpu in inventory.gpus}
    for assignment in held:
        for gpu in assignment.gpus:
            if gpu in free:  # another study may see devices that this one does not
                free[gpu] -= assignment.gpu_share
    return free


def _free_gpu_mb(inventory: Inventory, held: Sequence[Assignment]) -> dict[str, float]:
    """Return the free memory of each device, in MB by id, where its size is known."""
    free = {gpu.id: gpu.usable_mb for gpu in inventory.gpus if gpu.usable_mb is not None}
    for assignment in held:
        for gpu in assignment.gpus:
            if gpu in free:
                free[gpu] -= assignment.gpu_memory_mb
    return free


def _free_host_mb(inventory: Inventory, held: Sequence[Assignment]) -> float:
    """Return the free memory of the host; 0 where it is not known."""
    return max(0.0, (inventory.memory_mb or 0.0) - sum(a.memory_mb for a in held))
