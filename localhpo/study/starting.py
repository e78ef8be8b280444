"""Room for the model, claimed in the ledger of the machine before it is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import combinations

from localhpo.errors import InputError
from localhpo.llm.hosting import Wanted
from localhpo.scheduler import placement
from localhpo.scheduler.machine import SERVER, Machine
from localhpo.scheduler.placement import Assignment, Gpu, Inventory

_MB = 2**20


class Room:
    """Finds it for one study.

    Args:
        inventory: What the model's process may use.
        machine: What studies of this machine hold; None where nobody asks.
    """

    def __init__(self, inventory: Inventory, machine: Machine | None) -> None:
        self._inventory = inventory
        self._machine = machine
        self.claim: Assignment | None = None
        """For a model that was loaded in this run."""

    def find(self, wanted: Wanted) -> Sequence[str] | None:
        """Claim what a model asks for, on the devices with most room; return its devices.

        None where it has to wait. What is waited for is where the end of trials would make the
        room: what the servers of other studies hold nobody can give.

        Raises:
            InputError: it is to be split over more devices than there are. Where none are known
                there may be enough.
        """
        places, names = self._places(wanted, ()), self._names(wanted)
        if not (wanted.on_cpu or wanted.gpus) and 0 < len(names) < wanted.split:
            raise InputError(
                f"model_gpus must be at most the number of GPUs that the model may use here,"
                f" {len(names)}; got {wanted.split}",
                hint="set model_gpus lower; `localhpo doctor` says which GPUs it sees, and how many"
                " a model takes",
            )
        if self._machine is None or not places:
            return ()
        wish = self._free(wanted, self._machine.models) or places[0]
        self.claim = self._machine.claim(SERVER, wish, partial(self._free, wanted))
        return None if self.claim is None else tuple(names[id] for id in self.claim.gpus)

    def claimed(self, pid: int) -> Assignment | None:
        """Return what to count for a server that runs: as claimed here, or as other studies do."""
        if self.claim or self._machine is None:
            return self.claim
        return held_by_server(self._machine, pid)

    def _free(self, wanted: Wanted, others: Sequence[Assignment]) -> Assignment | None:
        """Return the first place that has room beside what others hold."""
        places = self._places(wanted, others)
        free = (one for one in places if placement.has_room(self._inventory, others, one))
        return next(free, None)

    @property
    def _gpus(self) -> dict[str, Gpu]:
        return {gpu.id: gpu for gpu in self._inventory.gpus}

    def _names(self, wanted: Wanted) -> dict[str, str]:
        """Return the devices that a model may be given, and what it calls each of them."""
        if not wanted.among:
            return {id: id for id in self._gpus}
        gpus = self._inventory.gpus
        found = {device_of(gpus, uuid, place): uuid for place, uuid in enumerate(wanted.among)}
        return {gpu.id: uuid for gpu, uuid in found.items() if gpu is not None}

    def _places(self, wanted: Wanted, others: Sequence[Assignment]) -> list[Assignment]:
        """Return where a model could be, the devices with most room first."""
        if wanted.on_cpu:
            most_mb = self._inventory.memory_mb or math.inf
            return [on_host(min(wanted.size_bytes / _MB, most_mb))]
        free_mb = {
            id: usable_mb(self._gpus[id])
            - sum(held.gpu_memory_mb for held in others if id in held.gpus)
            for id in self._names(wanted)
        }
        if wanted.gpus:
            groups = [wanted.gpus] if free_mb.keys() >= set(wanted.gpus) else []
        else:
            groups = list(combinations(sorted(free_mb, key=lambda id: -free_mb[id]), wanted.split))
        return [on_devices(g, need_mb(wanted, [self._gpus[id] for id in g])) for g in groups]


def need_mb(wanted: Wanted, gpus: Sequence[Gpu]) -> float:
    """Return what a model asks for of each of its devices, or all that there is of one.

    It is an estimate: where it is too much, loading the model will say so.
    """
    share_mb = wanted.share * max(gpu.memory_mb or 0.0 for gpu in gpus)
    return min(max(wanted.size_bytes / _MB, share_mb), *map(usable_mb, gpus))


def device_of(gpus: Sequence[Gpu], uuid: str, place: int) -> Gpu | None:
    """Return the device that a process sees: by UUID, else by its place among the visible."""
    by_uuid = [gpu for gpu in gpus if gpu.id.endswith(uuid)]
    return next(iter([*by_uuid, *gpus[place : place + 1]]), None)


def usable_mb(gpu: Gpu) -> float:
    """Return what studies may use of a device; infinity where nobody knows."""
    return math.inf if gpu.usable_mb is None else gpu.usable_mb


def on_host(mb: float) -> Assignment:
    """Return what a model in host memory holds."""
    return Assignment(0.0, memory_mb=mb, gpu_share=0.0)


def on_devices(gpus: tuple[str, ...], mb: float) -> Assignment:
    """Return what a model on devices holds: as much of each."""
    return Assignment(0.0, gpus=gpus, gpu_share=0.0, gpu_memory_mb=mb)


def held_by_server(machine: Machine, pid: int) -> Assignment | None:
    """Return what a study counts that uses the server of that process; None where none does."""
    claims = (e.claims[SERVER] for e in machine.entries if e.server == pid and SERVER in e.claims)
    return next(claims, None)
