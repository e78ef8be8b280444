"""A real Ray cluster of several nodes on this machine, for tests."""

from __future__ import annotations

import os
import signal
from typing import Any

STORE_BYTES = 80 * 2**20


class RayCluster:
    """A head that runs no trials, and nodes that do."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "object_store_memory": STORE_BYTES,
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
        return self._cluster.add_node(
            **{"num_cpus": 1, "object_store_memory": STORE_BYTES, **arguments}
        )

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
