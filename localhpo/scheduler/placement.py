"""Where the next trial goes: pure functions on what there is and what is held.

Rules: at most `parallel` trials at once; CPUs and memory are reserved per trial (memory only
where the task limits it, or an estimate is at hand); whole GPUs belong to one trial; a fraction
shares a device, and trials are spread over the devices with the most room. A task without `gpus`
sees the devices that it would see without LocalHPO. A trial that is to be alone gets a whole
device, or all of the host, whatever its share: it has what models leave there, and nobody joins it.

Memory has one ledger: the model's server and the trials of other studies are claims beside the
study's own trials (`others`), and a device takes no more than it has. What other programs hold is
no claim: it bounds what is placed now (`Gpu.foreign_mb`), not what can ever be.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from localhpo.errors import TaskError
from localhpo.task import Resources

_ROUNDING = 1e-9  # three thirds of a device are one device

_WHOLE = 0.5
"""A device of which others leave less than this is not a whole one: a trial of which nobody knows
how much it takes waits for more."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device."""

    id: str
    """What `CUDA_VISIBLE_DEVICES` calls it: its UUID, or an index where nobody tells one."""
    name: str = ""
    """The model; empty where it is not known."""
    memory_mb: float | None = None
    """In all; None where it is not known."""
    foreign_mb: float = 0.0
    """Held by processes that are not ours."""
    label: str = ""
    """What people call it; empty where that is the id."""

    @property
    def usable_mb(self) -> float | None:
        """Memory that trials and the model may share; None where it is not known."""
        return None if self.memory_mb is None else max(0.0, self.memory_mb - self.foreign_mb)


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a machine that a process may use: two jobs of one user may have one each."""

    processors: tuple[int, ...] = ()
    """Numbers of the CPUs; none where they are not known."""
    cgroup: str = ""
    """The group whose memory it takes; empty where it is not known."""
    limited: str = ""
    """The group, that one or one above it, whose limit is its own; empty where there is none."""

    def seen(self, assignment: Assignment, other: Part) -> Assignment:
        """Return what an assignment in another part takes of this one."""
        apart = bool(self.processors and other.processors)
        apart = apart and set(self.processors).isdisjoint(other.processors)
        above = self.limited.rstrip("/") + "/"
        beside = bool(self.limited and other.cgroup)
        beside = beside and not f"{other.cgroup.rstrip('/')}/".startswith(above)
        return dataclasses.replace(
            assignment,
            cpus=0.0 if apart else assignment.cpus,
            memory_mb=0.0 if beside else assignment.memory_mb,
        )


Look = Callable[[Sequence[Gpu], Collection[str]], tuple[Gpu, ...]]
"""From devices, and the ids of those that hold something of ours, to the same devices as they are
now: with what others hold of them."""


@dataclass(slots=True)
class Inventory:
    """What trials may use of this machine.

    One study has one, which all its parts look at: `gpus` is replaced when what others hold of them
    has changed (by `Runs.look`), and nothing else changes.
    """

    cpus: int
    memory_mb: float | None = None
    """None where it is not known, and so does not bound anything."""
    gpus: tuple[Gpu, ...] = ()
    part: Part = Part()
    """Of the machine, that these CPUs and this memory are."""
    warnings: tuple[str, ...] = ()
    """On what is there and cannot be used: sentences for the user."""
    look: Look | None = field(default=None, compare=False, repr=False)
    """Looks at the devices again; None where what others hold never changes, or is not known."""

    @property
    def whole(self) -> Inventory:
        """What there would be, were it not for others."""
        gpus = tuple(dataclasses.replace(gpu, foreign_mb=0.0) for gpu in self.gpus)
        return dataclasses.replace(self, gpus=gpus)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one running trial, or the model's server, holds."""

    cpus: float
    memory_mb: float = 0.0
    gpus: tuple[str, ...] = ()
    """Ids of the devices."""
    gpu_share: float = 1.0
    """Of each of its devices."""
    gpu_memory_mb: float = 0.0
    """Of each of its devices; 0 where nobody knows."""

    @property
    def gpu_total(self) -> float:
        """Devices held, as a number: what GPU minutes are counted in."""
        return len(self.gpus) * self.gpu_share


