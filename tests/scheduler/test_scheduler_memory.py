"""Memory in a study: what other programs take and free, and trials that must run alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from localhpo.resources.placement import (
    Assignment,
    Gpu,
    Inventory,
    compute_memory_need,
    place_trial,
)
from localhpo.task import Resources
from localhpo.trial import State

BEGAN = 1_000.0
"""When a bench's clock does."""


class OtherPrograms:
    """Memory that other programs hold of the one device, by time."""

    def __init__(self, bench: Any, by_time: Mapping[float, float]) -> None:
        self._bench = bench
        self._by_time = by_time
        self.busy: list[Collection[str]] = []

    def inventory(self, foreign_mb: float = 0.0) -> Inventory:
        return Inventory(8, None, (Gpu("GPU-a", "A", 24_000.0, foreign_mb),), refresh=self._refresh)

    def _refresh(self, gpus: Sequence[Gpu], busy: Collection[str]) -> tuple[Gpu, ...]:
        self.busy.append(busy)
        now = self._bench.clock.time() - BEGAN
        held_mb = [mb for since, mb in self._by_time.items() if since <= now]
        return tuple(replace(gpu, foreign_mb=held_mb[-1]) for gpu in gpus) if held_mb else (*gpus,)


@pytest.fixture
def gpu_bench(make_bench: Callable[..., Any], make_task: Callable[..., Any]) -> Any:
    return make_bench(task=make_task(resources=Resources(gpus=0.25)), trials=2)


def starts(bench: Any) -> list[float]:
    """Start of each trial, in seconds since the start of the study."""
    return [trial.started_at - BEGAN for trial in bench.recorder.trials.values()]


def test_a_trial_waits_for_foreign_memory_to_be_freed(gpu_bench: Any) -> None:
    programs = OtherPrograms(gpu_bench, {5.0: 20_000.0, 100.0: 1_000.0})
    trials = gpu_bench.run(inventory=programs.inventory(), estimate_mb=lambda config: 6_000.0)
    assert [trial.state for trial in trials] == [State.COMPLETE] * 2  # none is infeasible
    first, second = starts(gpu_bench)
    assert second - first > 90  # ten seconds without the wait
    (message,) = [text for text in gpu_bench.recorder.messages("note") if "waits until" in text]
    assert "it needs 6000 MB of GPU memory; at most 4000 MB can be free" in message


def test_a_device_with_a_running_trial_counts_as_busy(gpu_bench: Any) -> None:
    programs = OtherPrograms(gpu_bench, {})
    gpu_bench.task = replace(gpu_bench.task, resources=Resources(gpus=0.25, parallel=2))
    gpu_bench.run(inventory=programs.inventory(), estimate_mb=lambda config: 13_000.0)
    assert programs.busy[0] == set() and programs.busy[-1] == {"GPU-a"}
    assert starts(gpu_bench)[1] - starts(gpu_bench)[0] >= 10
    assert not [text for text in gpu_bench.recorder.messages("note") if "waits until" in text]


def test_foreign_memory_at_the_start_is_used_once_it_is_free(gpu_bench: Any) -> None:
    programs = OtherPrograms(gpu_bench, {30.0: 0.0})
    trials = gpu_bench.run(
        inventory=programs.inventory(20_000.0), estimate_mb=lambda config: 6_000.0
    )
    assert [trial.state for trial in trials] == [State.COMPLETE] * 2
    assert 30 <= starts(gpu_bench)[0] < 36


def test_a_trial_above_the_devices_size_is_refused(gpu_bench: Any) -> None:
    programs = OtherPrograms(gpu_bench, {})
    sizes = iter([30_000.0, 30_000.0, 30_000.0])
    gpu_bench.run(inventory=programs.inventory(), estimate_mb=lambda config: next(sizes, 6_000.0))
    assert "at most 24000 MB can be free" in gpu_bench.recorder.messages("infeasible")[0]


GPU = Inventory(cpus=8, memory_mb=32_000, gpus=(Gpu("0", memory_mb=24_000),))


def with_foreign(mb: float) -> Inventory:
    return replace(GPU, gpus=(replace(GPU.gpus[0], foreign_mb=mb),))


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
