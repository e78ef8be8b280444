"""The executor that runs the trials of a task, and the resources that it offers."""

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
from localhpo.resources.admission import admit_task
from localhpo.resources.broker import ResourceBroker
from localhpo.resources.inventory import find_inventory
from localhpo.resources.placement import Gpu, Inventory
from localhpo.study.model_placement import ModelPlacement, Notify
from localhpo.study.session import naming_file
from localhpo.task import Resources, Task, with_data


def find_execution_target(
    task: Task, executor: Executor | None = None
) -> tuple[Executor, Inventory]:
    """Return the executor of a task and its resources; refuse a task that can never run there.

    Args:
        task: Task to be run.
        executor: Runs the trials instead of the executor that the task names.

    Raises:
        TaskError: a trial of this task can never run, or its budget cannot bound it.
        ExecutorError, MissingExtraError: the cluster that the task names cannot be used.
    """
    if executor is not None or task.resources.executor == "process":
        return executor or ProcessExecutor(), admit_task(task)
    cluster = RayExecutor(task.resources.ray_address)
    try:
        return cluster, admit_task(task, cluster_inventory(task.resources, cluster.nodes))
    except BaseException:
        cluster.close()
        raise


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


def check_script(task: Task) -> None:
    """Check the command of a task, and that the program that it starts exists.

    Raises:
        TaskError: the command cannot be run.
    """
    with naming_file(task):
        check_command(task.command, task)
        check_program(task.command, task.folder, task.env.get("PATH", os.environ.get("PATH")))


def check_ready(task: Task) -> None:
    """Check that trials of a task can start: its script, and its data where trials run here.

    Raises:
        TaskError: the script cannot be run.
        DataError: the data do not exist. On the nodes of a cluster they are not checked.
    """
    check_script(task)
    if task.resources.executor == "process":
        with_data(task)


def cluster_inventory(resources: Resources, nodes: Sequence[Node]) -> Inventory:
    """Return the resources of a cluster that trials with equal needs can use.

    A trial runs on one node, so each node counts with what whole trials can fill: two nodes of 3
    CPUs run two trials of 2 CPUs, not three.

    Raises:
        TaskError: no node can run a trial.
    """
    counts = [node.holds(resources) for node in nodes]
    if not any(counts):
        raise TaskError(
            _describe_too_large(resources, nodes), hint="`ray status` shows what the nodes offer"
        )
    gpus = [
        Gpu(f"{node.id[:8]}/{index}")
        for node, count in zip(nodes, counts, strict=True)
        for index in range(math.ceil(count * resources.gpus))
    ]
    # A fraction of a CPU is rounded up: Ray itself starts no trial without free resources.
    return Inventory(cpus=math.ceil(sum(counts) * resources.cpus), gpus=tuple(gpus))


def _describe_too_large(resources: Resources, nodes: Sequence[Node]) -> str:
    wants = [f"cpus = {resources.cpus:g}", f"gpus = {resources.gpus:g}"]
    if resources.memory_mb:
        wants.append(f"memory_mb = {resources.memory_mb:g}")
    offers = sorted({f"{n.cpus:g}, {n.gpus} and {n.memory_mb:.0f}" for n in nodes})
    return (
        f"[resources] no node of the Ray cluster can run a trial, which needs {', '.join(wants)};"
        f" its {len(nodes)} nodes have {'; '.join(offers)} (CPUs, GPUs and MB of memory)"
    )
