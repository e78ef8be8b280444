"""Measures what each trial, and the model, uses of the devices while they run.

A process on a device belongs to a trial when its environment names the trial's folder
(`LOCALHPO_TRIAL_DIR`); to the model when it is this process, the server that it uses, or one that
either has started; and to others otherwise. In some containers processes cannot be looked up,
because the driver reports the host's process ids. There, a trial that has its devices to itself is
taken to use what was not in use before it began; one that shares them is not measured.

Limits: memory that comes and goes between two readings (half a second) is missed. The driver does
not split energy and utilization of a shared device: each trial on it, and the model, gets an equal
part of the energy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from localhpo.resources import broker as resource_broker
from localhpo.resources.nvml import DeviceReading

REFRESH_S = 0.5
"""Between two readings of the devices."""
MIN_SHARED_MB = 100.0
"""Another process that holds less does not count as sharing the device."""

Owner = Path | Literal["model", "others"] | None
"""To whom a process belongs: a trial, by its folder; None where it cannot be looked up."""


ReadDevices = Callable[[], Sequence[DeviceReading] | None]
"""Returns the state of every device; None where they are gone. `nvml.Nvml.read` is one."""


@dataclass(slots=True)
class DeviceUse:
    """What a trial or the model has used of the devices so far."""

    peak_mb: float | None = None
    """Peak memory, of the device where it is highest; None where it was not measured."""
    gpu_s: float = 0.0
    """Seconds of holding memory, summed over the devices."""
    energy_j: float | None = None
    utilization_s: float = 0.0
    """Utilization, integrated over `measured_s`."""
    measured_s: float = 0.0

    @property
    def utilization(self) -> float | None:
        """Mean share of time in which the devices computed, 0 to 1."""
        return self.utilization_s / self.measured_s if self.measured_s else None

    def add_energy(self, energy_j: float | None) -> None:
        """Add measured joules; None adds nothing."""
        if energy_j is not None:
            self.energy_j = (self.energy_j or 0.0) + energy_j


@dataclass(slots=True)
class _TrackedTrial:
    devices: tuple[str, ...]
    use: DeviceUse = field(default_factory=DeviceUse)
    before_mb: dict[str, float] = field(default_factory=dict)
    """Used memory by device when the trial began."""
    has_shared: bool = False
    """Whether it ever shared a device (without one: the machine)."""
    growth_mb: float | None = None
    """Peak growth of the used memory since it began: the trial's own where it was alone."""
    growth_invalid: bool = False
    """Whether it shared a device while processes were unknown: growth is not all its own."""


