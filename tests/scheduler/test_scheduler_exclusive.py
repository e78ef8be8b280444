"""Exclusive trials: of unknown size, or out of memory beside others before."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localhpo.resources.broker import MODEL_CLAIM, ResourceBroker
from localhpo.resources.placement import (
    Assignment,
    Gpu,
    Inventory,
    compute_memory_need,
    place_trial,
)
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
def test_an_exclusive_trial_shares_its_device_with_no_trial(
    resources: Resources, memory_mb: float | None
) -> None:
    inventory = replace(GPU, gpus=(Gpu("0", memory_mb=memory_mb),))
    wanted = compute_memory_need(resources, inventory, math.inf)
    exclusive = place_trial(resources, inventory, [], need=wanted)
    assert exclusive == Assignment(1.0, gpus=("0",), gpu_memory_mb=memory_mb or 0.0)
    small = compute_memory_need(HALF, inventory, 10.0)
    assert place_trial(HALF, inventory, [exclusive], need=small) is None
    beside = place_trial(HALF, inventory, [], need=small)
    assert beside is not None
    assert place_trial(resources, inventory, [], need=wanted, others=[beside]) is None


def test_an_exclusive_trial_gets_what_models_leave_of_at_least_half_a_device() -> None:
    own, other = model(8_000), model(4_000)
    wanted = compute_memory_need(WHOLE, GPU, math.inf, own, [other])
    place = place_trial(WHOLE, GPU, [], need=wanted, others=[own, other])
    assert place is not None and place.gpu_memory_mb == 12_000
    large = model(9_000)  # of the 16 GB beside its own model
    wanted = compute_memory_need(WHOLE, GPU, math.inf, own, [large])
    assert place_trial(WHOLE, GPU, [], need=wanted, others=[own, large]) is None
    assert place_trial(WHOLE, GPU, [], need=wanted, others=[own]) is not None


@pytest.mark.parametrize(("foreign_mb", "starts"), [(10_000, True), (14_000, False)])
def test_an_exclusive_trial_waits_for_a_device_that_is_mostly_foreign(
    foreign_mb: float, starts: bool
) -> None:
    inventory = with_foreign(foreign_mb)
    wanted = compute_memory_need(WHOLE, inventory, math.inf)
    assert (place_trial(WHOLE, inventory, [], need=wanted) is not None) is starts
    assert place_trial(WHOLE, inventory.without_foreign, [], need=wanted) is not None


def test_a_waiting_exclusive_trial_is_reported_with_a_remedy(
    make_bench: Callable[..., Any], make_task: Callable[..., Any]
) -> None:
    bench = make_bench(task=make_task(resources=Resources(gpus=1)), trials=1)
    free_s = bench.clock.time() + 60

    def refresh(gpus: Any, busy: Any) -> Any:
        return GPU.gpus if bench.clock.time() > free_s else gpus

    (trial,) = bench.run(
        inventory=replace(with_foreign(14_000), refresh=refresh), estimate_mb=lambda _: math.inf
    )
    assert trial.started_at > free_s
    (message,) = [text for text in bench.recorder.messages("note") if "waits until" in text]
    assert "it needs 12000 MB of GPU memory (reserved because its use is not known" in message
    assert "set [resources] gpu_memory_mb" in message
    assert "at most 10000 MB can be free" in message


def test_an_exclusive_trial_on_the_host_gets_all_of_it_but_the_usual_threads(
    make_bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    host = Inventory(cpus=4, memory_mb=1_000)
    own = Assignment(0.0, memory_mb=100)
    wanted = compute_memory_need(Resources(parallel=2), host, math.inf, own)
    exclusive = place_trial(Resources(parallel=2), host, [], need=wanted)
    assert exclusive == Assignment(4.0, 900)
    bench = make_bench(trials=3, parallel=3)
    trials = bench.run(inventory=host, estimate_mb=lambda _: math.inf)
    assert [trial.state for trial in trials] == [State.COMPLETE] * 3
    first, second, third = sorted(trials, key=lambda trial: trial.started_at)
    assert first.finished_at <= second.started_at and second.finished_at <= third.started_at
    assert {job.env["OMP_NUM_THREADS"] for job in bench.executor.jobs} == {"1"}


def test_claims_of_other_studies_models_can_be_read(tmp_path: Path) -> None:
    one, other = (ResourceBroker(name, GPU, folder=tmp_path) for name in ("one", "other"))
    other.update_claim(MODEL_CLAIM, model(8_000))
    other.update_claim("0", Assignment(1.0, gpus=("0",), gpu_memory_mb=2_000))
    assert one.read_model_claims() == [model(8_000)]
    assert other.read_model_claims() == []
