"""The laws of `localhpo.executor.protocol`, over every executor that ships."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from localhpo.errors import ExecutorError
from localhpo.executor import (
    Executor,
    FunctionExecutor,
    Job,
    ProcessExecutor,
    RayExecutor,
    Replay,
    Run,
    SimulatedExecutor,
)
from localhpo.executor.clock import Clock, RealClock, SimulatedClock
from localhpo.resources.meter import Meter
from localhpo.scheduler.accounting import MeteredExecutor
from localhpo.task import Task
from localhpo.trial import Cause, Failure, Measurement, State
from scripts.benchmarks.agenthpo.training_cache import CachingExecutor, TrainingCache

CONFIG = {"learning_rate": 0.001, "depth": 3}

LOSSES: Mapping[str, tuple[float, ...]] = {
    "good": (0.9, 0.5, 0.7),
    "nan last": (0.9, 0.5, math.nan),
    "silent": (),
    "crash": (0.9, 0.5),
    "endless": (0.9, 0.5),
}
"""What each kind of trial reports before it ends (or does not)."""

SCRIPT = """
import sys, time
from localhpo.reporter import report
for step, loss in enumerate({losses}, 1):
    report(step=step, loss=float(loss), noise=float(step))
if {kind!r} == "crash":
    raise RuntimeError("crashed")
while {kind!r} == "endless":
    time.sleep(0.01)