@dataclass(frozen=True)
class Need:
    """The memory that one trial takes."""

    memory_mb: float = 0.0
    """Of the host."""
    gpu_memory_mb: Mapping[str, float] = field(default_factory=dict)
    """Of each device it may get, by id; a device that is not named is asked for none."""
    alone: bool = False
    """Whether no other trial is to be where it is."""

    def __hash__(self) -> int:
        return hash((self.memory_mb, self.alone, *self.gpu_memory_mb.items()))


def need(
    resources: Resources,
    inventory: Inventory,
    estimate_mb: float | None,
    server: Assignment | None = None,
    models: Sequence[Assignment] = (),
) -> Need:
    """Return what a trial needs.

    The estimate is of the memory of each device, or of the host where trials hold no device.
    Without one, a trial needs the share of a device's memory that it holds of the device; of a
    device that the server never leaves for good, the share of the rest. Of one where nothing is
    left it needs something, and so waits.

    Args:
        resources: What the task declares.
        inventory: What there is.
        estimate_mb: Peak of this very trial; None where nobody knows, infinity where it is to be
            alone.
        server: What the server holds at the least.
        models: What those of other studies hold, beside which it may be alone.
    """
    servers = [] if server is None else [server]
    alone = estimate_mb == math.inf
    if resources.gpus == 0:
        if alone:
            return Need(_left_mb(inventory, [*servers, *models]), alone=True)
        return Need(memory_mb=resources.memory_mb or estimate_mb or 0.0)
    free_mb = _free_mb(inventory, servers)
    if alone:
        most_mb = _free_mb(inventory.whole, servers)
        left_mb = _free_mb(inventory, [*servers, *models])
        by_gpu = {id: max(1.0, mb, _WHOLE * most_mb[id]) for id, mb in left_mb.items()}
        return Need(resources.memory_mb or 0.0, by_gpu, alone=True)
    share = min(resources.gpus, 1.0)
    known = resources.gpu_memory_mb if estimate_mb is None else estimate_mb
    by_gpu = {id: max(1.0, share * mb) if known is None else known for id, mb in free_mb.items()}
    return Need(resources.memory_mb or 0.0, by_gpu)


def place(
    resources: Resources,
    inventory: Inventory,
    held: Sequence[Assignment],
    *,
    need: Need | None = None,
    others: Sequence[Assignment] = (),
) -> Assignment | None:
    """Return what the next trial gets; None while it has to wait.

    Args:
        resources: What the task declares.
        inventory: What there is.
        held: What the running trials of this study hold.
        need: Of memory; what the task declares by default.
        others: What anybody else holds.
    """
    need = need or Need(memory_mb=resources.memory_mb or 0.0)
    if len(held) >= resources.parallel:
        return None
    held = [*held, *others]
    cpus = inventory.cpus if need.alone and not resources.gpus else resources.cpus
    if sum(a.cpus for a in held) + cpus > inventory.cpus + _ROUNDING:
        return None
    if (
        inventory.memory_mb is not None
        and sum(a.memory_mb for a in held) + need.memory_mb > inventory.memory_mb
    ):
        return None
    share = 1.0 if need.alone else min(resources.gpus, 1.0)
    free, free_mb = _free(inventory, held), _free_mb(inventory, held)
    open_gpus = [
        id
        for id in free
        if free[id] + _ROUNDING >= share
        and need.gpu_memory_mb.get(id, 0.0) <= free_mb.get(id, math.inf) * (1 + _ROUNDING)
    ]
    open_gpus.sort(key=lambda id: (-free[id], -free_mb.get(id, math.inf)))
    count = math.ceil(resources.gpus)
    if len(open_gpus) < count:
        return None
    gpus = tuple(open_gpus[:count])
    gpu_memory_mb = max((need.gpu_memory_mb.get(id, 0.0) for id in gpus), default=0.0)
    return Assignment(cpus, need.memory_mb, gpus, share, gpu_memory_mb)


def slots(
    resources: Resources,
    inventory: Inventory,
    *,
    need: Need | None = None,
    others: Sequence[Assignment] = (),
) -> int:
    """Return how many trials run at once on a machine that only `others` use besides."""
    held: list[Assignment] = []
    while (a := place(resources, inventory, held, need=need, others=others)) is not None:
        held.append(a)
    return len(held)


def at_once(
    resources: Resources,
    inventory: Inventory,
    needs: Sequence[Need],
    *,
    others: Sequence[Assignment] = (),
) -> list[int]:
    """Return how many trials run at once after each start, where such trials are started in turn.

    They begin again where they end, until the machine was full and each was started once more;
    where there is no room for the next one, the one that has run longest ends.

    Returns:
        As many numbers as there are trials; none but 0 where one of them can never run.
    """
    held: deque[Assignment] = deque()
    counts: list[int] = []
    full = False
    for need in itertools.cycle(needs):
        while (a := place(resources, inventory, held, need=need, others=others)) is None:
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


