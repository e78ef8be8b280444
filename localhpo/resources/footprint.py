"""Measured memory of a process and its descendants, on the host and on devices."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import psutil

from localhpo.resources import nvml
from localhpo.resources.inventory import list_limit_files
from localhpo.resources.nvml import DeviceReading

_MB = 2**20  # bytes

_USAGE = {
    "memory.max": ("memory.current", "inactive_file"),
    "memory.limit_in_bytes": ("memory.usage_in_bytes", "total_inactive_file"),
}
"""File of a cgroup's limit -> file of its usage, and key of the part that can be reclaimed."""


def measure_host_mb(pid: int) -> float | None:
    """Return the host memory of a process and its descendants; None where it has ended.

    Shared pages count once per process, so that the result is never too small.
    """
    try:
        root = psutil.Process(pid)
        return sum(_resident_bytes(one) for one in [root, *root.children(recursive=True)]) / _MB
    except psutil.Error:
        return None


def measure_free_host_mb(root: Path = Path("/")) -> float:
    """Return the host memory that is free or can be reclaimed, within all limits of cgroups.

    Cached files (such as weights that were read) can be reclaimed.

    Args:
        root: Folder in which `proc` and `sys` are found.
    """
    free = [float(psutil.virtual_memory().available)]
    for folder, name in list_limit_files(root, "memory"):
        usage, cache = _USAGE[name]
        with contextlib.suppress(OSError, ValueError):  # no such file, or no limit (`max`)
            limit = float((folder / name).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            free.append(limit - float((folder / usage).read_text()) + float(stat.get(cache, 0)))
    return max(0.0, min(free)) / _MB


def measure_device_mb(pid: int, gpu: str) -> float | None:
    """Return the memory of one device that a process and its descendants hold.

    None where the driver does not report memory by process, and where it reports none of these
    processes on any device: in a container it may report the host's process ids, or none.

    Args:
        pid: Process id.
        gpu: Id or index of the device.
    """
    readings = nvml.read_devices() or []
    reading = _find_device(gpu, readings)
    try:
        root = psutil.Process(pid)
        pids = {root.pid, *(child.pid for child in root.children(recursive=True))}
    except psutil.Error:
        return None
    if reading is None or all(pids.isdisjoint(one.processes) for one in readings):
        return None
    held = [mb for process, mb in reading.processes.items() if process in pids]
    known = [mb for mb in held if mb is not None]
    return sum(known) if len(known) == len(held) else None


def measure_used_device_mb(gpu: str) -> float | None:
    """Return the memory of one device in use by all programs; None where it is not reported."""
    reading = _find_device(gpu, nvml.read_devices() or [])
    return None if reading is None else reading.used_mb


def _find_device(gpu: str, readings: Sequence[DeviceReading]) -> DeviceReading | None:
    return next((one for one in readings if gpu in one.names), None)


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it ended meanwhile
        return 0
