"""What a process and everything below it hold, measured."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import psutil

from localhpo.scheduler import nvml
from localhpo.scheduler.devices import limit_files
from localhpo.scheduler.nvml import Reading

_MB = 2**20

_USAGE = {
    "memory.max": ("memory.current", "inactive_file"),
    "memory.limit_in_bytes": ("memory.usage_in_bytes", "total_inactive_file"),
}
"""File of a cgroup's limit -> that of its usage, and the part of it that can be made free."""


def host_mb(pid: int) -> float | None:
    """Return the memory of the host that a process and its descendants hold; None if it is gone.

    Pages that they share count once for each that has them, so that it is never too little.
    """
    try:
        root = psutil.Process(pid)
        return sum(_resident(one) for one in [root, *root.children(recursive=True)]) / _MB
    except psutil.Error:
        return None


def host_free_mb(root: Path = Path("/")) -> float:
    """Return the memory of the host that is free, or can be made free: here, by all limits.

    What a cgroup holds of files that were read (the weights, for one) can be made free.

    Args:
        root: Where `proc` and `sys` are found.
    """
    free = [float(psutil.virtual_memory().available)]
    for folder, name in limit_files(root, "memory"):
        usage, cache = _USAGE[name]
        with contextlib.suppress(OSError, ValueError):  # no such file, or no limit (`max`)
            limit = float((folder / name).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            free.append(limit - float((folder / usage).read_text()) + float(stat.get(cache, 0)))
    return max(0.0, min(free)) / _MB


def device_mb(pid: int, gpu: str) -> float | None:
    """Return the memory of one device that a process and its descendants hold.

    None where the driver does not tell how much each process holds; and where it names none of
    these on any device: in a container it names processes by the numbers of the host, or none.

    Args:
        pid: Of the process.
        gpu: Id or index of the device.
    """
    readings = nvml.read_once() or []
    reading = _of(gpu, readings)
    try:
        root = psutil.Process(pid)
        family = {root.pid, *(child.pid for child in root.children(recursive=True))}
    except psutil.Error:
        return None
    if reading is None or all(family.isdisjoint(one.processes) for one in readings):
        return None
    held = [mb for process, mb in reading.processes.items() if process in family]
    known = [mb for mb in held if mb is not None]
    return sum(known) if len(known) == len(held) else None


def device_used_mb(gpu: str) -> float | None:
    """Return the memory of one device that anybody holds; None where the driver does not tell."""
    reading = _of(gpu, nvml.read_once() or [])
    return None if reading is None else reading.used_mb


def _of(gpu: str, readings: Sequence[Reading]) -> Reading | None:
    return next((one for one in readings if gpu in one.names), None)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it ended meanwhile
        return 0
