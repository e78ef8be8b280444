"""Where the model of a run is loaded, and the memory that it holds beside the trials.

`ModelReservation` claims memory before the model is loaded; `ModelPlacement` measures afterwards.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Literal

from localhpo.creator import Creator
from localhpo.errors import InputError
from localhpo.llm import BACKENDS
from localhpo.llm.placement import MemoryRequest, ModelPlacer
from localhpo.llm.protocol import Backend, ModelServer
from localhpo.resources import footprint, placement
from localhpo.resources.broker import MODEL_CLAIM, ResourceBroker
from localhpo.resources.inventory import find_inventory
from localhpo.resources.placement import Assignment, Gpu, Inventory
from localhpo.scheduler.loaded_model import InProcessModel, LoadedModel, ServerModel
from localhpo.task import Task

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
        claims = (
            entry.claims[MODEL_CLAIM]
            for entry in self._broker.read_entries()
            if entry.server_pid == pid and MODEL_CLAIM in entry.claims
        )
        return next(claims, None)

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


_MB = 2**20  # bytes

Notify = Callable[[Literal["note", "warning"], str], None]
"""Shows a message to the user and records it as an event."""

_Measured = tuple[Assignment, Callable[[int], float | None]]
"""What a server holds, and a function from its process id to what it holds later."""


class ModelPlacement:
    """Places the model of one run of a study, and measures what it holds.

    Attributes:
        inventory: Resources that trials and the model may use.
        broker: Claims of the studies on this machine; None where trials run elsewhere.

    Args:
        task: Task whose settings say where to put the model.
        inventory: Resources as found before the model was loaded.
        broker: Claims of the studies on the model's machine; closed with this.
        notify: Shows messages on waiting, and on what cannot be measured.
        model_inventory: Resources that the model's process may use, where they differ.
    """

    def __init__(
        self,
        task: Task,
        inventory: Inventory,
        broker: ResourceBroker | None,
        notify: Notify,
        model_inventory: Inventory | None = None,
    ) -> None:
        self.inventory = inventory
        self._task = task
        self._model_broker = broker
        self.broker = broker if task.resources.executor == "process" else None
        self._notify = notify
        self._reservation = ModelReservation(model_inventory or inventory, broker)

    @property
    def placer(self) -> ModelPlacer:
        """Where the model asks for memory before it is loaded."""
        return ModelPlacer(self._reservation.reserve, partial(self._notify, "note"))

    def find_loaded_model(self, creator: Creator) -> LoadedModel | None:
        """Return the model of an opened Creator, whoever started its server.

        None where its memory does not concern trials: a model in this process and on no device
        (unless the task keeps it there), a server that the user started (its memory is foreign
        memory), and a server on a device that trials cannot use.
        """
        backend = creator.backend
        if backend is None:
            return None
        server = backend.server
        if server is None:
            return self._find_in_process(backend)
        if (pid := server.pid) is None:
            return None
        if self._model_broker is not None and (claim := self._reservation.find_claim(pid)):
            # The study that started the server may end before this one does.
            self._model_broker.update_claim(MODEL_CLAIM, claim)
        measured = _measure_host(pid) if server.on_cpu else self._measure_devices(server, pid)
        if measured is None:
            return None
        assignment, measure = measured
        if len(assignment.gpus) == server.memory_request.device_count:
            server.gpus = assignment.gpus  # a restart must use the devices that are counted
        return ServerModel(
            server,
            assignment=assignment,
            measure=measure,
            can_sleep=server.can_sleep,
            weights_mb=server.weight_bytes / _MB,
            host_free_mb=footprint.measure_free_host_mb,
        )

    def close(self) -> None:
        """Give back what was reserved."""
        if self._model_broker is not None:
            self._model_broker.close()

    @property
    def _gpus(self) -> dict[str, Gpu]:
        """Devices of this machine, by id; empty where trials run elsewhere."""
        is_here = self._task.resources.executor == "process"
        return {gpu.id: gpu for gpu in self.inventory.gpus} if is_here else {}

    def _find_in_process(self, backend: Backend) -> InProcessModel | None:
        on_device = backend.on_device
        if on_device is None:
            return InProcessModel() if _is_kept_in_host_memory(self._task) else None
        gpu = find_device(list(self._gpus.values()), on_device.uuid, on_device.index)
        if gpu is None:
            return None
        held_mb = footprint.measure_device_mb(os.getpid(), gpu.id)
        if held_mb is None:
            held_mb = on_device.reserved_bytes / _MB
        needed_mb = min(held_mb + on_device.working_bytes / _MB, usable_mb(gpu))
        return InProcessModel(assign_devices((gpu.id,), needed_mb))

    def _measure_devices(self, server: ModelServer, pid: int) -> _Measured | None:
        held = {id: footprint.measure_device_mb(pid, id) for id in self._gpus}
        if all(mb is None for mb in held.values()):
            return self._estimate_devices(server, pid)
        gpus = tuple(id for id, mb in held.items() if mb is None or mb > 0)
        held_mb = _measure_largest_mb(pid, gpus)
        if held_mb is None:
            return self._estimate_devices(server, pid, gpus) if gpus else None
        return assign_devices(gpus, held_mb), partial(_measure_largest_mb, gpus=gpus)

    def _estimate_devices(
        self, server: ModelServer, pid: int, gpus: tuple[str, ...] = ()
    ) -> _Measured | None:
        """Return what to count for a server whose memory the driver does not report.

        For a server started in this run: the growth of the used memory of its devices. For one
        that another study started: what that study claims. Otherwise: what the server requested.

        Args:
            server: The running server.
            pid: Its process id.
            gpus: Its devices, where these at least are known.
        """
        own_claim = self._reservation.claim
        other_claim = None if own_claim else self._reservation.find_claim(pid)
        known = gpus or (own_claim or other_claim or self._guess_devices(server)).gpus
        devices = [self._gpus[id] for id in known if id in self._gpus]
        if not devices:
            return None
        measure: Callable[[int], float | None] = partial(_measure_growth_mb, devices=devices)
        held_mb, source = measure(pid), "the growth of the memory in use since it was started"
        if not own_claim or held_mb is None or held_mb < server.weight_bytes / _MB:
            measure = _measure_nothing
            held_mb, source = requested_mb(server.memory_request, devices), "what it requested"
        if not own_claim:
            if other_claim:
                held_mb, source = other_claim.gpu_memory_mb, "what the study claims that started it"
            # In place: broker, estimates and loop share this inventory.
            self.inventory.gpus = _reduce_foreign(self.inventory.gpus, devices, held_mb)
        ids = tuple(gpu.id for gpu in devices)
        self._notify(
            "warning",
            "the driver does not report the memory of the model's server (in a container it reports"
            f" the host's process ids); assuming {held_mb:.0f} MB of device {', '.join(ids)}:"
            f" {source}",
        )
        return assign_devices(ids, held_mb), measure

    def _guess_devices(self, server: ModelServer) -> Assignment:
        """Return the devices of a server without a claim: its own, or the first."""
        request = server.memory_request
        return assign_devices(request.gpus or tuple(self._gpus)[: request.device_count], 0.0)


def make_model_placement(
    task: Task,
    key: str,
    inventory: Inventory,
    server_pid: Callable[[], int | None],
    notify: Notify,
) -> ModelPlacement:
    """Return the placement of the model on this machine, beside what its studies hold.

    The resources of a Ray cluster are not claimed: Ray manages them itself.

    Args:
        task: Task to be run.
        key: Name of the study.
        inventory: Resources that trials may use.
        server_pid: Returns the process of the model's server.
        notify: Shows messages on waiting to the user.
    """
    is_here = task.resources.executor == "process"
    same_devices = is_here and "CUDA_VISIBLE_DEVICES" not in task.env
    model_inventory = inventory if same_devices else find_inventory()
    shared = inventory if is_here else model_inventory
    broker = ResourceBroker(key, shared, priority=task.resources.priority, server_pid=server_pid)
    return ModelPlacement(task, inventory, broker, notify, model_inventory)


def _is_kept_in_host_memory(task: Task) -> bool:
    return task.resources.sharing == "cpu" and BACKENDS.takes(task.creator.backend, "device")


def _measure_host(pid: int) -> _Measured | None:
    held_mb = footprint.measure_host_mb(pid)
    return (assign_host_memory(held_mb), footprint.measure_host_mb) if held_mb else None


def _measure_largest_mb(pid: int, gpus: Sequence[str]) -> float | None:
    """Return what a server holds of the device of which it holds most; None where not reported.

    The parts of a model that is split over devices are about equally large.
    """
    held = [footprint.measure_device_mb(pid, gpu) for gpu in gpus]
    known = [mb for mb in held if mb is not None]
    return max(known, default=None) if len(known) == len(held) else None


def _measure_growth_mb(pid: int, devices: Sequence[Gpu]) -> float | None:  # noqa: ARG001 - signature
    """Return the growth of used memory over foreign memory, on the device where it is largest.

    Trials beside the server are included, so that the result is never too small; memory that other
    programs have freed since is not.
    """
    used = [footprint.measure_used_device_mb(gpu.id) for gpu in devices]
    growth = [mb - gpu.foreign_mb for mb, gpu in zip(used, devices, strict=True) if mb is not None]
    return max(0.0, *growth) if len(growth) == len(devices) else None


def _measure_nothing(pid: int) -> None:
    """Return None: nothing can be measured."""


def _reduce_foreign(gpus: Sequence[Gpu], devices: Sequence[Gpu], held_mb: float) -> tuple[Gpu, ...]:
    """Return devices without the server's memory in `foreign_mb`, as far as it was counted there.

    It was where the foreign memory and the server's together exceed the memory in use.
    """

    def corrected(gpu: Gpu) -> Gpu:
        used_mb = footprint.measure_used_device_mb(gpu.id)
        if gpu not in devices or used_mb is None:
            return gpu
        counted_twice_mb = min(held_mb, max(0.0, gpu.foreign_mb + held_mb - used_mb))
        return dataclasses.replace(gpu, foreign_mb=max(0.0, gpu.foreign_mb - counted_twice_mb))

    return tuple(map(corrected, gpus))
