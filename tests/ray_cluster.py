"""A real Ray cluster of several nodes on this machine, for tests."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

NODE: dict[str, Any] = {
    "object_store_memory": 80 * 2**20,
    "env_vars": {"RAY_USAGE_STATS_ENABLED": "0"},
}


class RayCluster:
    """A head that runs no trials, and nodes that do."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(
            initialize_head=True,
            head_node_args={
                **NODE,
                "num_cpus": 0,
                "include_dashboard": False,
                # A lost node is noticed after two seconds and not after twenty.
                "_system_config": {
                    # Else (Ray's default is 15) one beside a busy neighbor takes 20 s to begin.
                    "worker_niceness": 0,
                    "health_check_initial_delay_ms": 0,
                    "health_check_period_ms": 500,
                    "health_check_failure_threshold": 4,
                },
            },
        )
        self.address: str = self._cluster.address

    def add(self, **arguments: Any) -> Any:
        """Add a node."""
        return self._cluster.add_node(**{**NODE, "num_cpus": 1, **arguments})

    @contextlib.contextmanager
    def two_with_gpus(self) -> Iterator[None]:
        """Add two nodes that say they have a GPU each, which nobody opens."""
        nodes = [self.add(num_cpus=2, num_gpus=1) for _ in range(2)]
        try:
            yield
        finally:
            for node in nodes:
                if node in self._cluster.list_all_nodes():
                    self._cluster.remove_node(node, allow_graceful=False)

    @contextlib.contextmanager
    def one_lost(self, raylet: int, *, instead: bool = True) -> Iterator[None]:
        """Kill the raylet of a node, as if its machine had lost its power; then give another."""
        (node,) = (n for n in self._cluster.list_all_nodes() if raylet in _pids(n))
        os.kill(raylet, signal.SIGKILL)
        try:
            yield
        finally:
            self._cluster.remove_node(node, allow_graceful=False)
            if instead:
                self.add()

    def close(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


def _pids(node: Any) -> list[int]:
    return [info.process.pid for info in node.all_processes.get("raylet", [])]