def too_big(inventory: Inventory, need: Need, server: Assignment) -> str:
    """Return the sentence on a trial whose memory is more than any device, or the host, has."""
    free_mb = _free_mb(inventory, [server])
    if need.gpu_memory_mb and free_mb:
        wanted_mb, most_mb = min(need.gpu_memory_mb.values()), max(free_mb.values())
        where = "of a device"
    else:
        wanted_mb, most_mb = need.memory_mb, (inventory.memory_mb or 0.0) - server.memory_mb
        where = "of the host"
    held = server.gpu_memory_mb or server.memory_mb
    beside = " beside the model" if held else ""
    unknown = ", as nobody knows how much it takes (gpu_memory_mb would say)"
    why = unknown if need.alone and need.gpu_memory_mb else ""
    return (
        f"it needs {wanted_mb:.0f} MB {where}{why}, and at most {most_mb:.0f} can be free{beside}"
    )


def has_room(inventory: Inventory, held: Sequence[Assignment], wanted: Assignment) -> bool:
    """Return whether the memory that is wanted is free: of the host, and of each device."""
    free_mb = _free_mb(inventory, held)
    held_mb = sum(a.memory_mb for a in held)
    if inventory.memory_mb is not None and wanted.memory_mb > inventory.memory_mb - held_mb:
        return False
    return all(wanted.gpu_memory_mb <= free_mb.get(id, math.inf) for id in wanted.gpus)


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
    if resources.gpus and (largest_mb := _largest_mb(resources, inventory)) is not None:
        wants.append(("gpu_memory_mb", resources.gpu_memory_mb or 0.0, math.floor(largest_mb)))
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

    `CUDA_VISIBLE_DEVICES` names the devices granted; it is left alone where there are none. Where
    it names them by index, `CUDA_DEVICE_ORDER` has that mean what it means to `nvidia-smi`.
    `OMP_NUM_THREADS` is `cpus` rounded down, as Ray and torchrun do, because threads beyond
    the cores that are free slow all trials down manyfold; a value in `user`, the environment
    that the user or the task set, is respected.
    """
    env = {}
    if "OMP_NUM_THREADS" not in user:
        env["OMP_NUM_THREADS"] = str(max(1, math.floor(assignment.cpus)))
    if assignment.gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(assignment.gpus)
        if "CUDA_DEVICE_ORDER" not in user and any(id.isdigit() for id in assignment.gpus):
            env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return env


def _free(inventory: Inventory, held: Sequence[Assignment]) -> dict[str, float]:
    """Return the free share of each device, in the order of the inventory."""
    free = {gpu.id: 1.0 for gpu in inventory.gpus}
    for assignment in held:
        for gpu in assignment.gpus:
            if gpu in free:  # another study may see devices that this one does not
                free[gpu] -= assignment.gpu_share
    return free


def _free_mb(inventory: Inventory, held: Sequence[Assignment]) -> dict[str, float]:
    """Return the free memory of each device whose memory is known."""
    free = {gpu.id: gpu.usable_mb for gpu in inventory.gpus if gpu.usable_mb is not None}
    for assignment in held:
        for gpu in assignment.gpus:
            if gpu in free:
                free[gpu] -= assignment.gpu_memory_mb
    return free


def _largest_mb(resources: Resources, inventory: Inventory) -> float | None:
    """Return the most that each device of a trial can have; None where it is not known.

    What other programs hold does not count: they may leave.
    """
    sizes = [math.inf if gpu.memory_mb is None else gpu.memory_mb for gpu in inventory.gpus]
    largest = sorted(sizes, reverse=True)[: math.ceil(resources.gpus)]
    return min(largest) if largest and math.isfinite(largest[-1]) else None


def _left_mb(inventory: Inventory, held: Sequence[Assignment]) -> float:
    """Return the free memory of the host; 0 where it is not known."""
    return max(0.0, (inventory.memory_mb or 0.0) - sum(a.memory_mb for a in held))


def _remedy(key: str, there: float) -> str:
    if there == 0:
        return f"set [resources] {key} = 0; `localhpo doctor` shows which devices are found"
    return f"set [resources] {key} to {there:g} or less"
