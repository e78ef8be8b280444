"""What a process and everything below it hold, measured."""

from __future__ import annotations

import psutil

from localhpo.scheduler import nvml

_MB = 2**20


def host_mb(pid: int) -> float | None:
    """Return the memory of the host that a process and its descendants hold; None if it is gone.

    Pages that they share count once for each that has them, so that it is never too little.
    """
    try:
        root = psutil.Process(pid)
        return sum(_resident(one) for one in [root, *root.children(recursive=True)]) / _MB
    except psutil.Error:
        return None


def host_free_mb() -> float:
    """Return the memory of the host that is free, or can be made free."""
    return psutil.virtual_memory().available / _MB


def device_mb(pid: int, gpu: str) -> float | None:
    """Return the memory of one device that a process and its descendants hold.

    None where the driver does not tell how much each process holds.

    Args:
        pid: Of the process.
        gpu: Id or index of the device.
    """
    readings = nvml.read_once() or []
    reading = next((one for one in readings if gpu in one.names), None)
    if reading is None:
        return None
    try:
        root = psutil.Process(pid)
        family = {root.pid, *(child.pid for child in root.children(recursive=True))}
    except psutil.Error:
        return None
    held = [mb for process, mb in reading.processes.items() if process in family]
    known = [mb for mb in held if mb is not None]
    return sum(known) if len(known) == len(held) else None


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it ended meanwhile
        return 0
