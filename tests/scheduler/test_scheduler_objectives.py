"""Several objectives and constraints in a study, and those that LocalHPO measures itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localhpo.errors import TaskError
from localhpo.executor.clock import SimulatedClock
from localhpo.executor.protocol import Job
from localhpo.executor.simulated import Replay, SimulatedExecutor
from localhpo.objective import Constraint, Objective
from localhpo.resources import admission
from localhpo.resources.meter import Meter
from localhpo.resources.nvml import DeviceReading
from localhpo.scheduler.events import describe_end
from localhpo.scheduler.metered import MeteredExecutor
from localhpo.scheduler.proposal_queue import find_reference
from localhpo.task import Resources, Task
from localhpo.trial import Cause, Measurement, State, Trial, Usage

LOSS, GPU_S, WALL_S = Objective("loss"), Objective("gpu_s"), Objective("wall_s")
ONE_GPU = Resources(gpus=1)
MakeTask = Callable[..., Task]


class Device:
    """One device whose power a test sets; the driver tells it to nobody where it is None."""

    def __init__(self, power_w: float | None) -> None:
        self.power_w = power_w

    def read(self) -> Sequence[DeviceReading]:
        return [DeviceReading("GPU-a", 0, "A", 80_000, 0.0, {}, None, self.power_w, None)]


def run_on_device(task: Task, power_w: float | None, folder: Path) -> Any:
    """Return the outcome of a trial of 10 seconds that reports a loss of 0.5."""
    clock = SimulatedClock()
    replay = Replay([Measurement(0, "loss", 0.5, 9.0)], 10.0)
    executor = MeteredExecutor(
        SimulatedExecutor(lambda *_: replay, clock), Meter(Device(power_w).read, clock.monotonic)
    )
    run = executor.start(Job(task, 0, {}, 0, folder, {"CUDA_VISIBLE_DEVICES": "0"}))
    clock.sleep(5.0)
    assert run.outcome is None
    clock.sleep(6.0)
    outcome = run.outcome
    assert [m.value for m in run.poll()] == [0.5]
    assert list(run.poll()) == []
    return outcome


def test_values_that_are_measured_on_devices(make_task: MakeTask, tmp_path: Path) -> None:
    limit = Constraint("energy_j", max=1000.0)
    task = make_task(objectives=(LOSS, GPU_S), constraints=(limit,), resources=ONE_GPU)
    outcome = run_on_device(task, 200.0, tmp_path)
    assert (outcome.state, outcome.values) == (State.COMPLETE, (0.5, 10.0))
    assert outcome.violations == (pytest.approx(outcome.usage.energy_j - 1000.0),)
    assert outcome.violations[0] > 0


def test_a_trial_fails_whose_energy_was_not_measured(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(objectives=(LOSS, Objective("energy_j")), resources=ONE_GPU)
    outcome = run_on_device(task, None, tmp_path)
    assert (outcome.state, outcome.values, outcome.violations) == (State.FAILED, (), ())
    assert outcome.failure.cause is Cause.NOTHING_REPORTED
    assert "energy_j could not be measured" in outcome.failure.message


@pytest.mark.parametrize(
    ("name", "gpus", "measures_energy", "error"),
    [
        ("gpu_s", 0, True, "gpu_s: must .* trials must hold a GPU"),
        ("energy_j", 0, True, "energy_j: must .* trials must hold a GPU"),
        ("energy_j", 1, False, "energy_j: must be measured by the GPU driver"),
        ("energy_j", 1, True, ""),
        ("gpu_s", 0.5, False, ""),
        ("peak_memory_mb", 0, False, ""),
    ],
)
def test_what_cannot_be_measured_here_is_refused(
    make_task: MakeTask, name: str, gpus: float, measures_energy: bool, error: str
) -> None:
    task = make_task(resources=Resources(gpus=gpus))
    for named in (
        replace(task, objectives=(LOSS, Objective(name))),
        replace(task, constraints=(Constraint(name, max=1.0),)),
    ):
        if not error:
            admission.check_measurable(named, measures_energy=measures_energy)
            continue
        with pytest.raises(TaskError, match=error):
            admission.check_measurable(named, measures_energy=measures_energy)


def test_only_a_device_that_tells_its_power_measures_energy() -> None:
    assert Meter(Device(200.0).read).measures_energy
    assert not Meter(Device(None).read).measures_energy
    assert not Meter(None).measures_energy


def test_a_study_with_two_objectives_and_a_constraint(
    make_bench: Callable[..., Any], make_task: MakeTask, fakes: Any
) -> None:
    """Trial 1 is the best by loss and too slow; 0 and 2 trade loss for time."""
    snapshots: list[Any] = []

    class Watcher:
        def on_event(self, event: Any) -> None:
            pass

        def on_change(self, snapshot: Any) -> None:
            snapshots.append(snapshot)

    scripts = [(10.0, 2.0), (60.0, 0.0), (20.0, 1.0), (30.0, 3.0)]  # seconds, loss
    task = make_task(objectives=(LOSS, WALL_S), constraints=(Constraint("wall_s", max=50.0),))
    bench = make_bench(
        task=task,
        trials=4,
        script=lambda job: fakes.TrialScript(
            duration_s=scripts[job.number][0], curve=(scripts[job.number][1],)
        ),
        observers=[Watcher()],
    )
    trials = bench.run()
    assert [t.values for t in trials] == [(2.0, 10.0), (0.0, 60.0), (1.0, 20.0), (3.0, 30.0)]
    assert [t.violations for t in trials] == [(-40.0,), (10.0,), (-30.0,), (-20.0,)]
    assert [t.feasible for t in trials] == [True, False, True, True]
    assert [t.number for t in snapshots[-1].best_trials] == [0, 2]
    assert snapshots[-1].best_trial is None
    assert bench.recorder.messages("finished") == [
        "loss 2, wall_s 10, among the best so far",
        "loss 0, wall_s 60; not feasible: wall_s <= 50 must hold",
        "loss 1, wall_s 20, among the best so far",
        "loss 3, wall_s 30",
    ]


def test_the_end_of_a_trial_with_an_unknown_constraint(
    make_task: MakeTask, make_trial: Callable[..., Trial]
) -> None:
    task = make_task(constraints=(Constraint("latency_ms", max=200.0),))
    trial = make_trial(0, {}, State.PRUNED, value=0.5).with_(violations=(math.nan,))
    assert describe_end(trial, [trial], task) == "loss 0.5; latency_ms unknown"


def test_prefetched_proposals_are_stale_by_a_single_objective_only(
    make_trial: Callable[..., Trial],
) -> None:
    trials = [make_trial(0, {}, value=2.0), make_trial(1, {}, value=1.0)]
    assert find_reference(trials, (LOSS,)) is trials[1]
    pairs = [trial.with_(values=(1.0, 2.0), usage=Usage()) for trial in trials]
    assert find_reference(pairs, (LOSS, WALL_S)) is None
