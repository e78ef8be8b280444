"""The model's server, as one who holds memory beside the trials."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from localhpo.creator import Creator
from localhpo.scheduler import footprint
from localhpo.scheduler.placement import Assignment, Inventory
from localhpo.scheduler.tenant import Managed, Tenant

if TYPE_CHECKING:
    from localhpo.llm.vllm import ManagedServer

_MB = 2**20


def find_tenant(creator: Creator, inventory: Inventory) -> Tenant | None:
    """Return the server that a Creator's model runs in, whoever of our studies started it.

    None for a model in this process, for a server that the user started (what it holds is
    foreign memory), and where nobody can measure what it holds.

    Args:
        creator: As it was opened: its server runs.
        inventory: What trials may use.
    """
    server = _server(creator)
    if server is None or server.pid is None:
        return None
    gpu = None if server.on_cpu else _first_gpu(server, inventory)
    if gpu is None:
        held_mb = footprint.host_mb(server.pid)
        holds = Assignment(0.0, memory_mb=held_mb or 0.0, gpu_share=0.0)
        measure = footprint.host_mb
    else:
        held_mb = footprint.device_mb(server.pid, gpu)
        holds = Assignment(0.0, gpus=(gpu,), gpu_share=0.0, gpu_memory_mb=held_mb or 0.0)
        measure = partial(footprint.device_mb, gpu=gpu)
    if not held_mb:
        return None
    return Managed(
        server, holds=holds, measure=measure, can_sleep=server.can_sleep,
        weights_mb=server.weight_bytes / _MB,
        host_free_mb=footprint.host_free_mb,
    )  # fmt: skip


def server_pid(creator: Creator) -> int | None:
    """Return the process of the server that a Creator's model runs in now; None without one."""
    server = _server(creator)
    return None if server is None else server.pid


def _server(creator: Creator) -> ManagedServer | None:
    return getattr(creator, "server", None)


def _first_gpu(server: ManagedServer, inventory: Inventory) -> str | None:
    """Return the device that it takes: the first that it was given, or sees."""
    visible = server.settings.gpus or os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    known = [gpu.id for gpu in inventory.gpus]
    return next((id for id in visible if id in known), known[0] if known else None)
