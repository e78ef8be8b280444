"""Inventory of this machine: the CPUs, memory and GPUs that trials may use.

Limits of a container or a batch system count, not the hardware: CPU affinity, cgroup quotas (v1
and v2), `CUDA_VISIBLE_DEVICES`. Device memory that other programs hold is recorded
(`Gpu.foreign_mb`). No device is opened or initialized; trials do that. A file named by
`LOCALHPO_INVENTORY` replaces all of this (see `simulated_inventory`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import psutil

from localhpo.resources import broker as resource_broker
from localhpo.resources import nvml, simulated_inventory
from localhpo.resources.meter import MIN_SHARED_MB
from localhpo.resources.nvml import DeviceReading
from localhpo.resources.placement import Gpu, Inventory, MachinePartition

_MB = 2**20


def find_inventory(
    environ: Mapping[str, str] | None = None, *, root: Path = Path("/")
) -> Inventory:
    """Return the resources that trials may use.

    Args:
        environ: Environment of the trials; that of this process by default.
        root: Folder in which `proc` and `sys` are found.

    Raises:
        InputError: the file that `LOCALHPO_INVENTORY` names describes no machine.
    """
    environ = os.environ if environ is None else environ
    if path := environ.get(simulated_inventory.VARIABLE):
        inventory = simulated_inventory.load_inventory(path)
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        gpus = inventory.gpus if visible is None else _restrict(inventory.gpus, _parse_ids(visible))
        return dataclasses.replace(inventory, gpus=tuple(gpus))
    warnings: list[str] = []
    gpus = find_gpus(environ, root=root, warn=warnings.append)
    return Inventory(
        cpus=count_cpus(root),
        memory_mb=total_memory_mb(root),
        gpus=gpus,
        partition=find_partition(root),
        warnings=tuple(warnings),
        refresh=refresh_gpus if gpus else None,
    )


def count_cpus(root: Path = Path("/")) -> int:
    """Return the number of CPUs that affinity and cgroup quotas allow, at least 1."""
    quotas = [math.floor(quota) for quota in _cpu_quotas(root)]
    return max(1, min([len(os.sched_getaffinity(0)), *quotas]))


def total_memory_mb(root: Path = Path("/")) -> float:
    """Return the host memory that this process and its children may use."""
    return min([psutil.virtual_memory().total, *_memory_limits(root).values()]) / _MB


def find_partition(root: Path = Path("/")) -> MachinePartition:
    """Return the CPUs of this process, and the cgroups that account for and limit its memory."""
    groups = [folder for folder, _ in list_limit_files(root, "memory")]
    limits = _memory_limits(root)
    # Of equal limits the outermost: more processes share it.
    least = min(reversed(limits), key=lambda folder: limits[folder], default=None)
    if least is not None and limits[least] >= psutil.virtual_memory().total:
        least = None
    # The first is the process's own cgroup; with v1 and v2 both, in the tree with the limit.
    own = next((f for f in groups if least is None or least in (f, *f.parents)), None)
    return MachinePartition(
        tuple(sorted(os.sched_getaffinity(0))), str(own or ""), str(least or "")
    )


def find_gpus(
    environ: Mapping[str, str] | None = None,
    *,
    root: Path = Path("/"),
    warn: Callable[[str], object] = lambda _: None,
) -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs that trials may use.

    They are read by nvidia-ml-py where it is installed, else from the driver's files. Where neither
    finds any (WSL, other vendors), the devices in `CUDA_VISIBLE_DEVICES` are assumed to exist. That
    list always restricts, where it is set; its indices are those of `nvidia-smi`, even where CUDA
    would count differently. A GPU that is divided into MIG slices is replaced by its slices.

    Args:
        environ: Environment of the trials; that of this process by default.
        root: Folder in which `proc` is found.
        warn: Called with a sentence for each device that does not answer.
    """
    environ = os.environ if environ is None else environ
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    readings = nvml.read_devices(warn)
    if readings is not None:
        own_pids = _list_own_pids()
        return tuple(_make_gpu(reading, own_pids) for reading in _select_visible(readings, visible))
    gpus = _gpus_by_driver(root) or [Gpu(id) for id in _parse_ids(visible or "")]
    return tuple(gpus if visible is None else _restrict(gpus, _parse_ids(visible)))


def _select_visible(readings: Sequence[DeviceReading], visible: str | None) -> list[DeviceReading]:
    """Return the devices that `CUDA_VISIBLE_DEVICES` names, as CUDA reads it; all without it.

    The list ends at an index that does not exist (but not at a device that does not answer), at a
    prefix of no UUID or of several, and at a device that was named before. The index of a GPU with
    MIG slices names its first slice: CUDA sees no other.
    """
    if visible is None:
        return list(readings)
    most = max((reading.index for reading in readings), default=-1)
    selected: list[DeviceReading] = []
    for id in _parse_ids(visible):
        if id.isdigit():
            named = [r for r in readings if r.index == int(id)][:1]
        else:
            named = [r for r in readings if r.id.startswith(id)]
        if not named and id.isdigit() and int(id) < most:
            continue
        if len(named) != 1 or named[0] in selected:
            break
        selected += named
    return selected


