"""What this machine offers to trials: CPUs, memory, GPUs and what is free of them.

Limits that a container or a batch system sets count, not what the hardware could do: CPU
affinity, cgroup quotas (v1 and v2), `CUDA_VISIBLE_DEVICES`. What processes of others hold of a
device is not ours (`Gpu.foreign_mb`). No device is opened or initialized: that is left to the
trials. `LOCALHPO_INVENTORY` stands in for all of it (see `simulated`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import psutil

from localhpo.scheduler import machine, nvml, simulated
from localhpo.scheduler.meter import BESIDE_MB
from localhpo.scheduler.nvml import Reading
from localhpo.scheduler.placement import Gpu, Inventory, Part

_MB = 2**20


def find_inventory(
    environ: Mapping[str, str] | None = None, *, root: Path = Path("/")
) -> Inventory:
    """Return what trials may use.

    Raises:
        InputError: `LOCALHPO_INVENTORY` names a file that describes no machine.

    Args:
        environ: The environment that trials will have; that of this process by default.
        root: Where `proc` and `sys` are found.
    """
    environ = os.environ if environ is None else environ
    if path := environ.get(simulated.VARIABLE):
        inventory = simulated.load_inventory(path)
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        gpus = inventory.gpus if visible is None else _restrict(inventory.gpus, _ids(visible))
        return dataclasses.replace(inventory, gpus=tuple(gpus))
    warnings: list[str] = []
    gpus = find_gpus(environ, root=root, tell=warnings.append)
    return Inventory(
        cpus=count_cpus(root),
        memory_mb=total_memory_mb(root),
        gpus=gpus,
        part=find_part(root),
        warnings=tuple(warnings),
        look=look_again if gpus else None,
    )


def count_cpus(root: Path = Path("/")) -> int:
    """Return the CPUs this process may use at once: affinity and cgroup quota, at least 1."""
    quotas = [math.floor(quota) for quota in _cpu_quotas(root)]
    return max(1, min([len(os.sched_getaffinity(0)), *quotas]))


def total_memory_mb(root: Path = Path("/")) -> float:
    """Return the memory that this process and its children may use."""
    return min([psutil.virtual_memory().total, *_memory_limits(root).values()]) / _MB


def find_part(root: Path = Path("/")) -> Part:
    """Return which CPUs these are, and whose memory."""
    groups = [folder for folder, _ in limit_files(root, "memory")]
    limits = _memory_limits(root)
    # Of equal ones the outermost: it holds for more.
    least = min(reversed(limits), key=lambda folder: limits[folder], default=None)
    if least is not None and limits[least] >= psutil.virtual_memory().total:
        least = None
    # The first one is its own: of the tree where memory is limited, should there be two.
    own = next((f for f in groups if least is None or least in (f, *f.parents)), None)
    return Part(tuple(sorted(os.sched_getaffinity(0))), str(own or ""), str(least or ""))


def find_gpus(
    environ: Mapping[str, str] | None = None,
    *,
    root: Path = Path("/"),
    tell: Callable[[str], object] = lambda _: None,
) -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs that a trial may see.

    Known from nvidia-ml-py where it is installed, else from the driver's files; where neither
    knows any (WSL, other vendors) the list in `CUDA_VISIBLE_DEVICES` is believed. A list that is
    set always restricts. An index in it is that of `nvidia-smi`, whatever CUDA itself would count
    first. A GPU that is cut into MIG slices is its slices.

    Args:
        environ: The environment that trials will have; that of this process by default.
        root: Where `proc` is found.
        tell: Is told, in a sentence, of each device that does not answer.
    """
    environ = os.environ if environ is None else environ
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    readings = nvml.read_once(tell)
    if readings is not None:
        ours = _our_processes()
        return tuple(_gpu(reading, ours) for reading in _chosen(readings, visible))
    gpus = _gpus_by_driver(root) or [Gpu(id) for id in _ids(visible or "")]
    return tuple(gpus if visible is None else _restrict(gpus, _ids(visible)))


