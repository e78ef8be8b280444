"""Where trials run: resources of a cluster, estimates and refusals by memory, a memory limit."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from localhpo.errors import TaskError
from localhpo.executor.ray import Node
from localhpo.resources import peaks
from localhpo.resources.placement import Gpu, Inventory
from localhpo.resources.trial_slots import count_slots
from localhpo.space import Int, Space
from localhpo.store import Store
from localhpo.study import Study, execution_target
from localhpo.study.execution_target import cluster_inventory
from localhpo.study.past_studies import read_related_trials
from localhpo.task import Budget, CreatorSettings, Resources, Task
from localhpo.trial import Cause, Failure, State, Usage

PLAIN = Node("a", cpus=3, memory_mb=8_000, gpus=0)
NODE_GPUS = Node("b", cpus=8, memory_mb=64_000, gpus=3)
MORE = Node("c", cpus=8, memory_mb=64_000, gpus=3)


@pytest.mark.parametrize(
    ("needs", "nodes", "count"),
    [
        ({"cpus": 1}, [PLAIN, NODE_GPUS], 11),
        ({"cpus": 2}, [PLAIN, Node("d", 3, 8_000, 0)], 2),  # not 3: a trial runs on one node
        ({"cpus": 0.5}, [PLAIN], 6),
        ({"cpus": 1, "memory_mb": 5_000}, [PLAIN, NODE_GPUS], 9),
        ({"gpus": 1}, [PLAIN, NODE_GPUS], 3),
        ({"gpus": 2}, [NODE_GPUS, MORE], 2),
        ({"gpus": 0.5}, [NODE_GPUS], 6),
        ({"gpus": 0.4}, [NODE_GPUS], 6),
        ({"cpus": 8, "gpus": 0.5}, [NODE_GPUS, MORE], 2),
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
        cluster_inventory(resources, [PLAIN, NODE_GPUS])


def test_earlier_studies_are_read_on_a_separate_connection(make_task, home, monkeypatch):
    # The Creator's thread asks while the main thread writes the tables: on one connection,
    # DuckDB refuses the later of two calls, and the study would end with an error.
    asked: list[Store] = []
    monkeypatch.setattr(
        execution_target, "read_related_trials", lambda store, *_: asked.append(store) or []
    )
    store = Store(home)
    ours = execution_target.Hardware(make_task(), "small/now", store, Inventory(cpus=1))
    assert ours.explain_refusal({"learning_rate": 1e-3, "depth": 2}, []) is None
    assert [one.home for one in asked] == [home]
    assert asked[0]._database is not store._database


def test_foreign_memory_is_waited_for_and_refuses_no_trial(make_task, make_trial, home):
    task = make_task(resources=Resources(gpus=0.5))
    inventory = Inventory(cpus=1, gpus=(Gpu("GPU-a", "", 8_000.0, 7_000.0),))
    ours = execution_target.Hardware(task, "small/now", Store(home), inventory)
    config = {"learning_rate": 1e-3, "depth": 2}
    trials = [
        make_trial(i, config, value=1.0, usage=Usage(peak_gpu_memory_mb=4_000.0 + i))
        for i in range(6)
    ]
    assert ours.explain_refusal(config, trials) is None
    assert ours.estimate_mb(config, trials) == pytest.approx(
        4_000, rel=0.1
    )  # the trial waits for it
    inventory.gpus = (Gpu("GPU-a", "", 8_000.0, 3_900.0),)
    assert ours.estimate_mb(config, trials) == math.inf  # it may fit, on a device to itself
    inventory.gpus = (Gpu("GPU-a", "", 8_000.0),)
    assert 4_000 < ours.estimate_mb(config, trials) < 5_000
    ours.close()


def test_two_threads_share_one_fit(make_task, make_trial, home, monkeypatch):
    fits, both_ask = [], threading.Barrier(2)

    class Slow(peaks.PeakModel):
        def __init__(self, *arguments):
            fits.append(arguments)
            time.sleep(0.3)  # the other thread asks meanwhile
            super().__init__(*arguments)

    monkeypatch.setattr(peaks, "PeakModel", Slow)
    inventory = Inventory(cpus=1, memory_mb=1_000)
    ours = execution_target.Hardware(make_task(), "small/now", Store(home), inventory)
    config = {"learning_rate": 1e-3, "depth": 2}
    trials = [
        make_trial(i, config, value=1.0, usage=Usage(peak_memory_mb=100.0 + i)) for i in range(6)
    ]

    def ask(question):
        both_ask.wait()
        return question(config, trials)

    with ThreadPoolExecutor(2) as pool:
        refusal, estimate_mb = pool.map(ask, [ours.explain_refusal, ours.estimate_mb])
    assert refusal is None
    assert 100 < estimate_mb < 1_000
    assert len(fits) == 1


OUT = Failure(Cause.OUT_OF_MEMORY_DEVICE, "out of memory")


@pytest.mark.parametrize(
    ("declared", "failure", "expected_mb"),
    [
        pytest.param({"gpus": 1}, None, math.inf, id="nothing known, a whole device"),
        pytest.param({"gpus": 0.5}, None, None, id="a share of a device"),
        pytest.param({"gpus": 1, "gpu_memory_mb": 3_000}, None, 3_000, id="as declared"),
        pytest.param({}, None, None, id="on the host, as declared"),
        pytest.param({"gpus": 0.5}, OUT, math.inf, id="exclusive"),
        pytest.param(
            {"gpus": 0.5, "gpu_memory_mb": 3_000}, OUT, math.inf, id="exclusive, declared"
        ),
        pytest.param({}, OUT, math.inf, id="exclusive on the host"),
    ],
)
def test_estimates_before_anything_was_measured(
    make_task, make_trial, home, declared, failure, expected_mb
):
    task = make_task(resources=Resources(**declared))
    inventory = Inventory(cpus=1, gpus=(Gpu("GPU-a", "", 8_000.0),))
    ours = execution_target.Hardware(task, "small/now", Store(home), inventory)
    config = {"learning_rate": 1e-3, "depth": 2}
    before = [] if failure is None else [make_trial(0, config, State.INTERRUPTED, failure=OUT)]
    assert ours.estimate_mb(config, before) == expected_mb
    ours.close()


SCRIPT = """
import sys, time
from localhpo.reporter import report
held = bytearray(int(sys.argv[2]) * 2**20)
held[::4096] = b"x" * len(held[::4096])
time.sleep(0.4)
report(step=0, loss=float(sys.argv[2]))
"""


@pytest.mark.slow
def test_configurations_that_cannot_fit_are_avoided_refused_and_known_to_later_studies(
    make_task: Callable[..., Task], tmp_path: Path, home: Path
) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    task = make_task(
        space=Space([Int("size", low=10, high=1000, log=True)]),
        resources=Resources(memory_mb=300),
        creator=CreatorSettings(name="random"),
        budget=Budget(trials=14),
    )
    study = Study.open(task)
    study.run()
    failed = [trial for trial in study.trials if trial.state is State.FAILED]
    assert {t.failure.cause for t in failed if t.failure} <= {Cause.OUT_OF_MEMORY_HOST}
    # A third of all draws cannot fit. The first failures show where the limit is.
    assert 1 <= len(failed) <= 4
    assert not [trial for trial in study.trials if trial.state is State.INFEASIBLE]
    assert len(study.trials) == 14

    again = Study.open(task, "again")
    assert len(read_related_trials(Store(home), again.key, task)) == len(study.trials)
    again.enqueue({"size": 1000})
    again.run()
    assert again.trials[0].state is State.INFEASIBLE  # known from the first study
    assert "of which there are 300 MB" in again.trials[0].summary
