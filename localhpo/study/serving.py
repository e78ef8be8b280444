"""The model, as one who holds memory beside the trials."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from localhpo.creator import Creator
from localhpo.scheduler import footprint
from localhpo.scheduler.placement import Assignment, Inventory
from localhpo.scheduler.tenant import InProcess, Managed, Tenant
from localhpo.task import Task

if TYPE_CHECKING:
    from localhpo.llm.vllm import ManagedServer

_MB = 2**20


def find_tenant(creator: Creator, inventory: Inventory, task: Task) -> Tenant | None:
    """Return the server that a Creator's model runs in, whoever of our studies started it.

    None for a model in this process, unless the task has it kept in host memory; for a server
    that the user started (what it holds is foreign memory); and where nobody can measure what
    it holds.

    Args:
        creator: As it was opened: its server runs.
        inventory: What trials may use.
        task: Says where the model is to be.
    """
    server = _server(creator)
    if server is None:
        return InProcess() if _is_kept_in_host_memory(creator, task) else None
    if server.pid is None:
        return None
    if server.on_cpu:
        gpus: tuple[str, ...] = ()
        measure = footprint.host_mb
    else:
        gpus = _gpus_of(server.pid, inventory)
        measure = partial(_most_mb, gpus=gpus)
    held_mb = measure(server.pid)
    if not held_mb:
        return None
    return Managed(
        server,
        holds=Assignment(0.0, gpus=gpus, gpu_share=0.0, gpu_memory_mb=held_mb)
        if gpus
        else Assignment(0.0, memory_mb=held_mb, gpu_share=0.0),
        measure=measure,
        can_sleep=server.can_sleep,
        weights_mb=server.weight_bytes / _MB,
        host_free_mb=footprint.host_free_mb,
    )


def server_pid(creator: Creator) -> int | None:
    """Return the process of the server that a Creator's model runs in now; None without one."""
    server = _server(creator)
    return None if server is None else server.pid


def _server(creator: Creator) -> ManagedServer | None:
    return getattr(creator, "server", None)


def _is_kept_in_host_memory(creator: Creator, task: Task) -> bool:
    has_model = hasattr(creator, "server")
    chosen = task.resources.sharing == "cpu" and task.creator.backend == "transformers"
    return has_model and chosen


def _gpus_of(pid: int, inventory: Inventory) -> tuple[str, ...]:
    """Return the devices of which a server holds memory, or may: the driver does not tell."""
    held = {gpu.id: footprint.device_mb(pid, gpu.id) for gpu in inventory.gpus}
    return tuple(id for id, mb in held.items() if mb is None or mb > 0)


def _most_mb(pid: int, gpus: Sequence[str]) -> float | None:
    """Return what a server holds of the device of which it holds most; None where nobody can tell.

    The parts of a model that is spread over devices are about as large as each other.
    """
    held = [footprint.device_mb(pid, gpu) for gpu in gpus]
    known = [mb for mb in held if mb is not None]
    return max(known, default=None) if len(known) == len(held) else None