def _make_gpu(reading: DeviceReading, own_pids: frozenset[int]) -> Gpu:
    own_mb = sum(mb or 0.0 for pid, mb in reading.processes.items() if pid in own_pids)
    foreign_mb = max(0.0, (reading.used_mb or 0.0) - own_mb)
    return Gpu(reading.id, reading.name, reading.total_mb, foreign_mb, reading.label)


def refresh_gpus(gpus: Sequence[Gpu], busy: Collection[str]) -> tuple[Gpu, ...]:
    """Return the same devices with the memory that other programs hold now.

    A device is returned unchanged where the difference is negligible, and where it runs processes
    of this study whose memory the driver does not report: the difference may be theirs.

    Args:
        gpus: The devices as they were.
        busy: Ids of those on which this study runs something.
    """
    readings = {reading.id: reading for reading in nvml.read_devices() or ()}
    own_pids = _list_own_pids() if readings else frozenset()
    return tuple(_refresh_gpu(gpu, readings.get(gpu.id), own_pids, gpu.id in busy) for gpu in gpus)


def _refresh_gpu(
    gpu: Gpu, reading: DeviceReading | None, own_pids: frozenset[int], is_busy: bool
) -> Gpu:
    if reading is None:
        return gpu
    held = [mb for pid, mb in reading.processes.items() if pid in own_pids]
    if is_busy and (not held or None in held):
        return gpu
    now = _make_gpu(reading, own_pids)
    return gpu if abs(now.foreign_mb - gpu.foreign_mb) < MIN_SHARED_MB else now


def _list_own_pids() -> frozenset[int]:
    """Return the ids of this process, of this user's studies, and of all their descendants.

    What studies hold is counted as they claim it: see `broker`.
    """
    found = {os.getpid(), *resource_broker.read_pids()}
    for pid in list(found):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            found.update(child.pid for child in psutil.Process(pid).children(recursive=True))
    return frozenset(found)


def _parse_ids(visible: str) -> list[str]:
    """Parse `CUDA_VISIBLE_DEVICES` as CUDA does: the first entry that is no device ends the list.

    https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables
    """
    ids: list[str] = []
    for entry in (part.strip() for part in visible.split(",")):
        if not (entry.isdigit() or entry.startswith(("GPU-", "MIG-"))) or entry in ids:
            break
        ids.append(entry)
    return ids


def _restrict(gpus: Sequence[Gpu], ids: Sequence[str]) -> list[Gpu]:
    """Return the devices that the ids name; an index that does not exist ends the list."""
    known = {gpu.id: gpu for gpu in gpus}
    selected: list[Gpu] = []
    for id in ids if gpus else ():
        if id.isdigit() and id not in known:
            break
        selected.append(known.get(id, Gpu(id)))
    return selected


def _gpus_by_driver(root: Path) -> list[Gpu]:
    """Return the devices of the kernel driver, which has a folder for each."""
    folder = root / "proc/driver/nvidia/gpus"
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [Gpu(str(i), _read_product_name(device)) for i, device in enumerate(found)]


def _read_product_name(device: Path) -> str:
    """Return the product name, from the line `Model: ...` of a device's file."""
    for line in _read_text(device / "information").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model":
            return value.strip()
    return ""


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Yield the CPUs that each cgroup above this process allows."""
    for folder, name in list_limit_files(root, "cpu"):
        if name == "cpu.max":
            quota, _, period = _read_text(folder / name).strip().partition(" ")
        else:
            quota, period = _read_text(folder / name), _read_text(folder / "cpu.cfs_period_us")
        # "max" (v2) and -1 (v1) say that there is no quota.
        with contextlib.suppress(ValueError, ZeroDivisionError):
            if float(quota) > 0:
                yield float(quota) / float(period)


def list_limit_files(root: Path, controller: str) -> Iterator[tuple[Path, str]]:
    """Yield (folder, file name) of the limit of each cgroup, from this process's own upwards."""
    names = {
        "cpu": ("cpu.max", "cpu.cfs_quota_us"),
        "memory": ("memory.max", "memory.limit_in_bytes"),
    }
    v2, v1 = names[controller]
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, name = root / "sys/fs/cgroup", v2
        elif controller in controllers.split(","):
            mount, name = root / "sys/fs/cgroup" / controller, v1
        else:
            continue
        own = PurePosixPath(path.lstrip("/"))
        for folder in (own, *own.parents):
            yield mount / folder, name


def _memory_limits(root: Path) -> dict[Path, float]:
    """Return the memory limit in bytes of each cgroup of this process that has one, by folder."""
    found = {
        folder: _read_number(folder / name) for folder, name in list_limit_files(root, "memory")
    }
    return {folder: limit for folder, limit in found.items() if limit is not None}


def _read_number(path: Path) -> float | None:
    """Return the number in a file; None where it has none (`max`), or does not exist."""
    try:
        return float(_read_text(path))
    except ValueError:
        return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
