"""Trials that are to be alone: of unknown size, or out of memory beside others before."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localhpo.scheduler.machine import SERVER, Machine
from localhpo.scheduler.placement import Assignment, Gpu, Inventory, need, place
from localhpo.task import Resources
from localhpo.trial import State

GPU = Inventory(cpus=8, memory_mb=32_000, gpus=(Gpu("0", memory_mb=24_000),))
HALF, WHOLE = Resources(parallel=9, gpus=0.5), Resources(parallel=9, gpus=1)


def model(mb: float) -> Assignment:
    return Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=mb)


def with_foreign(mb: float) -> Inventory:
    return replace(GPU, gpus=(replace(GPU.gpus[0], foreign_mb=mb),))


@pytest.mark.parametrize("resources", [HALF, WHOLE])
@pytest.mark.parametrize("memory_mb", [24_000.0, None])
def test_it_has_a_device_that_nobody_joins(resources: Resources, memory_mb: float | None) -> None:
    inventory = replace(GPU, gpus=(Gpu("0", memory_mb=memory_mb),))
    wanted = need(resources, inventory, math.inf)
    alone = place(resources, inventory, [], need=wanted)
    assert alone == Assignment(1.0, gpus=("0",), gpu_memory_mb=memory_mb or 0.0)
    small = need(HALF, inventory, 10.0)
    assert place(HALF, inventory, [alone], need=small) is None
    beside = place(HALF, inventory, [], need=small)
    assert beside is not None
    assert place(resources, inventory, [], need=wanted, others=[beside]) is None


def test_it_has_what_models_leave_where_that_is_half_a_device() -> None:
    own, other = model(8_000), model(4_000)
    wanted = need(WHOLE, GPU, math.inf, own, [other])
    place_ = place(WHOLE, GPU, [], need=wanted, others=[own, other])
    assert place_ is not None and place_.gpu_memory_mb == 12_000
    large = model(9_000)  # of 16 GB that its own server leaves for good
    wanted = need(WHOLE, GPU, math.inf, own, [large])
    assert place(WHOLE, GPU, [], need=wanted, others=[own, large]) is None
    assert place(WHOLE, GPU, [], need=wanted, others=[own]) is not None


@pytest.mark.parametrize(("foreign_mb", "starts"), [(10_000, True), (14_000, False)])
def test_a_device_that_others_use_for_the_most_part_is_waited_for(
    foreign_mb: float, starts: bool
) -> None:
    inventory = with_foreign(foreign_mb)
    wanted = need(WHOLE, inventory, math.inf)
    assert (place(WHOLE, inventory, [], need=wanted) is not None) is starts
    assert place(WHOLE, inventory.whole, [], need=wanted) is not None


def test_what_is_waited_for_is_said_with_what_would_help(
    make_stage: Callable[..., Any], make_task: Callable[..., Any]
) -> None:
    stage = make_stage(task=make_task(resources=Resources(gpus=1)), trials=1)
    free_s = stage.clock.time() + 60

    def look(gpus: Any, busy: Any) -> Any:
        return GPU.gpus if stage.clock.time() > free_s else gpus

    (trial,) = stage.run(
        inventory=replace(with_foreign(14_000), look=look), estimate=lambda _: math.inf
    )
    assert trial.started_at > free_s
    (said,) = [text for text in stage.recorder.said("note") if "waits until" in text]
    assert "it needs 12000 MB of a device, as nobody knows how much it takes" in said
    assert "gpu_memory_mb" in said and "at most 10000 can be free" in said


def test_on_the_host_it_has_all_processors_and_all_memory_but_as_many_threads_as_others(
    make_stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    host = Inventory(cpus=4, memory_mb=1_000)
    wanted = need(Resources(parallel=2), host, math.inf, Assignment(0.0, memory_mb=100))
    alone = place(Resources(parallel=2), host, [], need=wanted)
    assert alone == Assignment(4.0, 900)
    stage = make_stage(trials=3, parallel=3)
    trials = stage.run(inventory=host, estimate=lambda _: math.inf)
    assert [trial.state for trial in trials] == [State.COMPLETE] * 3
    first, second, third = sorted(trials, key=lambda trial: trial.started_at)
    assert first.finished_at <= second.started_at and second.finished_at <= third.started_at
    assert {job.env["OMP_NUM_THREADS"] for job in stage.executor.jobs} == {"1"}


def test_a_study_tells_what_models_of_others_hold(tmp_path: Path) -> None:
    one, other = (Machine(name, GPU, folder=tmp_path) for name in ("one", "other"))
    other.hold(SERVER, model(8_000))
    other.hold("0", Assignment(1.0, gpus=("0",), gpu_memory_mb=2_000))
    assert one.models == [model(8_000)]
    assert other.models == []
