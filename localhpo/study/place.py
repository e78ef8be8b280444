"""Who runs the trials of a task, and what they may use there."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence

from localhpo.errors import TaskError
from localhpo.executor import (
    Executor,
    ProcessExecutor,
    RayExecutor,
    check_command,
    check_program,
)
from localhpo.executor.ray import Node
from localhpo.scheduler.admission import admit
from localhpo.scheduler.devices import find_inventory
from localhpo.scheduler.machine import Machine
from localhpo.scheduler.placement import Gpu, Inventory
from localhpo.study.serving import Say, Serving
from localhpo.study.session import naming_file
from localhpo.task import Resources, Task, with_data


def find_place(task: Task, executor: Executor | None = None) -> tuple[Executor, Inventory]:
    """Return the executor of a task, and what it offers; refuse a task that can never run there.

    Args:
        task: what is to be run.
        executor: runs the trials in place of the one that the task names.

    Raises:
        TaskError: a trial of this task can never run, or its budget cannot bound it.
        ExecutorError, MissingExtraError: the cluster that it names cannot be used.
    """
    if executor is not None or task.resources.executor == "process":
        return executor or ProcessExecutor(), admit(task)
    cluster = RayExecutor(task.resources.ray_address)
    try:
        return cluster, admit(task, cluster_inventory(task.resources, cluster.nodes))
    except BaseException:
        cluster.close()
        raise


def find_serving(
    task: Task, key: str, inventory: Inventory, server: Callable[[], int | None], say: Say
) -> Serving:
    """Return what finds room for the model, on this machine, beside what its studies hold.

    Ray has a ledger of its own for trials.

    Args:
        task: what is to be run.
        key: name of the study.
        inventory: what there is for trials.
        server: tells the process of the model's server.
        say: tells what is waited for.
    """
    here = task.resources.executor == "process"
    home = inventory if here and "CUDA_VISIBLE_DEVICES" not in task.env else find_inventory()
    offers = inventory if here else home
    machine = Machine(key, offers, priority=task.resources.priority, server=server)
    return Serving(task, inventory, machine, say, home)


def check_script(task: Task) -> None:
    """Check the command of a task, and that what it starts is there.

    Raises:
        TaskError: it cannot be run.
    """
    with naming_file(task):
        check_command(task.command, task)
        check_program(task.command, task.folder, task.env.get("PATH", os.environ.get("PATH")))


def check_ready(task: Task) -> None:
    """Check that trials of a task can begin: its script, and on this machine its data.

    Raises:
        TaskError: the script cannot be run.
        DataError: the data are not there. Those of a cluster's nodes are not looked for.
    """
    check_script(task)
    if task.resources.executor == "process":
        with_data(task)


def cluster_inventory(resources: Resources, nodes: Sequence[Node]) -> Inventory:
    """Return what the nodes of a cluster offer to trials that all need the same.

    A trial runs on one node, so what counts of a node is what whole trials fill: two nodes of 3
    CPUs run two trials of 2 CPUs, and not three.

    Raises:
        TaskError: no node can run a trial.
    """
    counts = [node.holds(resources) for node in nodes]
    if not any(counts):
        raise TaskError(_too_much(resources, nodes), hint="`ray status` shows what the nodes offer")
    gpus = [
        Gpu(f"{node.id[:8]}/{index}")
        for node, count in zip(nodes, counts, strict=True)
        for index in range(math.ceil(count * resources.gpus))
    ]
    # A part of a CPU counts as one: Ray itself lets no trial begin without room.
    return Inventory(cpus=math.ceil(sum(counts) * resources.cpus), gpus=tuple(gpus))


def _too_much(resources: Resources, nodes: Sequence[Node]) -> str:
    wants = [f"cpus = {resources.cpus:g}", f"gpus = {resources.gpus:g}"]
    if resources.memory_mb:
        wants.append(f"memory_mb = {resources.memory_mb:g}")
    offers = sorted({f"{n.cpus:g}, {n.gpus} and {n.memory_mb:.0f}" for n in nodes})
    return (
        f"[resources] one node of the Ray cluster must hold a trial: {', '.join(wants)};"
        f" its {len(nodes)} nodes have {'; '.join(offers)} (CPUs, GPUs and MB)"
    )
