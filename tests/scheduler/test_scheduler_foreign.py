"""Memory that other programs take of a device, and give back, while a study runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from nvml_stand_in import Device, stand_in

from localhpo.scheduler.devices import find_gpus, find_inventory, look_again
from localhpo.scheduler.memory import Estimator, Observation, Wall
from localhpo.scheduler.placement import Assignment, Gpu, Inventory, Need, need, place
from localhpo.scheduler.room import Rooms
from localhpo.space import Float, Space
from localhpo.task import Resources
from localhpo.trial import State

BEGAN = 1_000.0
"""When a stage's clock does."""
OTHER = 4_000_000
"""The number of no process here."""


class Others:
    """What other programs hold of the one device, by the clock."""

    def __init__(self, stage: Any, by_time: Mapping[float, float]) -> None:
        self._stage = stage
        self._by_time = by_time
        self.busy: list[Collection[str]] = []

    def inventory(self, foreign_mb: float = 0.0) -> Inventory:
        return Inventory(8, None, (Gpu("GPU-a", "A", 24_000.0, foreign_mb),), look=self._look)

    def _look(self, gpus: Sequence[Gpu], busy: Collection[str]) -> tuple[Gpu, ...]:
        self.busy.append(busy)
        now = self._stage.clock.time() - BEGAN
        held_mb = [mb for since, mb in self._by_time.items() if since <= now]
        return tuple(replace(gpu, foreign_mb=held_mb[-1]) for gpu in gpus) if held_mb else (*gpus,)


@pytest.fixture
def gpu_stage(make_stage: Callable[..., Any], make_task: Callable[..., Any]) -> Any:
    return make_stage(task=make_task(resources=Resources(gpus=0.25)), trials=2)


def starts(stage: Any) -> list[float]:
    """When each trial was started, from the beginning."""
    return [trial.started_at - BEGAN for trial in stage.recorder.trials.values()]


def test_a_trial_waits_for_memory_that_others_took_and_gets_it_back(gpu_stage: Any) -> None:
    others = Others(gpu_stage, {5.0: 20_000.0, 100.0: 1_000.0})
    trials = gpu_stage.run(inventory=others.inventory(), estimate=lambda config: 6_000.0)
    assert [trial.state for trial in trials] == [State.COMPLETE] * 2  # none is infeasible
    first, second = starts(gpu_stage)
    assert second - first > 90  # it would have been ten seconds
    (said,) = [text for text in gpu_stage.recorder.said("note") if "waits until" in text]
    assert "it needs 6000 MB of a device, and at most 4000 can be free" in said


def test_a_device_with_a_trial_of_ours_is_said_to_be_busy(gpu_stage: Any) -> None:
    others = Others(gpu_stage, {})
    gpu_stage.task = replace(gpu_stage.task, resources=Resources(gpus=0.25, parallel=2))
    gpu_stage.run(inventory=others.inventory(), estimate=lambda config: 13_000.0)
    assert others.busy[0] == set() and others.busy[-1] == {"GPU-a"}
    assert starts(gpu_stage)[1] - starts(gpu_stage)[0] >= 10
    assert not [text for text in gpu_stage.recorder.said("note") if "waits until" in text]


def test_memory_that_others_held_at_the_start_is_used_once_it_is_free(gpu_stage: Any) -> None:
    others = Others(gpu_stage, {30.0: 0.0})
    trials = gpu_stage.run(inventory=others.inventory(20_000.0), estimate=lambda config: 6_000.0)
    assert [trial.state for trial in trials] == [State.COMPLETE] * 2
    assert 30 <= starts(gpu_stage)[0] < 36


def test_what_the_whole_device_cannot_hold_is_refused_all_the_same(gpu_stage: Any) -> None:
    others = Others(gpu_stage, {})
    sizes = iter([30_000.0, 30_000.0, 30_000.0])
    gpu_stage.run(inventory=others.inventory(), estimate=lambda config: next(sizes, 6_000.0))
    assert "at most 24000 can be free" in gpu_stage.recorder.said("infeasible")[0]


