"""Runs trials on the nodes of a Ray cluster. The laws stand in `localhpo.executor.protocol`."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from localhpo.errors import ExecutorError
from localhpo.executor.active_runs import ActiveRuns
from localhpo.executor.command import check_command
from localhpo.executor.protocol import Job
from localhpo.executor.ray.cluster import Cluster, Node
from localhpo.executor.ray.node import NodeTrial
from localhpo.executor.ray.run import RayRun
from localhpo.task import Resources

RETRIES = 3
"""How often a trial whose node was lost runs again."""
NO_NODE_S = 120.0
"""Seconds that a trial waits while no node of the cluster could run it: one may come back."""
CHECK_NODES_S = 5.0
"""Seconds between two checks of the nodes while a trial waits."""
_MB = 2**20

_ACTOR_ENVIRONMENT = {
    # Ray would kill the supervisor (a direct child) when it ends an actor, and so let go of what
    # the trial has started. Left alone, the supervisor sees its control pipe close and ends all.
    "RAY_kill_child_processes_on_worker_exit": "0",
    # A trial without GPUs sees the devices that it would see without Ray, as on one machine.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class RayExecutor:
    """Runs the command of a task on a cluster. Not for several threads at once."""

    def __init__(self, address: str | None = None, *, log_limit_mb: float = 64.0) -> None:
        """Join the cluster.

        Args:
            address: see `Cluster`.
            log_limit_mb: size up to which standard output and standard error are kept, each.

        Raises:
            MissingExtraError, ExecutorError: see `Cluster`.
        """
        self._cluster = Cluster(address)
        self._log_limit_mb = log_limit_mb
        self._active_runs = ActiveRuns()
        self._lost: Counter[int] = Counter()  # nodes, by the number of the trial they ran

    @property
    def nodes(self) -> list[Node]:
        """The nodes of the cluster that are alive."""
        return self._cluster.nodes

    def start(self, job: Job) -> RayRun:
        """Give a trial to the cluster, which runs it when it has room.

        Raises:
            TaskError: the command holds a placeholder that means nothing.
            ExecutorError: the trial's folder cannot be written.
        """
        self._active_runs.check_open()
        check_command(job.task.command, job.task.names)
        run = RayRun(
            job,
            self._actor(job.task.resources),
            check=_NodeWatch(self._cluster, job.task.resources).check,
            may_retry=lambda: self._may_retry(job.number),
        )
        self._active_runs.add(run)
        return run

    def close(self) -> None:
        """End whatever still runs, as interrupted, and leave the cluster."""
        self._active_runs.close()
        self._cluster.close()

    def _actor(self, resources: Resources) -> Any:
        import ray

        options = {
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            "memory": int(resources.memory_mb * _MB) if resources.memory_mb else None,
            "max_restarts": 0,  # LocalHPO runs a trial again: its record says so
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": _ACTOR_ENVIRONMENT},
        }
        return ray.remote(NodeTrial).options(**options).remote(log_limit_mb=self._log_limit_mb)

    def _may_retry(self, number: int) -> bool:
        self._lost[number] += 1
        return self._lost[number] <= RETRIES


class _NodeWatch:
    """Checks that a waiting trial has a node that could run it."""

    def __init__(self, cluster: Cluster, resources: Resources) -> None:
        self._cluster = cluster
        self._resources = resources
        self._last_node_at = self._checked_at = time.monotonic()

    def check(self) -> None:
        """Check the nodes every `CHECK_NODES_S`.

        Raises:
            ExecutorError: for `NO_NODE_S` there has been no node that could run the trial.
        """
        now = time.monotonic()
        if now < self._checked_at + CHECK_NODES_S:
            return
        self._checked_at = now
        nodes = self._cluster.nodes
        if any(node.holds(self._resources) for node in nodes):
            self._last_node_at = now
        elif now > self._last_node_at + NO_NODE_S:
            raise ExecutorError(
                f"none of the {len(nodes)} nodes left in the Ray cluster can run a trial",
                hint="`ray status` shows them; run the study again when nodes are back",
            )