"""


@dataclass
class Bench:
    """An executor that runs one kind of trial, and the time it lives in."""

    executor: Executor
    clock: Clock
    task: Task

    def start(self, number: int = 0, **changes: Any) -> Run:
        job = Job(
            task=self.task,
            number=number,
            config=CONFIG,
            seed=1,
            folder=self.task.folder / f"trial-{number}",
            grace_s=2.0,
        )
        return self.executor.start(dataclasses.replace(job, **changes))

    def finish(self, run: Run) -> list[Measurement]:
        """Poll until there is an outcome; return all that was reported."""
        found = list(run.poll())
        give_up = time.monotonic() + 240  # Ray starts a process on a busy machine
        while run.outcome is None:
            assert time.monotonic() < give_up, "the trial does not end"
            self.clock.sleep(0.01)
            found += run.poll()
        return found + list(run.poll())

    def until_reported(self, run: Run) -> None:
        """Wait until the trial runs and has reported."""
        give_up = time.monotonic() + 240  # Ray starts a process on a busy machine
        while not run.poll():
            assert time.monotonic() < give_up, "the trial does not report"
            self.clock.sleep(0.01)


def process(kind: str, task: Task) -> Bench:
    losses = [str(loss) for loss in LOSSES[kind]]
    (task.folder / "train.py").write_text(SCRIPT.format(losses=losses, kind=kind))
    return Bench(ProcessExecutor(), RealClock(), task)


def ray(kind: str, task: Task) -> Bench:
    return dataclasses.replace(process(kind, task), executor=RayExecutor())


def function(kind: str, task: Task) -> Bench:
    losses = LOSSES[kind]

    def objective(config: Mapping[str, Any]) -> None:
        from localhpo.reporter import report

        for step, loss in enumerate(losses, 1):
            report(step=step, loss=loss, noise=step)
        if kind == "crash":
            raise RuntimeError("crashed")
        while kind == "endless":
            time.sleep(0.01)

    return Bench(FunctionExecutor(objective), RealClock(), dataclasses.replace(task, command=()))


def simulated(kind: str, task: Task) -> Bench:
    reports = [
        Measurement(step, name, value, 0.1 * step)
        for step, loss in enumerate(LOSSES[kind], 1)
        for name, value in (("loss", loss), ("noise", float(step)))
    ]
    failure = Failure(Cause.EXIT_CODE, "crashed") if kind == "crash" else None
    replay = Replay(reports, math.inf if kind == "endless" else 0.5, failure)
    clock = SimulatedClock(start=1.8e9)
    return Bench(SimulatedExecutor(lambda config, seed: replay, clock), clock, task)


def watched(kind: str, task: Task) -> Bench:
    bench = simulated(kind, task)
    executor = MeteredExecutor(bench.executor, Meter(None, bench.clock.monotonic))
    return dataclasses.replace(bench, executor=executor)


def recording(kind: str, task: Task) -> Bench:
    bench = simulated(kind, task)
    executor = CachingExecutor(bench.executor, TrainingCache(task.folder / "trainings", "digest"))
    return dataclasses.replace(bench, executor=executor)


Make = Callable[[str], Bench]


EXECUTORS = [
    process,
    function,
    simulated,
    watched,
    recording,
    pytest.param(ray, marks=pytest.mark.slow),
]


@pytest.fixture(params=EXECUTORS, ids=lambda maker: maker.__name__)
def make(
    request: pytest.FixtureRequest,
    make_task: Callable[..., Task],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Make]:
    benches: list[Bench] = []
    if request.param is ray:
        cluster = request.getfixturevalue("ray_cluster")
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)

    def maker(kind: str) -> Bench:
        benches.append(request.param(kind, make_task(command=("python", "train.py"))))
        return benches[-1]

    yield maker
    for bench in benches:
        bench.executor.close()


def test_a_good_trial_is_complete_and_scored(make: Make) -> None:
    bench = make("good")
    run = bench.start()
    reported = bench.finish(run)
    assert [(m.step, m.name, m.value) for m in reported] == [
        (1, "loss", 0.9),
        (1, "noise", 1.0),
        (2, "loss", 0.5),
        (2, "noise", 2.0),
        (3, "loss", 0.7),
        (3, "noise", 3.0),
    ]
    assert all(m.time > 1.7e9 for m in reported)
    outcome = run.outcome
    assert outcome is not None
    assert (outcome.state, outcome.value, outcome.failure) == (State.COMPLETE, 0.7, None)
    assert outcome.usage.wall_s > 0
    assert outcome.summary.startswith("loss 0.7 at step 3 (best 0.5 at 2, then rising); noise 3; ")


def test_an_outcome_never_changes_and_leaves_all_reports_to_be_polled(make: Make) -> None:
    bench = make("good")
    run = bench.start()
    while (outcome := run.outcome) is None:
        bench.clock.sleep(0.01)
    assert len(run.poll()) == 6
    assert list(run.poll()) == []
    run.stop(State.PRUNED)
    assert run.outcome == outcome


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("nan last", Cause.NOT_FINITE),
        ("silent", Cause.NOTHING_REPORTED),
        ("crash", Cause.EXIT_CODE),
    ],
)
def test_a_failed_trial_has_a_cause_and_no_score(make: Make, kind: str, cause: Cause) -> None:
    bench = make(kind)
    run = bench.start()
    bench.finish(run)
    outcome = run.outcome
    assert outcome is not None
    assert outcome.failure is not None
    assert (outcome.state, outcome.value, outcome.failure.cause) == (State.FAILED, None, cause)
    assert outcome.summary.startswith(f"failed: {cause}")


def test_a_trial_over_its_time_fails(make: Make) -> None:
    bench = make("endless")
    run = bench.start(timeout_s=0.5)
    bench.finish(run)
    outcome = run.outcome
    assert outcome is not None
    assert outcome.failure is not None
    assert (outcome.state, outcome.failure.cause) == (State.FAILED, Cause.TIMEOUT)
    assert "longer than 0.5 s" in outcome.failure.message


@pytest.mark.parametrize("state", [State.PRUNED, State.INTERRUPTED])
def test_a_stopped_trial_has_the_state_that_was_asked_for_first(make: Make, state: State) -> None:
    bench = make("endless")
    run = bench.start()
    assert run.outcome is None
    bench.until_reported(run)
    run.stop(state)  # type: ignore[arg-type]
    run.stop(State.INTERRUPTED)
    bench.finish(run)
    outcome = run.outcome
    assert outcome is not None
    assert (outcome.state, outcome.failure) == (state, None)
    assert (outcome.value is not None) == (state is State.PRUNED)


def test_stopping_what_has_ended_changes_nothing(make: Make) -> None:
    bench = make("crash")
    run = bench.start()
    bench.finish(run)
    run.stop(State.INTERRUPTED)
    assert run.outcome is not None
    assert run.outcome.state is State.FAILED


def test_trials_run_side_by_side(make: Make) -> None:
    bench = make("endless")
    runs = [bench.start(number) for number in range(3)]
    for run in runs:
        bench.until_reported(run)
    assert [run.outcome for run in runs] == [None, None, None]
    runs[1].stop(State.INTERRUPTED)
    bench.finish(runs[1])
    assert [run.outcome is None for run in runs] == [True, False, True]


def test_closing_interrupts_what_runs_and_starts_nothing_more(make: Make) -> None:
    bench = make("endless")
    runs = [bench.start(number) for number in range(2)]
    bench.until_reported(runs[0])
    bench.executor.close()
    states = [run.outcome.state for run in runs if run.outcome is not None]
    assert states == [State.INTERRUPTED, State.INTERRUPTED]
    bench.executor.close()
    with pytest.raises(ExecutorError, match="closed"):
        bench.start(2)


def test_a_command_that_does_not_exist_is_an_outcome(make_task: Callable[..., Task]) -> None:
    bench = Bench(ProcessExecutor(), RealClock(), make_task(command=("no-such-program",)))
    run = bench.start()
    assert bench.finish(run) == []
    assert run.outcome is not None
    assert run.outcome.failure is not None
    assert run.outcome.failure.cause is Cause.COULD_NOT_START
    bench.executor.close()


def test_a_seed_and_a_configuration_reach_the_simulation(make_task: Callable[..., Task]) -> None:
    seen: list[tuple[Mapping[str, Any], int]] = []

    def evaluate(config: Mapping[str, Any], seed: int) -> Replay:
        seen.append((config, seed))
        return Replay([Measurement(1, "loss", 0.5, 1.0)], 2.0)

    clock = SimulatedClock()
    bench = Bench(SimulatedExecutor(evaluate, clock), clock, make_task())
    bench.finish(bench.start())
    assert seen == [(CONFIG, 1)]
    assert clock.monotonic() == pytest.approx(2.0, abs=0.011)
