"""What each trial, and the model, takes of the devices: measured while they run.

A process on a device is a trial's when its environment names the trial's folder
(`LOCALHPO_TRIAL_DIR`), the model's when it is this process, the server that it uses, or one that
either has started, and somebody else's otherwise. Where processes cannot be looked up (a container
that sees the numbers of the host) a trial that has its devices to itself is taken to use what was
not used before it began; one that shares them is not measured.

What is not covered: memory that comes and goes between two looks (half a second); energy and
utilization of a shared device are not told apart by the driver, and each trial on it, and the
model, gets an equal part of the energy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import psutil

from localhpo.executor.clock import Clock
from localhpo.scheduler import machine
from localhpo.scheduler.nvml import Reading

LOOK_S = 0.5
"""Between two looks."""
BESIDE_MB = 100.0
"""Of another process, from which it counts as company."""

Owner = Path | Literal["model", "others"] | None
"""Folder of a trial; None for a process that cannot be looked up."""


class Devices(Protocol):
    """Tells what devices hold and do; `nvml.Nvml` is one."""

    def read(self) -> Sequence[Reading] | None:
        """Return every device, now; None where they are gone."""
        ...

    def close(self) -> None:
        """Let go of them."""
        ...


@dataclass(slots=True)
class DeviceUse:
    """What somebody took of the devices so far."""

    peak_mb: float | None = None
    """Of the device where it took most; None where it was not measured."""
    gpu_s: float = 0.0
    """Seconds in which it held memory, times the devices."""
    energy_j: float | None = None
    utilization_s: float = 0.0
    """Utilization, integrated over `looked_s`."""
    looked_s: float = 0.0

    @property
    def utilization(self) -> float | None:
        """Mean share of time in which its devices computed, 0 to 1."""
        return self.utilization_s / self.looked_s if self.looked_s else None

    def add_energy(self, energy_j: float | None) -> None:
        """Add what was measured; nothing where it was not."""
        if energy_j is not None:
            self.energy_j = (self.energy_j or 0.0) + energy_j


@dataclass(slots=True)
class _Track:
    devices: tuple[str, ...]
    use: DeviceUse = field(default_factory=DeviceUse)
    before_mb: dict[str, float] = field(default_factory=dict)
    """By device, as it began."""
    had_company: bool = False
    grown_mb: float | None = None
    """Of its devices since it began, at the peak: its own where it was alone."""
    shared_unseen: bool = False
    """Whether it shared a device while nobody's processes were known: growth tells nothing."""


class Meter:
    """Follows trials on their devices. Not for several threads."""

    def __init__(
        self,
        devices: Devices | None,
        clock: Clock,
        owner_of: Callable[[int], Owner] | None = None,
    ) -> None:
        """Look at these devices; None where there is nothing to look at."""
        self._devices = devices
        self._clock = clock
        self._owner_of = owner_of or process_owner
        self._owners: dict[int, Owner] = {}
        self._tracks: dict[Path, _Track] = {}
        self._last: dict[str, Reading] = {}
        self._looked_at = clock.monotonic()
        self.model = DeviceUse()
        """What the model took."""

    def begin(self, folder: Path, devices: Sequence[str]) -> None:
        """Follow the trial of that folder, which was given these devices (ids)."""
        self._look()
        track = _Track(tuple(devices))
        known = {id: self._last[id].used_mb for id in devices if id in self._last}
        track.before_mb = {id: mb for id, mb in known.items() if mb is not None}
        for other in self._tracks.values():
            if set(other.devices) & set(devices) or not (other.devices or devices):
                other.had_company = track.had_company = True
        self._tracks[folder] = track

    def look(self) -> None:
        """Measure, if it is time to; cheap when called often."""
        if self._clock.monotonic() - self._looked_at >= LOOK_S:
            self._look()

    def had_company(self, folder: Path) -> bool:
        """Return whether the trial ever shared a device, or where it has none the machine."""
        self._look()  # others may have come since the last one, and be why it ended
        return self._tracks[folder].had_company

    def end(self, folder: Path) -> DeviceUse:
        """Return what the trial took, and follow it no more."""
        self._look()
        track = self._tracks.pop(folder)
        if track.use.peak_mb is None and not track.shared_unseen:
            track.use.peak_mb = track.grown_mb
        return track.use

    def close(self) -> None:
        """Let go of the devices. May be called twice."""
        if self._devices is not None:
            self._devices.close()
            self._devices = None

    def _look(self) -> None:
        now = self._clock.monotonic()
        passed_s, self._looked_at = now - self._looked_at, now
        if self._devices is None:
            return
        readings = self._devices.read() or ()
        self._recall({pid for reading in readings for pid in reading.processes})
        for reading in readings:
            self._attribute(reading, passed_s)
            self._last |= dict.fromkeys(reading.names, reading)

    def _attribute(self, reading: Reading, passed_s: float) -> None:
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
            track.had_company |= not alone or others_mb > BESIDE_MB
            if known:
                track.use.peak_mb = max(track.use.peak_mb or 0.0, held[folder])
            elif not any(held):
                self._note_growth(track, reading, alone)
            self._add(track, reading, passed_s)
            track.use.add_energy(part_j)

    @staticmethod
    def _note_growth(track: _Track, reading: Reading, alone: bool) -> None:
        """Follow a device of which no process can be looked up."""
        before_mb = [mb for id, mb in track.before_mb.items() if id in reading.names]
        track.shared_unseen |= not alone or not before_mb
        if before_mb and reading.used_mb is not None:
            track.grown_mb = max(track.grown_mb or 0.0, reading.used_mb - before_mb[0])

    @staticmethod
    def _add(track: _Track, reading: Reading, passed_s: float) -> None:
        track.use.gpu_s += passed_s
        if reading.utilization is not None:
            track.use.utilization_s += reading.utilization * passed_s
            track.use.looked_s += passed_s

    def _energy(self, reading: Reading, passed_s: float) -> float | None:
        """Return the joules since the last look: by the counter, else by the power now."""
        last = self._last.get(reading.id)
        if last is not None and last.energy_j is not None and reading.energy_j is not None:
            return max(0.0, reading.energy_j - last.energy_j)
        return None if reading.power_w is None else reading.power_w * passed_s

    def _recall(self, pids: Collection[int]) -> None:
        """Know the owners of these processes, and no more of those that are gone.

        The number of one may come again. What is not ours is asked for each time: a server is known
        as ours only once the ledger of the machine says so.
        """
        known = {pid: owner for pid, owner in self._owners.items() if owner not in (None, "others")}
        self._owners = {pid: known.get(pid) or self._owner_of(pid) for pid in pids}


def process_owner(pid: int) -> Owner:
    """Return whose process it is."""
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
    ours = me in family or not family.isdisjoint(machine.servers_of(me))
    return "model" if ours else "others"
