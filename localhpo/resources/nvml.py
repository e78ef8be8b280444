"""Adapter for NVIDIA's management library (NVML): the state of this machine's devices.

Values that a driver does not report are None: energy before Volta, memory by process under WSL,
utilization of a MIG slice, the size of memory that is the host's own. A GPU that is divided into
MIG slices is replaced by its slices. In a container the library may report the host's process ids,
which cannot be looked up inside: only the totals of `DeviceReading` are of use then.

Devices are identified by UUID, which is the same in every process. An index is not: CUDA lists the
fastest devices first, and a job sees only the devices that it was given. People are shown indices.

https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_MB = 2**20


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """State of one GPU, or of one MIG slice, at one moment."""

    id: str
    """Name in `CUDA_VISIBLE_DEVICES`: the UUID, or the index where no UUID is reported."""
    index: int
    """Index of the GPU that it is, or is a slice of, as `nvidia-smi` counts."""
    name: str
    """Name of the product; empty where it is not reported."""
    total_mb: float | None
    """Memory that processes can use; None where it is the host's memory."""
    used_mb: float | None
    """Memory in use by all processes."""
    processes: Mapping[int, float | None] = field(default_factory=dict)
    """Process id -> memory in MB; None where the amount is not reported."""
    utilization: float | None = None
    """Share of the last moment (up to a second) in which it computed, 0 to 1."""
    power_w: float | None = None
    energy_j: float | None = None
    """Energy used since the driver was loaded; only differences are meaningful."""

    @property
    def is_slice(self) -> bool:
        """Whether it is a MIG slice."""
        return self.id.startswith("MIG-")

    @property
    def names(self) -> tuple[str, ...]:
        """Names that users may give it: its id, and the index of a whole GPU."""
        return (self.id,) if self.is_slice else (self.id, str(self.index))

    @property
    def label(self) -> str:
        """Name shown to people."""
        return f"{self.index}/{self.id[:12]}" if self.is_slice else str(self.index)


class Nvml:
    """An open connection to the library, for one thread; close it."""

    def __init__(self, library: Any) -> None:
        """Use a library that was initialized; see `connect`."""
        self._library = library
        self._open = True

    def read(self, warn: Callable[[str], object] = lambda _: None) -> list[DeviceReading] | None:
        """Return every device that answers; None where the driver is gone.

        Args:
            warn: Called with a sentence for each device that does not answer.
        """
        library = self._library
        count = self._ask(library.nvmlDeviceGetCount)
        if count is None:
            return None
        found: list[DeviceReading] = []
        index = 0
        for position in range(count):
            try:
                handle = library.nvmlDeviceGetHandleByIndex(position)
                found += list(self._devices(index, handle))
            except library.NVMLError_NoPermission:
                continue  # it belongs to other jobs, and CUDA does not count it either
            except library.NVMLError as error:
                warn(f"GPU {index} does not answer and is not used: {error}")
            index += 1
        return found

    def close(self) -> None:
        """Close the connection. May be called twice."""
        if self._open:
            self._open = False
            self._ask(self._library.nvmlShutdown)

    def _devices(self, index: int, handle: Any) -> Iterator[DeviceReading]:
        name = _text(self._ask(self._library.nvmlDeviceGetName, handle) or "")
        if not self._is_sliced(handle):
            yield self._reading(index, name, handle)
            return
        for position in range(self._ask(self._library.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            get_slice = self._library.nvmlDeviceGetMigDeviceHandleByIndex
            if (slice_handle := self._ask(get_slice, handle, position)) is not None:
                slice_name = _text(self._ask(self._library.nvmlDeviceGetName, slice_handle) or name)
                yield self._reading(index, slice_name, slice_handle)

    def _is_sliced(self, handle: Any) -> bool:
        mode = self._ask(self._library.nvmlDeviceGetMigMode, handle)  # (now, after a reset)
        return mode is not None and mode[0] == 1

    def _reading(self, index: int, name: str, handle: Any) -> DeviceReading:
        library = self._library
        total_mb, used_mb = self._memory(handle)
        rates = self._ask(library.nvmlDeviceGetUtilizationRates, handle)
        power_mw = self._ask(library.nvmlDeviceGetPowerUsage, handle)
        energy_mj = self._ask(library.nvmlDeviceGetTotalEnergyConsumption, handle)
        return DeviceReading(
            id=_text(self._ask(library.nvmlDeviceGetUUID, handle) or str(index)),
            index=index,
            name=name,
            total_mb=total_mb,
            used_mb=used_mb,
            processes=self._processes(handle),
            utilization=None if rates is None else rates.gpu / 100,
            power_w=None if power_mw is None else power_mw / 1000,
            energy_j=None if energy_mj is None else energy_mj / 1000,
        )

    def _memory(self, handle: Any) -> tuple[float | None, float | None]:
        """Return the total in MB, without what the driver reserves, and the memory in use."""
        library = self._library
        get, version = library.nvmlDeviceGetMemoryInfo, getattr(library, "nvmlMemory_v2", None)
        memory = self._ask(get, handle, version) if version else None
        try:
            memory = memory or get(handle)  # old drivers count their own part as used
        except library.NVMLError_NotSupported:
            return None, None
        total = memory.total - getattr(memory, "reserved", 0)
        return total / _MB, memory.used / _MB

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

    def _ask(self, query: Callable[..., Any], *arguments: Any) -> Any:
        """Return the answer; None where this device, driver or library does not have one."""
        try:
            return query(*arguments)
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


def read_devices(warn: Callable[[str], object] = lambda _: None) -> list[DeviceReading] | None:
    """Return every device that answers; None where the library is absent or finds no driver.

    Args:
        warn: Called with a sentence for each device that does not answer.
    """
    nvml = connect()
    if nvml is None:
        return None
    try:
        return nvml.read(warn)
    finally:
        nvml.close()


def _text(value: str | bytes) -> str:
    """Return a name as text: libraries before version 12 return bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