class Meter:
    """Measures trials on their devices. Not thread-safe.

    Args:
        read_devices: Reads the devices; None where there are none to read.
        now: Returns seconds that never go back.
        owner_of: Returns to whom a process belongs.
    """

    def __init__(
        self,
        read_devices: ReadDevices | None,
        now: Callable[[], float] = time.monotonic,
        owner_of: Callable[[int], Owner] | None = None,
    ) -> None:
        self._read_devices = read_devices
        self._now = now
        self._owner_of = owner_of or process_owner
        self._owners: dict[int, Owner] = {}
        self._tracks: dict[Path, _TrackedTrial] = {}
        self._last: dict[str, DeviceReading] = {}
        self._read_at = now()
        self.model = DeviceUse()
        """What the model has used."""

    @property
    def measures_energy(self) -> bool:
        """Whether a device reports its energy or its power."""
        readings = self._read_devices() if self._read_devices is not None else None
        return any(one.energy_j is not None or one.power_w is not None for one in readings or ())

    def begin(self, folder: Path, devices: Sequence[str]) -> None:
        """Start measuring the trial of a folder on its devices (ids)."""
        self._read()
        track = _TrackedTrial(tuple(devices))
        known = {id: self._last[id].used_mb for id in devices if id in self._last}
        track.before_mb = {id: mb for id, mb in known.items() if mb is not None}
        for other in self._tracks.values():
            if set(other.devices) & set(devices) or not (other.devices or devices):
                other.has_shared = track.has_shared = True
        self._tracks[folder] = track

    def refresh(self) -> None:
        """Read the devices if `REFRESH_S` have passed; cheap when called often."""
        if self._now() - self._read_at >= REFRESH_S:
            self._read()

    def has_shared(self, folder: Path) -> bool:
        """Return whether a trial ever shared a device, or where it has none the machine."""
        self._read()  # others may have come since the last reading, and be why it ended
        return self._tracks[folder].has_shared

    def end(self, folder: Path) -> DeviceUse:
        """Stop measuring a trial, and return what it used."""
        self._read()
        track = self._tracks.pop(folder)
        if track.use.peak_mb is None and not track.growth_invalid:
            track.use.peak_mb = track.growth_mb
        return track.use

    def _read(self) -> None:
        now = self._now()
        passed_s, self._read_at = now - self._read_at, now
        if self._read_devices is None:
            return
        readings = self._read_devices() or ()
        self._update_owners({pid for reading in readings for pid in reading.processes})
        for reading in readings:
            self._attribute(reading, passed_s)
            self._last |= dict.fromkeys(reading.names, reading)

    def _attribute(self, reading: DeviceReading, passed_s: float) -> None:
        held: dict[Owner, float] = {}
        for pid, mb in reading.processes.items():
            owner = self._owners[pid]
            held[owner] = held.get(owner, 0.0) + (mb or 0.0)
        here = {
            folder: track
            for folder, track in self._tracks.items()
            if not set(reading.names).isdisjoint(track.devices)
        }
        energy_j = self._energy(reading, passed_s)
        part_j = None if energy_j is None else energy_j / max(1, len(here) + ("model" in held))
        if "model" in held:
            self.model.gpu_s += passed_s
            self.model.peak_mb = max(self.model.peak_mb or 0.0, held["model"]) or None
            self.model.add_energy(part_j)
        for folder, track in here.items():
            alone = len(here) == 1
            known = folder in held  # then so is who the others are
            others_mb = sum(mb for one, mb in held.items() if one != folder and (one or known))
            track.has_shared |= not alone or others_mb > MIN_SHARED_MB
            if known:
                track.use.peak_mb = max(track.use.peak_mb or 0.0, held[folder])
            elif not any(held):
                self._note_growth(track, reading, alone)
            self._add(track, reading, passed_s)
            track.use.add_energy(part_j)

    @staticmethod
    def _note_growth(track: _TrackedTrial, reading: DeviceReading, alone: bool) -> None:
        """Measure by growth, on a device whose processes cannot be looked up."""
        before_mb = [mb for id, mb in track.before_mb.items() if id in reading.names]
        track.growth_invalid |= not alone or not before_mb
        if before_mb and reading.used_mb is not None:
            track.growth_mb = max(track.growth_mb or 0.0, reading.used_mb - before_mb[0])

    @staticmethod
    def _add(track: _TrackedTrial, reading: DeviceReading, passed_s: float) -> None:
        track.use.gpu_s += passed_s
        if reading.utilization is not None:
            track.use.utilization_s += reading.utilization * passed_s
            track.use.measured_s += passed_s

    def _energy(self, reading: DeviceReading, passed_s: float) -> float | None:
        """Return the joules since the last reading: by the counter, else by the present power."""
        last = self._last.get(reading.id)
        if last is not None and last.energy_j is not None and reading.energy_j is not None:
            return max(0.0, reading.energy_j - last.energy_j)
        return None if reading.power_w is None else reading.power_w * passed_s

    def _update_owners(self, pids: Collection[int]) -> None:
        """Look up the owners of these processes, and forget those of processes that are gone.

        A process id may be reused. A process that is not ours is looked up each time: a server is
        known as ours only once the resource broker lists it.
        """
        known = {pid: owner for pid, owner in self._owners.items() if owner not in (None, "others")}
        self._owners = {pid: known.get(pid) or self._owner_of(pid) for pid in pids}


def process_owner(pid: int) -> Owner:
    """Return to whom a process belongs."""
    try:
        process = psutil.Process(pid)
        if folder := process.environ().get("LOCALHPO_TRIAL_DIR"):
            return Path(folder)
        family = {pid, *(parent.pid for parent in process.parents())}
    except psutil.NoSuchProcess:
        return None
    except (psutil.Error, OSError):  # of another user
        return "others"
    me = os.getpid()
    ours = me in family or not family.isdisjoint(resource_broker.read_server_pids(me))
    return "model" if ours else "others"