def _chosen(readings: Sequence[Reading], visible: str | None) -> list[Reading]:
    """Return the devices that a list of ids names, as CUDA understands it; all without a list.

    An index that does not exist ends the list (that of a device which does not answer does not),
    and so does a UUID that begins no device's or more than one, and a device that was named. The
    index of a GPU that is cut names its first slice: CUDA sees no other.
    """
    if visible is None:
        return list(readings)
    most = max((reading.index for reading in readings), default=-1)
    chosen: list[Reading] = []
    for id in _ids(visible):
        if id.isdigit():
            named = [r for r in readings if r.index == int(id)][:1]
        else:
            named = [r for r in readings if r.id.startswith(id)]
        if not named and id.isdigit() and int(id) < most:
            continue
        if len(named) != 1 or named[0] in chosen:
            break
        chosen += named
    return chosen


def _gpu(reading: Reading, ours: frozenset[int]) -> Gpu:
    own_mb = sum(mb or 0.0 for pid, mb in reading.processes.items() if pid in ours)
    foreign_mb = max(0.0, (reading.used_mb or 0.0) - own_mb)
    return Gpu(reading.id, reading.name, reading.total_mb, foreign_mb, reading.label)


def look_again(gpus: Sequence[Gpu], busy: Collection[str]) -> tuple[Gpu, ...]:
    """Return the same devices, with what others hold of them now.

    One stays as it was where next to nothing has changed, and where it is busy with something of
    ours that its driver does not name: then what is held may be that.
    """
    readings = {reading.id: reading for reading in nvml.read_once() or ()}
    ours = _our_processes() if readings else frozenset()
    return tuple(_again(gpu, readings.get(gpu.id), ours, gpu.id in busy) for gpu in gpus)


def _again(gpu: Gpu, reading: Reading | None, ours: frozenset[int], is_busy: bool) -> Gpu:
    if reading is None:
        return gpu
    held = [mb for pid, mb in reading.processes.items() if pid in ours]
    if is_busy and (not held or None in held):
        return gpu
    now = _gpu(reading, ours)
    return gpu if abs(now.foreign_mb - gpu.foreign_mb) < BESIDE_MB else now


def _our_processes() -> frozenset[int]:
    """Return the numbers of this process, of this user's studies, and of all they have started.

    What studies hold is counted as they claim it: see `machine`.
    """
    found = {os.getpid(), *machine.processes()}
    for pid in list(found):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            found.update(child.pid for child in psutil.Process(pid).children(recursive=True))
    return frozenset(found)


def _ids(visible: str) -> list[str]:
    """Read `CUDA_VISIBLE_DEVICES` as CUDA does: the first entry that is no device ends the list.

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
    chosen: list[Gpu] = []
    for id in ids if gpus else ():
        if id.isdigit() and id not in known:
            break
        chosen.append(known.get(id, Gpu(id)))
    return chosen


def _gpus_by_driver(root: Path) -> list[Gpu]:
    """Count the devices that the kernel driver shows; it has a folder for each."""
    folder = root / "proc/driver/nvidia/gpus"
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [Gpu(str(i), _model(device)) for i, device in enumerate(found)]


def _model(device: Path) -> str:
    """Read the line `Model: ...` of a device's file."""
    for line in _text(device / "information").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model":
            return value.strip()
    return ""


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Yield the CPUs that each cgroup above this process allows."""
    for folder, name in limit_files(root, "cpu"):
        if name == "cpu.max":
            quota, _, period = _text(folder / name).strip().partition(" ")
        else:
            quota, period = _text(folder / name), _text(folder / "cpu.cfs_period_us")
        # "max" (v2) and -1 (v1) say that there is no quota.
        with contextlib.suppress(ValueError, ZeroDivisionError):
            if float(quota) > 0:
                yield float(quota) / float(period)


def limit_files(root: Path, controller: str) -> Iterator[tuple[Path, str]]:
    """Yield (folder, file name) of one limit for each cgroup from this process's own upwards."""
    names = {
        "cpu": ("cpu.max", "cpu.cfs_quota_us"),
        "memory": ("memory.max", "memory.limit_in_bytes"),
    }
    v2, v1 = names[controller]
    for line in _text(root / "proc/self/cgroup").splitlines():
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
    """Return the bytes that each cgroup above this process allows, where it says how many."""
    found = {folder: _number(folder / name) for folder, name in limit_files(root, "memory")}
    return {folder: limit for folder, limit in found.items() if limit is not None}


def _number(path: Path) -> float | None:
    """Return the number in a file; None where there is none (`max`, or no file)."""
    try:
        return float(_text(path))
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
