from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

import pytest

from localhpo.analysis import formatting
from localhpo.analysis.resource_use import sum_resource_use
from localhpo.executor.clock import SimulatedClock
from localhpo.resources.meter import DeviceUse
from localhpo.scheduler.accounting import UsageAccounting, current_wait
from localhpo.scheduler.events import RunningTrial, Snapshot
from localhpo.store.records import WAIT_TEXTS, Event, WaitCause
from localhpo.task import Task
from localhpo.trial import State, Trial, Usage


def event(
    time: float, kind: str, message: str = "", trial: int | None = None, **data: Any
) -> Event:
    return Event(time, kind, message, trial, data)


def test_the_sums_of_all_runs_are_added(make_trial: Callable[..., Trial]) -> None:
    trials = [
        make_trial(0, {}, usage=Usage(gpu_s=30.0, gpu_utilization=0.9, energy_j=100.0)),
        make_trial(1, {}, usage=Usage(gpu_s=10.0, gpu_utilization=0.5)),
        make_trial(2, {}),
    ]
    events = [
        event(0, "begun"),
        event(1, "accounts", trial=0, waited_s={"model": 2.0}, model_gpu_s=5.0,
              model_gpu_memory_mb=900.0),
        event(2, "accounts", trial=1, waited_s={"model": 1.0, "memory": 4.0}, model_gpu_s=2.0,
              model_gpu_memory_mb=700.0),
        event(3, "accounts", waited_s={"model": 0.5}),
        event(10, "ended", "the user stopped it; 1 wait for the next run"),
        event(70, "begun"),
        event(80, "ended", "the budget is used up"),
        event(999, "begun"),
    ]  # fmt: skip
    found = sum_resource_use(trials, events)
    assert found.waited_s == {"memory": 4.0, "model": 3.5, "user": 60.0}
    assert found.waited_by_trial == {0: {"model": 2.0}, 1: {"memory": 4.0, "model": 1.0}}
    assert (found.gpu_s, found.gpu_utilization, found.energy_j) == (40.0, 0.8, 100.0)
    assert (found.model_gpu_s, found.model_gpu_memory_mb) == (7.0, 900.0)
    assert formatting.waiting_times(found.waited_s) == (
        "4.0 s for free memory, 3.5 s for a proposal, 1 min 00 s while stopped by the user"
    )


def test_a_study_without_sums_has_no_numbers(make_trial: Callable[..., Trial]) -> None:
    found = sum_resource_use([make_trial(0, {})], [event(0, "begun"), event(9, "ended", "done")])
    assert (found.gpu_s, found.energy_j, found.model_gpu_s) == (None, None, None)
    assert found.waited_s == {}


def snapshot(task: Task, trials: list[Trial], slots: int, **changes: Any) -> Snapshot:
    running = tuple(RunningTrial(t, 1.0, None) for t in trials if t.state is State.RUNNING)
    fields: dict[str, Any] = {
        "task": task, "trials": tuple(trials), "best_trials": (), "running": running,
        "proposing": False, "stop_reason": "", "elapsed_s": 1.0, "trials_left": None,
        "seconds_left": None, "gpu_seconds_left": None, "estimated_s": None, "slots": slots,
    }  # fmt: skip
    return Snapshot(**{**fields, **changes})


def test_the_current_wait_follows_from_a_snapshot(
    make_task: Callable[..., Task], make_trial: Callable[..., Trial]
) -> None:
    task = make_task()
    running, queued = make_trial(0, {}, State.RUNNING), make_trial(1, {}, State.QUEUED)
    assert current_wait(snapshot(task, [running, queued], 1)) == "device"
    assert current_wait(snapshot(task, [running, queued], 2, blocked_by="memory")) == "memory"
    assert current_wait(snapshot(task, [running, queued], 2, blocked_by="cpus")) == "cpus"
    assert current_wait(snapshot(task, [running, queued], 2)) is None
    assert current_wait(snapshot(task, [running], 2, proposing=True)) == "model"
    assert current_wait(snapshot(task, [running], 1, proposing=True)) is None
    assert current_wait(snapshot(task, [running, queued], 2, stop_reason="time is up")) is None


@pytest.mark.parametrize("cause", get_args(WaitCause))
def test_every_wait_has_a_text(cause: WaitCause) -> None:
    found = sum_resource_use([], [event(0, "accounts", waited_s={cause: 12.0})])
    assert formatting.waiting_times(found.waited_s) == f"12 s for {WAIT_TEXTS[cause]}"


def test_waiting_is_recorded_with_the_trial_that_starts(make_task: Callable[..., Task]) -> None:
    clock, model = SimulatedClock(), DeviceUse()
    kept: list[tuple[int | None, Mapping[str, Any]]] = []
    books = UsageAccounting(
        lambda kind, message, trial, data: kept.append((trial, data)), clock, lambda: model
    )
    books.on_change(snapshot(make_task(), [], 1, proposing=True))
    clock.sleep(3.0)
    model.gpu_s, model.peak_mb, model.energy_j = 2.0, 640.0, 90.0
    books.on_event(event(0, "started", trial=0))
    books.on_change(snapshot(make_task(), [], 1))
    clock.sleep(5.0)
    books.on_event(event(0, "started", trial=1))
    model.gpu_s, model.energy_j = 3.0, 100.0
    books.on_event(event(0, "ended"))
    data = {"model_gpu_memory_mb": 640.0, "model_energy_j": 90.0}
    assert kept == [
        (0, {**data, "waited_s": {"model": 3.0}, "model_gpu_s": 2.0}),
        (None, {**data, "waited_s": {}, "model_gpu_s": 1.0, "model_energy_j": 10.0}),
    ]
    events = [event(i, "accounts", number, **told) for i, (number, told) in enumerate(kept)]
    assert sum_resource_use([], events).model_energy_j == 100.0
