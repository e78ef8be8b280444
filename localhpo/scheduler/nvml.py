"""What NVIDIA's management library says of this machine's devices, now.

Nothing is made up: what a driver does not tell (energy before Volta, memory by process under
WSL, utilisation of a MIG slice) is None. A GPU that is cut into MIG slices is no device any
more; each slice is one, known by its UUID. In a container the library may name processes by
the numbers of the host, which nobody inside can look up: `Reading.processes` is then of no use
and only the totals are.

https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_MB = 2**20


@dataclass(frozen=True, slots=True)
class Reading:
    """One device, or one slice of one, at one moment."""

    id: str
    """What `CUDA_VISIBLE_DEVICES` calls it: the index of a whole GPU, the UUID of a slice."""
    uuid: str
    index: int
    """Of the GPU, or of the one that the slice is cut from."""
    name: str
    total_mb: float
    used_mb: float
    """By anybody, the driver included."""
    processes: Mapping[int, float | None] = field(default_factory=dict)
    """Process number -> MB; None where the driver does not tell how much."""
    utilisation: float | None = None
    """Share of the last moment (up to a second) in which it computed, 0 to 1."""
    power_w: float | None = None
    energy_j: float | None = None
    """Used since the driver was loaded; only differences mean something."""


class Nvml:
    """An open connection to the library. Not for several threads; close it."""

    def __init__(self, library: Any) -> None:
        """Take over a library that was initialized; `connect` makes one."""
        self._library = library
        self._open = True

    def read(self) -> list[Reading]:
        """Return every device; [] where the driver is gone."""
        library = self._library
        try:
            count = library.nvmlDeviceGetCount()
            handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
            return [
                reading
                for index, handle in enumerate(handles)
                for reading in self._devices(index, handle)
            ]
        except library.NVMLError:
            return []

    def close(self) -> None:
        """Let go of the library. May be called twice."""
        if self._open:
            self._open = False
            self._ask(self._library.nvmlShutdown)

    def _devices(self, index: int, handle: Any) -> Iterator[Reading]:
        name = _text(self._library.nvmlDeviceGetName(handle))
        if not self._is_cut(handle):
            yield self._reading(str(index), index, name, handle)
            return
        for position in range(self._ask(self._library.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            of_slice = self._library.nvmlDeviceGetMigDeviceHandleByIndex
            if (cut := self._ask(of_slice, handle, position)) is not None:
                cut_name = _text(self._ask(self._library.nvmlDeviceGetName, cut) or name)
                yield self._reading(
                    _text(self._library.nvmlDeviceGetUUID(cut)), index, cut_name, cut
                )

    def _is_cut(self, handle: Any) -> bool:
        mode = self._ask(self._library.nvmlDeviceGetMigMode, handle)  # (now, after a reset)
        return mode is not None and mode[0] == 1

    def _reading(self, id: str, index: int, name: str, handle: Any) -> Reading:
        library = self._library
        memory = library.nvmlDeviceGetMemoryInfo(handle)
        rates = self._ask(library.nvmlDeviceGetUtilizationRates, handle)
        power_mw = self._ask(library.nvmlDeviceGetPowerUsage, handle)
        energy_mj = self._ask(library.nvmlDeviceGetTotalEnergyConsumption, handle)
        return Reading(
            id=id,
            uuid=_text(self._ask(library.nvmlDeviceGetUUID, handle) or ""),
            index=index,
            name=name,
            total_mb=memory.total / _MB,
            used_mb=memory.used / _MB,
            processes=self._processes(handle),
            utilisation=None if rates is None else rates.gpu / 100,
            power_w=None if power_mw is None else power_mw / 1000,
            energy_j=None if energy_mj is None else energy_mj / 1000,
        )

    def _processes(self, handle: Any) -> dict[int, float | None]:
        found: dict[int, float | None] = {}
        for name in (
            "nvmlDeviceGetGraphicsRunningProcesses",
            "nvmlDeviceGetComputeRunningProcesses",
        ):
            for process in self._ask(getattr(self._library, name), handle) or ():
                used = process.usedGpuMemory
                found[process.pid] = None if used is None else used / _MB
        return found

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """Return the answer; None where this device, driver or library has none."""
        try:
            return question(*arguments)
        except self._library.NVMLError:
            return None


def connect() -> Nvml | None:
    """Return a connection; None where the library is not installed or finds no driver."""
    try:
        library: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        library.nvmlInit()
    except library.NVMLError:
        return None
    return Nvml(library)


def read_once() -> list[Reading] | None:
    """Return every device; None where the library is not installed or finds no driver."""
    nvml = connect()
    if nvml is None:
        return None
    try:
        return nvml.read()
    finally:
        nvml.close()


def _text(value: str | bytes) -> str:
    """Return a name; libraries before 12 return bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