def test_a_trial_of_unknown_size_waits_for_a_device_of_which_nothing_is_left() -> None:
    full = Inventory(2, None, (Gpu("0", "", 24_000.0, 24_000.0),))
    wanted = need(Resources(gpus=1), full, None)
    assert place(Resources(gpus=1), full, [], need=wanted) is None
    assert place(Resources(gpus=1), full.whole, [], need=wanted) is not None


def test_counts_follow_what_others_hold() -> None:
    inventory = Inventory(8, None, (Gpu("0", "", 24_000.0),))
    rooms, nothing = Rooms(Resources(parallel=8, gpus=0.125), inventory), Assignment(0.0)
    wanted = Need(gpu_memory_mb={"0": 6_000.0})
    counts = []
    for foreign_mb in (0.0, 12_000.0):
        inventory.gpus = (replace(inventory.gpus[0], foreign_mb=foreign_mb),)
        room = rooms.beside({"awake": nothing}, [wanted], [], nothing)["awake"]
        counts.append((rooms.count(wanted, [], nothing), room.most))
    assert counts == [(4, 4), (2, 2)]


# The estimate.

SPACE = Space([Float("x", 0.0, 1.0)])
SEEN = [Observation({"x": 0.5}, 6_000.0 + i) for i in range(8)]


@pytest.mark.parametrize(
    ("usable_mb", "whole", "mb"),
    [(24_000.0, False, 6_300), (6_200.0, True, 6_200), (5_000.0, False, 6_000)],
)
def test_what_cannot_fit_beside_others_asks_for_what_it_needs(
    usable_mb: float, whole: bool, mb: float
) -> None:
    estimator = Estimator(SPACE, Wall(24_000.0, "device memory"))
    assert estimator.refusal({"x": 0.5}, SEEN) is None
    estimate = estimator.estimate({"x": 0.5}, SEEN, usable_mb)
    assert estimate.whole is whole
    assert estimate.mb == pytest.approx(mb, rel=0.05)


# The devices.


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    found = Device(uuid="GPU-a", total_mb=24_000, used_mb=1_000, processes={OTHER: 1_000})
    monkeypatch.setitem(sys.modules, "pynvml", stand_in([found]))
    yield found


def test_devices_are_looked_at_again(device: Device) -> None:
    inventory = find_inventory({})
    assert inventory.look is not None
    device.used_mb, device.processes = 19_000, {OTHER: 16_000, os.getpid(): 3_000}
    (gpu,) = inventory.look(inventory.gpus, {"GPU-a"})
    assert (gpu.foreign_mb, gpu.label) == (16_000, "0")
    assert look_again([gpu], ()) == (gpu,)
    device.used_mb, device.processes = 50, {}
    assert look_again([gpu], ())[0].foreign_mb == 50


@pytest.mark.parametrize(
    "processes",
    [
        pytest.param({OTHER: 16_000, OTHER + 1: 3_000}, id="by the numbers of the host"),
        pytest.param({OTHER: 16_000, os.getpid(): None}, id="without how much"),
        pytest.param({}, id="not at all"),
    ],
)
def test_what_may_be_ours_is_not_taken_for_others(device: Device, processes: Any) -> None:
    before = find_gpus({})
    device.used_mb, device.processes = 19_000, processes
    assert look_again(before, {"GPU-a"}) == before  # a trial of ours is there
    assert look_again(before, {"GPU-b"})[0].foreign_mb == 19_000


def test_next_to_nothing_changes_nothing(device: Device) -> None:
    before = find_gpus({})
    device.used_mb, device.processes = 1_060, {OTHER: 1_060}
    assert look_again(before, ()) == before
    sys.modules["pynvml"].__dict__["library"].open = -1
    assert look_again(before, ()) == before  # it does not answer now
