"""Memory for the model, reserved on the machine before the model is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import combinations

from localhpo.errors import InputError
from localhpo.llm.placement import MemoryRequest
from localhpo.resources import placement
from localhpo.resources.broker import MODEL_CLAIM, ResourceBroker
from localhpo.resources.placement import Assignment, Gpu, Inventory

_MB = 2**20  # bytes


class ModelReservation:
    """Reserves memory for the model of one study.

    Args:
        inventory: Resources that the model's process may use.
        broker: Claims of the studies on this machine; None to reserve nothing.
    """

    def __init__(self, inventory: Inventory, broker: ResourceBroker | None) -> None:
        self._inventory = inventory
        self._broker = broker
        self.claim: Assignment | None = None
        """Claim for a model that was loaded in this run."""

    def reserve(self, request: MemoryRequest) -> Sequence[str] | None:
        """Claim memory for a model on the devices with most free memory; return these devices.

        None where it has to wait. It then waits for memory that trials hold, since trials end:
        memory that the models of other studies hold may never be free.

        Raises:
            InputError: the model is to be split over more devices than there are. Where no devices
                are known, there may be enough.
        """
        places, names = self._list_places(request, ()), self._name_devices(request)
        if not (request.on_cpu or request.gpus) and 0 < len(names) < request.gpu_count:
            raise InputError(
                f"model_gpus must be at most the number of GPUs that the model may use here,"
                f" {len(names)}; got {request.gpu_count}",
                hint="set model_gpus lower; `localhpo doctor` shows the GPUs that it finds, and how"
                " many a model needs",
            )
        if self._broker is None or not places:
            return ()
        wanted = self._find_free(request, self._broker.read_model_claims()) or places[0]
        self.claim = self._broker.claim(MODEL_CLAIM, wanted, partial(self._find_free, request))
        return None if self.claim is None else tuple(names[id] for id in self.claim.gpus)

    def find_claim(self, pid: int) -> Assignment | None:
        """Return the claim for the server of a process: of this run, or of another study."""
        if self.claim or self._broker is None:
            return self.claim
        return find_server_claim(self._broker, pid)

    def _find_free(self, request: MemoryRequest, others: Sequence[Assignment]) -> Assignment | None:
        """Return the first place with enough free memory beside what others hold."""
        places = self._list_places(request, others)
        free = (one for one in places if placement.fits_in_memory(self._inventory, others, one))
        return next(free, None)

    @property
    def _gpus(self) -> dict[str, Gpu]:
        return {gpu.id: gpu for gpu in self._inventory.gpus}

    def _name_devices(self, request: MemoryRequest) -> dict[str, str]:
        """Return the devices that the model may get: id -> the name that the request uses."""
        if not request.candidates:
            return {id: id for id in self._gpus}
        gpus = self._inventory.gpus
        found = {
            find_device(gpus, uuid, index): uuid for index, uuid in enumerate(request.candidates)
        }
        return {gpu.id: uuid for gpu, uuid in found.items() if gpu is not None}

    def _list_places(
        self, request: MemoryRequest, others: Sequence[Assignment]
    ) -> list[Assignment]:
        """Return where the model could be, devices with most free memory first."""
        if request.on_cpu:
            most_mb = self._inventory.memory_mb or math.inf
            return [assign_host_memory(min(request.size_bytes / _MB, most_mb))]
        free_mb = {
            id: usable_mb(self._gpus[id])
            - sum(held.gpu_memory_mb for held in others if id in held.gpus)
            for id in self._name_devices(request)
        }
        if request.gpus:
            groups = [request.gpus] if free_mb.keys() >= set(request.gpus) else []
        else:
            by_free_mb = sorted(free_mb, key=lambda id: -free_mb[id])
            groups = list(combinations(by_free_mb, request.gpu_count))
        return [
            assign_devices(group, requested_mb(request, [self._gpus[id] for id in group]))
            for group in groups
        ]


def requested_mb(request: MemoryRequest, gpus: Sequence[Gpu]) -> float:
    """Return the memory that a model asks for on each of its devices, at most all of a device.

    The request is an estimate: where it is too large for the device, loading the model decides.
    """
    share_mb = request.gpu_share * max(gpu.memory_mb or 0.0 for gpu in gpus)
    return min(max(request.size_bytes / _MB, share_mb), *map(usable_mb, gpus))


def find_device(gpus: Sequence[Gpu], uuid: str, index: int) -> Gpu | None:
    """Return a device of a process: by UUID, else by its index among the visible devices."""
    by_uuid = [gpu for gpu in gpus if gpu.id.endswith(uuid)]
    return next(iter([*by_uuid, *gpus[index : index + 1]]), None)


def usable_mb(gpu: Gpu) -> float:
    """Return the memory of a device that studies may use; infinity where it is not known."""
    return math.inf if gpu.usable_mb is None else gpu.usable_mb


def assign_host_memory(mb: float) -> Assignment:
    """Return the assignment of a model in host memory."""
    return Assignment(0.0, memory_mb=mb, gpu_share=0.0)


def assign_devices(gpus: tuple[str, ...], mb: float) -> Assignment:
    """Return the assignment of a model on devices, with as much memory on each."""
    return Assignment(0.0, gpus=gpus, gpu_share=0.0, gpu_memory_mb=mb)


def find_server_claim(broker: ResourceBroker, pid: int) -> Assignment | None:
    """Return the claim of a study that uses the model server of this process; None without one."""
    claims = (
        entry.claims[MODEL_CLAIM]
        for entry in broker.read_entries()
        if entry.server_pid == pid and MODEL_CLAIM in entry.claims
    )
    return next(claims, None)
