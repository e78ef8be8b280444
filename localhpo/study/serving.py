"""The model, as one who holds memory beside the trials."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from localhpo.creator import Creator
from localhpo.llm.hosting import Host, OnDevice
from localhpo.scheduler import footprint
from localhpo.scheduler.machine import SERVER, Machine
from localhpo.scheduler.placement import Assignment, Gpu, Inventory
from localhpo.scheduler.tenant import InProcess, Managed, Tenant
from localhpo.study.starting import (
    Room,
    device_of,
    need_mb,
    on_devices,
    on_host,
    usable_mb,
)
from localhpo.task import Task

if TYPE_CHECKING:
    from localhpo.llm.vllm import ManagedServer

_MB = 2**20

Say = Callable[[Literal["note", "warning"], str], None]
"""Tells the user, and the record."""

_Found = tuple[Assignment, Callable[[int], float | None]]
"""What a server holds, and what measures it again, from its process."""


class Serving:
    """The model of one run of a study: where it is loaded, and what it holds.

    Attributes:
        inventory: What trials and the model may use.
        machine: What studies of this machine hold; None where trials run elsewhere.

    Args:
        task: Says where the model is to be.
        inventory: As it was found before the model was there.
        machine: What studies of the model's machine hold; closed with this.
        say: Tells what is waited for, and what cannot be measured.
        home: What the model's process may use, where that is not the same.
    """

    def __init__(
        self,
        task: Task,
        inventory: Inventory,
        machine: Machine | None,
        say: Say,
        home: Inventory | None = None,
    ) -> None:
        self.inventory = inventory
        self._task = task
        self._at_home = machine
        self.machine = machine if task.resources.executor == "process" else None
        self._say = say
        self._room = Room(home or inventory, machine)

    @property
    def host(self) -> Host:
        """Whom the model asks before it is loaded."""
        return Host(self._room.find, partial(self._say, "note"))

    def tenant(self, creator: Creator) -> Tenant | None:
        """Return the model of a Creator that was opened: its server runs, whoever started it.

        None for a model in this process that is on no device, unless the task has it kept there;
        for a server that the user started (what it holds is foreign memory); and for one on no
        device of ours.
        """
        server: ManagedServer | None = getattr(creator, "server", None)
        if server is None:
            return self._in_process(creator)
        if (pid := server.pid) is None:
            return None
        if self._at_home is not None and (claim := self._room.claimed(pid)):
            self._at_home.hold(SERVER, claim)  # others may end before this study does
        found = _held_of_host(pid) if server.on_cpu else self._held_of_devices(server, pid)
        if found is None:
            return None
        holds, measure = found
        if len(holds.gpus) == server.settings.devices:
            server.gpus = holds.gpus  # if it is started again, then where it is counted
        return Managed(
            server,
            holds=holds,
            measure=measure,
            can_sleep=server.can_sleep,
            weights_mb=server.weight_bytes / _MB,
            host_free_mb=footprint.host_free_mb,
        )

    def close(self) -> None:
        """Hold nothing any more."""
        if self._at_home is not None:
            self._at_home.close()

    @property
    def _gpus(self) -> dict[str, Gpu]:
        """The devices of this machine."""
        here = self._task.resources.executor == "process"
        return {gpu.id: gpu for gpu in self.inventory.gpus} if here else {}

    def _in_process(self, creator: Creator) -> InProcess | None:
        place: OnDevice | None = getattr(creator, "on_device", None)
        if place is None:
            return InProcess() if _is_kept_in_host_memory(creator, self._task) else None
        gpu = device_of(list(self._gpus.values()), place.uuid, place.index)
        if gpu is None:
            return None
        held_mb = footprint.device_mb(os.getpid(), gpu.id)
        if held_mb is None:
            held_mb = place.reserved_bytes / _MB
        holds_mb = min(held_mb + place.room_bytes / _MB, usable_mb(gpu))
        return InProcess(on_devices((gpu.id,), holds_mb))

    def _held_of_devices(self, server: ManagedServer, pid: int) -> _Found | None:
        held = {id: footprint.device_mb(pid, id) for id in self._gpus}
        if all(mb is None for mb in held.values()):
            return self._unseen(server, pid)
        gpus = tuple(id for id, mb in held.items() if mb is None or mb > 0)
        held_mb = _most_mb(pid, gpus)
        if held_mb is None:
            return self._unseen(server, pid, gpus) if gpus else None
        return on_devices(gpus, held_mb), partial(_most_mb, gpus=gpus)

    def _unseen(self, server: ManagedServer, pid: int, gpus: tuple[str, ...] = ()) -> _Found | None:
        """Return what to count for a server of which the driver does not tell what it holds.

        Of one that was started in this run, by how much more is used of its devices since; of
        another, what the study counts that started it; else what it asks for.

        Args:
            server: It runs.
            pid: Of its process.
            gpus: Its devices, where at least they are known.
        """
        claim = self._room.claim
        theirs = None if claim else self._room.claimed(pid)
        known = gpus or (claim or theirs or self._unclaimed(server)).gpus
        devices = [self._gpus[id] for id in known if id in self._gpus]
        if not devices:
            return None
        measure: Callable[[int], float | None] = partial(_grown_mb, devices=devices)
        held_mb, how = measure(pid), "by how much more is used of it"
        if not claim or held_mb is None or held_mb < server.weight_bytes / _MB:
            measure = _nobody_can_tell
            held_mb, how = need_mb(server.wanted, devices), "as much as it asks for"
        if not claim:
            if theirs:
                held_mb, how = theirs.gpu_memory_mb, "as the other studies do that use it"
            # In place, as `Runs.look` does: ledger, estimates and loop look at the same inventory.
            self.inventory.gpus = _less_foreign(self.inventory.gpus, devices, held_mb)
        ids = tuple(gpu.id for gpu in devices)
        self._say(
            "warning",
            "the driver does not tell what the model's server holds (in a container it numbers"
            f" processes as the host does); of device {', '.join(ids)} {held_mb:.0f} MB are"
            f" counted, {how}",
        )
        return on_devices(ids, held_mb), measure

    def _unclaimed(self, server: ManagedServer) -> Assignment:
        """Return where a server is that nobody has claimed anything for: first, as far as known."""
        return on_devices(server.settings.gpus or tuple(self._gpus)[: server.settings.devices], 0.0)


def _is_kept_in_host_memory(creator: Creator, task: Task) -> bool:
    has_model = hasattr(creator, "server")
    chosen = task.resources.sharing == "cpu" and task.creator.backend == "transformers"
    return has_model and chosen


def _held_of_host(pid: int) -> _Found | None:
    held_mb = footprint.host_mb(pid)
    return (on_host(held_mb), footprint.host_mb) if held_mb else None


def _most_mb(pid: int, gpus: Sequence[str]) -> float | None:
    """Return what a server holds of the device of which it holds most; None where nobody can tell.

    The parts of a model that is spread over devices are about as large as each other.
    """
    held = [footprint.device_mb(pid, gpu) for gpu in gpus]
    known = [mb for mb in held if mb is not None]
    return max(known, default=None) if len(known) == len(held) else None


def _grown_mb(pid: int, devices: Sequence[Gpu]) -> float | None:  # noqa: ARG001 - as others measure
    """Return how much more is used of the device where that is most than others held at first.

    Trials beside the server count as its own, so that it is never too little: what others have
    given back since is counted as theirs.
    """
    used = [footprint.device_used_mb(gpu.id) for gpu in devices]
    grown = [mb - gpu.foreign_mb for mb, gpu in zip(used, devices, strict=True) if mb is not None]
    return max(0.0, *grown) if len(grown) == len(devices) else None


def _nobody_can_tell(pid: int) -> None:
    """Measure nothing."""


def _less_foreign(gpus: Sequence[Gpu], devices: Sequence[Gpu], held_mb: float) -> tuple[Gpu, ...]:
    """Count memory of some devices as the server's, as far as it was taken for somebody else's.

    That it was is clear where both together would be more than is used.
    """

    def corrected(gpu: Gpu) -> Gpu:
        used_mb = footprint.device_used_mb(gpu.id)
        if gpu not in devices or used_mb is None:
            return gpu
        twice_mb = min(held_mb, max(0.0, gpu.foreign_mb + held_mb - used_mb))
        return dataclasses.replace(gpu, foreign_mb=max(0.0, gpu.foreign_mb - twice_mb))

    return tuple(map(corrected, gpus))
