"""Placement of a model: it asks a placer for memory before it is loaded, and reports its use.

A server asks before it starts; a model in this process asks before it is put on a device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NO_MEMORY = "not enough free memory beside what others use"

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class MemoryRequest:
    """Memory that a model asks for, and where."""

    size_bytes: int
    """On each of its devices, or in host memory. An estimate."""
    on_cpu: bool = False
    """Whether to put the model into host memory."""
    gpu_share: float = 0.0
    """Share of each device's memory, 0 to 1, which it takes where that is more."""
    gpus: tuple[str, ...] = ()
    """Devices that were chosen for it, all of which it takes; none: any `gpu_count` devices."""
    gpu_count: int = 1
    """Number of devices to split the model over, where none were chosen."""
    candidates: tuple[str, ...] = ()
    """UUIDs of the devices that it can be given, spelled as in `DeviceFootprint`, in the order in
    which its process counts them; none: any device. The answer names devices in the same way."""

    @property
    def device_count(self) -> int:
        """Number of devices that the model is split over."""
        return len(self.gpus) or self.gpu_count


ReserveMemory = Callable[[MemoryRequest], Sequence[str] | None]
"""From a request to the devices that were reserved; empty: those that the model had, or would take
by itself. None while there is not enough memory: the model asks again."""


@dataclass(frozen=True, slots=True)
class ModelPlacer:
    """Decides where a model is loaded. By default at once, wherever the model likes."""

    reserve: ReserveMemory = lambda request: ()  # noqa: ARG005
    notify: Callable[[str], None] = lambda message: None  # noqa: ARG005
    """Shows a message on what is waited for."""

    def wait_for_memory(self, request: MemoryRequest, name: str) -> Sequence[str]:
        """Ask for memory until there is enough, as long as it takes; return the devices."""
        notified = False
        while (gpus := self.reserve(request)) is None:
            if not notified:
                self.notify(f"waiting to load {name}: {NO_MEMORY}")
            notified = True
            time.sleep(_POLL_S)
        return gpus


@dataclass(frozen=True, slots=True)
class DeviceFootprint:
    """Memory that a model in this process takes of a device."""

    uuid: str
    """UUID of the device, as the driver spells it behind `GPU-`."""
    index: int
    """Index of the device among those that this process sees."""
    reserved_bytes: int
    """Reserved by torch now; the driver counts more."""
    working_bytes: int
    """Needed on top of what is held after loading: to read prompts and to generate."""
