"""Estimates and refusals of a run, from its own trials and those of earlier studies."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from localhpo.resources import peaks
from localhpo.resources.placement import Gpu, Inventory
from localhpo.store import Store
from localhpo.study import hardware
from localhpo.task import Resources
from localhpo.trial import Cause, Failure, State, Usage


def test_earlier_studies_are_read_on_a_separate_connection(make_task, home, monkeypatch):
    # The Creator's thread asks while the main thread writes the tables: on one connection,
    # DuckDB refuses the later of two calls, and the study would end with an error.
    asked: list[Store] = []
    monkeypatch.setattr(
        hardware, "read_related_trials", lambda store, *_: asked.append(store) or []
    )
    store = Store(home)
    ours = hardware.Hardware(make_task(), "small/now", store, Inventory(cpus=1))
    assert ours.explain_refusal({"learning_rate": 1e-3, "depth": 2}, []) is None
    assert [one.home for one in asked] == [home]
    assert asked[0]._database is not store._database


def test_foreign_memory_is_waited_for_and_refuses_no_trial(make_task, make_trial, home):
    task = make_task(resources=Resources(gpus=0.5))
    inventory = Inventory(cpus=1, gpus=(Gpu("GPU-a", "", 8_000.0, 7_000.0),))
    ours = hardware.Hardware(task, "small/now", Store(home), inventory)
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
    ours = hardware.Hardware(make_task(), "small/now", Store(home), inventory)
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
    ours = hardware.Hardware(task, "small/now", Store(home), inventory)
    config = {"learning_rate": 1e-3, "depth": 2}
    before = [] if failure is None else [make_trial(0, config, State.INTERRUPTED, failure=OUT)]
    assert ours.estimate_mb(config, before) == expected_mb
    ours.close()
