"""Device memory that other programs take and free while a study runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from fake_nvml import Device, make_fake_nvml

from localhpo.resources.inventory import find_gpus, find_inventory, refresh_gpus
from localhpo.resources.memory import MemoryEstimator, MemoryLimit, PeakObservation
from localhpo.resources.placement import (
    Assignment,
    Gpu,
    Inventory,
    MemoryNeed,
    compute_memory_need,
    place_trial,
)
from localhpo.resources.trial_slots import SlotCounter
from localhpo.space import Float, Space
from localhpo.task import Resources
from localhpo.trial import State

BEGAN = 1_000.0
"""When a bench's clock does."""
OTHER = 4_000_000
"""Process id of no process on this machine."""


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


def test_a_trial_of_unknown_size_waits_for_a_full_device() -> None:
    full = Inventory(2, None, (Gpu("0", "", 24_000.0, 24_000.0),))
    wanted = compute_memory_need(Resources(gpus=1), full, None)
    assert place_trial(Resources(gpus=1), full, [], need=wanted) is None
    assert place_trial(Resources(gpus=1), full.without_foreign, [], need=wanted) is not None


def test_slots_follow_foreign_memory() -> None:
    inventory = Inventory(8, None, (Gpu("0", "", 24_000.0),))
    counter, nothing = SlotCounter(Resources(parallel=8, gpus=0.125), inventory), Assignment(0.0)
    wanted = MemoryNeed(gpu_memory_mb={"0": 6_000.0})
    counts = []
    for foreign_mb in (0.0, 12_000.0):
        inventory.gpus = (replace(inventory.gpus[0], foreign_mb=foreign_mb),)
        slots = counter.count_beside({"resident": nothing}, [wanted], nothing)["resident"]
        counts.append((counter.count(wanted, nothing), slots.most))
    assert counts == [(4, 4), (2, 2)]


# The estimate.

SPACE = Space([Float("x", 0.0, 1.0)])
SEEN = [PeakObservation({"x": 0.5}, 6_000.0 + i) for i in range(8)]


@pytest.mark.parametrize(
    ("usable_mb", "exclusive", "mb"),
    [(24_000.0, False, 6_300), (6_200.0, True, 6_200), (5_000.0, False, 6_000)],
)
def test_an_estimate_above_the_usable_memory_is_not_capped(
    usable_mb: float, exclusive: bool, mb: float
) -> None:
    estimator = MemoryEstimator(SPACE, MemoryLimit(24_000.0, "GPU memory"))
    assert estimator.explain_refusal({"x": 0.5}, SEEN) is None
    estimate = estimator.estimate({"x": 0.5}, SEEN, usable_mb)
    assert estimate.exclusive is exclusive
    assert estimate.mb == pytest.approx(mb, rel=0.05)


# The devices.


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    found = Device(uuid="GPU-a", total_mb=24_000, used_mb=1_000, processes={OTHER: 1_000})
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml([found]))
    yield found


def test_devices_are_refreshed(device: Device) -> None:
    inventory = find_inventory({})
    assert inventory.refresh is not None
    device.used_mb, device.processes = 19_000, {OTHER: 16_000, os.getpid(): 3_000}
    (gpu,) = inventory.refresh(inventory.gpus, {"GPU-a"})
    assert (gpu.foreign_mb, gpu.label) == (16_000, "0")
    assert refresh_gpus([gpu], ()) == (gpu,)
    device.used_mb, device.processes = 50, {}
    assert refresh_gpus([gpu], ())[0].foreign_mb == 50


@pytest.mark.parametrize(
    "processes",
    [
        pytest.param({OTHER: 16_000, OTHER + 1: 3_000}, id="process ids of the host"),
        pytest.param({OTHER: 16_000, os.getpid(): None}, id="no amounts"),
        pytest.param({}, id="no processes"),
    ],
)
def test_memory_that_may_be_ours_is_not_foreign(device: Device, processes: Any) -> None:
    before = find_gpus({})
    device.used_mb, device.processes = 19_000, processes
    assert refresh_gpus(before, {"GPU-a"}) == before  # one of our trials runs there
    assert refresh_gpus(before, {"GPU-b"})[0].foreign_mb == 19_000


def test_negligible_changes_are_ignored(device: Device) -> None:
    before = find_gpus({})
    device.used_mb, device.processes = 1_060, {OTHER: 1_060}
    assert refresh_gpus(before, ()) == before
    sys.modules["pynvml"].__dict__["library"].open = -1
    assert refresh_gpus(before, ()) == before  # it does not answer now
