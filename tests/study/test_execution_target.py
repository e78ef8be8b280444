"""Resources of a Ray cluster for the trials of a study."""

from __future__ import annotations

import pytest

from localhpo.errors import TaskError
from localhpo.executor.ray import Node
from localhpo.resources.trial_slots import count_slots
from localhpo.study.execution_target import cluster_inventory
from localhpo.task import Resources

PLAIN = Node("a", cpus=3, memory_mb=8_000, gpus=0)
GPUS = Node("b", cpus=8, memory_mb=64_000, gpus=3)
MORE = Node("c", cpus=8, memory_mb=64_000, gpus=3)


@pytest.mark.parametrize(
    ("needs", "nodes", "count"),
    [
        ({"cpus": 1}, [PLAIN, GPUS], 11),
        ({"cpus": 2}, [PLAIN, Node("d", 3, 8_000, 0)], 2),  # not 3: a trial runs on one node
        ({"cpus": 0.5}, [PLAIN], 6),
        ({"cpus": 1, "memory_mb": 5_000}, [PLAIN, GPUS], 9),
        ({"gpus": 1}, [PLAIN, GPUS], 3),
        ({"gpus": 2}, [GPUS, MORE], 2),
        ({"gpus": 0.5}, [GPUS], 6),
        ({"gpus": 0.4}, [GPUS], 6),
        ({"cpus": 8, "gpus": 0.5}, [GPUS, MORE], 2),
    ],
)
def test_slots_count_whole_trials_per_node(
    needs: dict[str, float], nodes: list[Node], count: int
) -> None:
    resources = Resources(parallel=100, **needs)  # type: ignore[arg-type]
    assert count_slots(resources, cluster_inventory(resources, nodes)) == count


@pytest.mark.parametrize("needs", [{"cpus": 9}, {"gpus": 4}, {"memory_mb": 99_000}])
def test_a_trial_that_fits_no_node_is_refused(needs: dict[str, float]) -> None:
    resources = Resources(**needs)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="no node of the Ray cluster can run a trial"):
        cluster_inventory(resources, [PLAIN, GPUS])
