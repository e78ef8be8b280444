"""What NVIDIA's management library says of this machine's devices, now.

Nothing is made up: what a driver does not tell (energy before Volta, memory by process under
WSL, utilization of a MIG slice, memory that is the host's own) is None. A GPU that is cut into MIG
slices is no device any more; each slice is one. In a container the library may name processes by
the numbers of the host, which nobody inside can look up: `Reading.processes` is then of no use
and only the totals are.

A device goes by its UUID, which is the same to every process: an index is not, since CUDA counts
those first that are fast, and each job the devices that it was given. People go on saying indices.

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
    """What `CUDA_VISIBLE_DEVICES` calls it: the UUID; an index where the driver tells none."""
    index: int
    """Of the GPU, or of the one that the slice is cut from: as `nvidia-smi` counts them."""
    name: str
    """Of the model; empty where it is not told."""
    total_mb: float | None
    """That processes can have; None where it is the host's memory."""
    used_mb: float | None
    """By anybody."""
    processes: Mapping[int, float | None] = field(default_factory=dict)
    """Process number -> MB; None where the driver does not tell how much."""
    utilization: float | None = None
    """Share of the last moment (up to a second) in which it computed, 0 to 1."""
    power_w: float | None = None
    energy_j: float | None = None
    """Used since the driver was loaded; only differences mean something."""

    @property
    def is_slice(self) -> bool:
        """Whether it is a part of a GPU."""
        return self.id.startswith("MIG-")

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called: its id, and a whole GPU its index."""
        return (self.id,) if self.is_slice else (self.id, str(self.index))

    @property
    def label(self) -> str:
        """What it is called before people."""
        return f"{self.index}/{self.id[:12]}" if self.is_slice else str(self.index)


class Nvml:
    """An open connection to the library. Not for several threads; close it."""

    def __init__(self, library: Any) -> None:
        """Take over a library that was initialized; `connect` makes one."""
        self._library = library
        self._open = True

    def read(self, tell: Callable[[str], object] = lambda _: None) -> list[Reading] | None:
        """Return every device that answers; None where the driver is gone.

        Args:
            tell: Is told, in a sentence, of each that does not.
        """
        library = self._library
        count = self._ask(library.nvmlDeviceGetCount)
        if count is None:
            return None
        found: list[Reading] = []
        index = 0
        for place in range(count):
            try:
                handle = library.nvmlDeviceGetHandleByIndex(place)
                found += list(self._devices(index, handle))
            except library.NVMLError_NoPermission:
                continue  # it is for others, and CUDA does not count it either
            except library.NVMLError as error:
                tell(f"GPU {index} does not answer, and is left out: {error}")
            index += 1
        return found

    def close(self) -> None:
        """Let go of the library. May be called twice."""
        if self._open:
            self._open = False
            self._ask(self._library.nvmlShutdown)

    def _devices(self, index: int, handle: Any) -> Iterator[Reading]:
        name = _text(self._ask(self._library.nvmlDeviceGetName, handle) or "")
        if not self._is_cut(handle):
            yield self._reading(index, name, handle)
            return
        for position in range(self._ask(self._library.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            of_slice = self._library.nvmlDeviceGetMigDeviceHandleByIndex
            if (cut := self._ask(of_slice, handle, position)) is not None:
                cut_name = _text(self._ask(self._library.nvmlDeviceGetName, cut) or name)
                yield self._reading(index, cut_name, cut)

    def _is_cut(self, handle: Any) -> bool:
        mode = self._ask(self._library.nvmlDeviceGetMigMode, handle)  # (now, after a reset)
        return mode is not None and mode[0] == 1

    def _reading(self, index: int, name: str, handle: Any) -> Reading:
        library = self._library
        total_mb, used_mb = self._memory(handle)
        rates = self._ask(library.nvmlDeviceGetUtilizationRates, handle)
        power_mw = self._ask(library.nvmlDeviceGetPowerUsage, handle)
        energy_mj = self._ask(library.nvmlDeviceGetTotalEnergyConsumption, handle)
        return Reading(
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
        """Return what processes can have, without what the driver keeps, and what they have."""
        library = self._library
        get, version = library.nvmlDeviceGetMemoryInfo, getattr(library, "nvmlMemory_v2", None)
        memory = self._ask(get, handle, version) if version else None
        try:
            memory = memory or get(handle)  # of old drivers, whose own part counts as held
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


def read_once(tell: Callable[[str], object] = lambda _: None) -> list[Reading] | None:
    """Return every device that answers; None where the library is absent or finds no driver.

    Args:
        tell: Is told, in a sentence, of each that does not.
    """
    nvml = connect()
    if nvml is None:
        return None
    try:
        return nvml.read(tell)
    finally:
        nvml.close()


def _text(value: str | bytes) -> str:
    """Return a name; libraries before 12 return bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
