"""Trials whose devices are measured: values that depend on them, and a second chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localhpo.executor.clock import SimulatedClock
from localhpo.executor.protocol import Job
from localhpo.executor.simulated import Replay, SimulatedExecutor
from localhpo.objective import Constraint, Objective
from localhpo.resources.meter import Meter
from localhpo.resources.nvml import DeviceReading
from localhpo.resources.placement import Gpu, Inventory
from localhpo.scheduler.accounting import MeteredExecutor
from localhpo.task import Resources, Task
from localhpo.trial import Cause, Failure, Measurement, State, Usage

LOSS, GPU_S = Objective("loss"), Objective("gpu_s")
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


OUT = Failure(Cause.OUT_OF_MEMORY_DEVICE, "the device ran out of memory")


def job(task: Task, number: int, tmp_path: Path, **changes: Any) -> Job:
    env = {"CUDA_VISIBLE_DEVICES": "0"} if task.resources.gpus else {}
    return Job(task, number, {}, 0, tmp_path / str(number), env, **changes)


@pytest.mark.parametrize(
    ("cause", "gpus", "memory_mb", "beside", "expected"),
    [
        (Cause.OUT_OF_MEMORY_DEVICE, 0.5, None, True, State.INTERRUPTED),
        (Cause.OUT_OF_MEMORY_DEVICE, 0.5, None, False, State.FAILED),
        (Cause.OUT_OF_MEMORY_HOST, 0, None, True, State.INTERRUPTED),
        (Cause.OUT_OF_MEMORY_HOST, 0, 500.0, True, State.FAILED),  # its own limit
        (Cause.EXIT_CODE, 0.5, None, True, State.FAILED),
        (Cause.OUT_OF_MEMORY_DEVICE, 0, None, True, State.FAILED),  # a device it was not given
    ],
)
def test_out_of_memory_beside_others_interrupts_the_trial(
    make_task: Callable[..., Task],
    tmp_path: Path,
    cause: Cause,
    gpus: float,
    memory_mb: float | None,
    beside: bool,
    expected: State,
) -> None:
    task = make_task(resources=Resources(parallel=2, gpus=gpus))
    clock = SimulatedClock()
    replay = Replay([], 2.0, replace(OUT, cause=cause), Usage(peak_memory_mb=90.0))
    executor = MeteredExecutor(
        SimulatedExecutor(lambda *_: replay, clock), Meter(None, clock.monotonic)
    )
    run = executor.start(job(task, 0, tmp_path, memory_mb=memory_mb))
    if beside:
        executor.start(job(task, 1, tmp_path))
    clock.sleep(3.0)
    assert run.outcome is not None
    assert run.outcome.state is expected
    assert run.outcome.failure is not None
    assert run.outcome.usage.peak_memory_mb == 90.0
    assert run.outcome.usage.gpu_s == (2.0 * gpus or None)
    assert ("runs again alone" in run.outcome.failure.message) is (expected is State.INTERRUPTED)


def test_a_trial_without_memory_runs_again_once_and_counts_once(
    make_bench: Callable[..., Any], fakes: Any
) -> None:
    bench = make_bench(
        trials=2,
        parallel=2,
        script=lambda job: fakes.TrialScript(failure=OUT if job.number == 1 else None),
    )
    bench.task = replace(bench.task, resources=Resources(parallel=2, gpus=0.5))
    bench.__post_init__()
    scripted, clock = bench.executor, bench.clock
    loop = bench.loop(
        inventory=Inventory(cpus=4, gpus=(Gpu("0", memory_mb=80_000),)),
        executor=MeteredExecutor(scripted, Meter(None, clock.monotonic)),
        clock=clock,
    )
    trials = loop.run()
    assert [trial.state for trial in trials] == [State.COMPLETE, State.FAILED]
    assert [trial.restarts for trial in trials] == [0, 1]
    assert [job.number for job in scripted.jobs] == [0, 1, 1]
    assert "runs again alone" in bench.recorder.messages("interrupted")[0]
