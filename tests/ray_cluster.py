"""A real Ray cluster of several nodes on this machine, for tests."""

from __future__ import annotations

import os
import signal
from typing import Any

NODE: dict[str, Any] = {
    "object_store_memory": 80 * 2**20,
    "env_vars": {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Else (Ray's default is 15) a worker beside a busy neighbour takes 20 s to begin.
        "RAY_worker_niceness": "0",
    },
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

    def kill(self, node: Any) -> None:
        """Kill the raylet of a node, as if its machine had lost its power."""
        (raylet,) = node.all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)

    def remove(self, node: Any) -> None:
        """Take a node away, whatever is left of it."""
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()
