"""A fake of nvidia-ml-py: the same functions, on devices that a test describes.

Most test machines have no NVIDIA driver. `test_nvml` compares the names used here with
the real library where that is installed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

MB = 2**20


@dataclass
class Device:
    """One GPU, or one MIG slice; None for what its driver does not report."""

    name: str = "NVIDIA A"
    uuid: str = "GPU-0"
    total_mb: float | None = 80 * 1024
    """None where its memory is the host's."""
    used_mb: float = 0.0
    processes: dict[int, float | None] = field(default_factory=dict)
    utilization: int | None = 0
    """Percent."""
    power_w: float | None = 100.0
    energy_j: float | None = 0.0
    slices: list[Device] | None = None
    """Its MIG slices; None where it has none."""
    fault: Exception | None = None
    """Raised by queries about it; NVMLError_NoPermission by the query for its handle."""
    reserved_mb: float | None = None
    """Reserved by the driver; None for an old driver, which does not report it."""


class NVMLError(Exception):
    """Raised for everything that is not known."""


class NVMLError_NotSupported(NVMLError):
    """Raised for what this device does not report."""


class NVMLError_NoPermission(NVMLError):
    """Raised for a device that this process may not use."""


class Library:
    """The functions of the library, as methods."""

    def __init__(self, devices: list[Device], driver_missing: bool) -> None:
        self.open = 0
        self._devices = devices
        self._driver_missing = driver_missing

    def fail(self) -> None:
        """Raise the error of a missing driver."""
        raise NVMLError("driver not loaded")

    def nvmlInit(self) -> None:
        if self._driver_missing:
            self.fail()
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        if not self.open:
            raise NVMLError("uninitialized")
        return len(self._devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        if isinstance(self._devices[index].fault, NVMLError_NoPermission):
            raise self._devices[index].fault
        return self._devices[index]

    def nvmlDeviceGetName(self, device: Device) -> str:
        return device.name

    def nvmlDeviceGetUUID(self, device: Device) -> str:
        return device.uuid

    def nvmlDeviceGetMemoryInfo(self, device: Device, version: int | None = None) -> Any:
        if device.fault is not None:
            raise device.fault
        total, used = int(reported(device.total_mb) * MB), int(device.used_mb * MB)
        if version is None:
            return SimpleNamespace(total=total, used=used + int((device.reserved_mb or 0.0) * MB))
        reserved = int(reported(device.reserved_mb) * MB)
        return SimpleNamespace(total=total, used=used, reserved=reserved)

    def nvmlDeviceGetUtilizationRates(self, device: Device) -> Any:
        return SimpleNamespace(gpu=reported(device.utilization))

    def nvmlDeviceGetPowerUsage(self, device: Device) -> int:
        return int(reported(device.power_w) * 1000)

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Device) -> int:
        return int(reported(device.energy_j) * 1000)

    def nvmlDeviceGetComputeRunningProcesses(self, device: Device) -> list[Any]:
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=None if mb is None else int(mb * MB))
            for pid, mb in device.processes.items()
        ]

    def nvmlDeviceGetGraphicsRunningProcesses(self, device: Device) -> list[Any]:
        return []

    def nvmlDeviceGetMigMode(self, device: Device) -> list[int]:
        if device.uuid.startswith("MIG"):
            raise NVMLError("not supported")
        is_sliced = int(device.slices is not None)
        return [is_sliced, is_sliced]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Device) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Device, index: int) -> Device:
        if device.slices is None or index >= len(device.slices):
            raise NVMLError("not found")
        return device.slices[index]


def reported(value: float | None) -> float:
    if value is None:
        raise NVMLError_NotSupported("not supported")
    return value


def make_fake_nvml(devices: list[Device], *, driver_missing: bool = False) -> ModuleType:
    """Return a module to be set as `sys.modules["pynvml"]`."""
    module = ModuleType("pynvml")
    library = Library(devices, driver_missing)
    names = [name for name in dir(library) if name.startswith("nvml")]
    module.__dict__.update({name: getattr(library, name) for name in names})
    errors = (NVMLError, NVMLError_NotSupported, NVMLError_NoPermission)
    module.__dict__.update({error.__name__: error for error in errors})
    module.__dict__.update(nvmlMemory_v2=0x02000028, library=library)
    return module
