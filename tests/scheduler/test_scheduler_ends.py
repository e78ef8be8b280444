from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import Any

import pytest

from localhpo.errors import StoreError, StudyInterruptedError
from localhpo.executor.protocol import Job
from localhpo.resources.placement import Gpu, Inventory
from localhpo.scheduler.budget import SpentTime
from localhpo.scheduler.loop import LoopSettings
from localhpo.task import Budget, PrunerSettings, Resources
from localhpo.trial import State, Trial

MakeBench = Callable[..., Any]


def states(trials: tuple[Trial, ...]) -> list[State]:
    return [trial.state for trial in trials]


@pytest.mark.parametrize(("after_s", "done"), [(15.0, "1 trial"), (25.0, "2 trials")])
def test_an_interrupted_study_says_how_far_it_came(
    make_bench: MakeBench, after_s: float, done: str
) -> None:
    bench = make_bench(trials=4)
    loop = bench.loop()
    bench.interrupt_at(loop, after_s)
    with pytest.raises(StudyInterruptedError, match=f"interrupted after {done}$"):
        loop.run()


@pytest.mark.parametrize("times", [1, 2])
def test_interrupted_trials_are_recorded_and_run_again(make_bench: MakeBench, times: int) -> None:
    bench = make_bench(trials=4, parallel=2)
    loop = bench.loop()
    bench.interrupt_at(loop, 15.0, times)
    with pytest.raises(StudyInterruptedError) as error:
        loop.run()
    assert error.value.exit_code == 130
    recorded = tuple(bench.recorder.trials.values())
    assert states(recorded) == [State.COMPLETE] * 2 + [State.INTERRUPTED] * 2
    assert bench.executor.running_now == 0

    trials = bench.run()
    assert states(trials) == [State.COMPLETE] * 4
    assert [t.restarts for t in trials] == [0, 0, 1, 1]
    assert [job.number for job in bench.executor.jobs] == [2, 3]


def test_measurements_of_an_interrupted_run_are_dropped(make_bench: MakeBench, fakes: Any) -> None:
    script = fakes.TrialScript(duration_s=10, curve=[5.0, 4.0, 3.0, 2.0])
    bench = make_bench(trials=1, script=lambda job: script)
    loop = bench.loop()
    bench.interrupt_at(loop, 6.0)
    with pytest.raises(StudyInterruptedError):
        loop.run()
    assert len(bench.recorder.trials[0].measurements) == 2
    (trial,) = bench.run()
    assert [m.value for m in trial.measurements] == [5.0, 4.0, 3.0, 2.0]
    assert bench.recorder.trials[0] == trial


def test_a_stopped_study_leaves_enqueued_trials_to_the_next_run(
    make_bench: MakeBench, fakes: Any
) -> None:
    bench = make_bench(trials=2, script=lambda job: fakes.TrialScript(ends_after_s=3))
    loop = bench.loop(
        read_enqueued=lambda: [fakes.user_proposal()] if bench.clock.monotonic() > 6.0 else ()
    )
    bench.interrupt_at(loop, 6.0)
    with pytest.raises(StudyInterruptedError):
        loop.run()
    assert states(tuple(bench.recorder.trials.values())) == [State.INTERRUPTED]


def test_an_interrupt_before_the_first_trial(make_bench: MakeBench) -> None:
    bench = make_bench()
    loop = bench.loop()
    loop.interrupt()
    with pytest.raises(StudyInterruptedError):
        loop.run()
    assert bench.recorder.trials == {}


def test_an_interrupt_keeps_a_proposal_that_comes_soon(make_bench: MakeBench, fakes: Any) -> None:
    bench = make_bench(settings=LoopSettings(poll_s=0.25))

    class Slow(fakes.Creator):
        def propose(self, history: Any, n: int) -> Any:
            loop.interrupt()
            while bench.clock.monotonic() < 3.0:
                time.sleep(0.001)
            return super().propose(history, n)

    bench.creator = Slow()
    loop = bench.loop()
    bench.clock.on_sleep = lambda: time.sleep(0.002)
    with pytest.raises(StudyInterruptedError):
        loop.run()
    assert states(tuple(bench.recorder.trials.values())) == [State.QUEUED]


def test_an_interrupt_waits_for_a_proposal_no_longer_than_the_timeout(
    make_bench: MakeBench, fakes: Any
) -> None:
    bench = make_bench(settings=LoopSettings(poll_s=0.25, shutdown_timeout_s=5.0))
    over = Event()

    class Endless(fakes.Creator):
        def propose(self, history: Any, n: int) -> Any:
            over.wait()
            return super().propose(history, n)

    bench.creator = Endless()
    loop = bench.loop()
    bench.interrupt_at(loop, 10.0)
    with pytest.raises(StudyInterruptedError):
        loop.run()
    over.set()
    assert 15.0 <= bench.clock.monotonic() <= 16.0


def test_minutes_end_a_study_and_its_running_trials_go_on_later(make_bench: MakeBench) -> None:
    bench = make_bench(trials=None, parallel=2)
    bench.task = replace(bench.task, budget=Budget(trials=None, minutes=25 / 60))
    assert states(bench.run()) == [State.COMPLETE] * 4 + [State.INTERRUPTED] * 2
    assert 25.0 <= bench.clock.monotonic() <= 26.5
    assert bench.recorder.messages("ended") == [
        "the minutes of the budget are used up; 2 trials wait for the next run"
    ]
    spent = SpentTime.from_data([event.data for event in bench.recorder.events])
    assert 25.0 <= spent.wall_s <= 26.5

    bench.run(spent=spent)
    assert bench.executor.jobs == []
    bench.task = replace(bench.task, budget=Budget(trials=None, minutes=38 / 60))
    trials = bench.run(spent=spent)
    assert states(trials)[:6] == [State.COMPLETE] * 6
    assert [job.number for job in bench.executor.jobs[:2]] == [4, 5]


def test_gpu_minutes_count_the_gpus_that_trials_hold(make_bench: MakeBench) -> None:
    bench = make_bench(trials=None, parallel=2)
    bench.task = replace(
        bench.task,
        budget=Budget(trials=None, gpu_minutes=1),
        resources=Resources(parallel=2, gpus=0.5),
    )
    trials = bench.run(inventory=Inventory(cpus=4, gpus=(Gpu("0"),)))
    # Two halves of a device for 60 seconds, less the turns between trials.
    assert 60.0 <= bench.clock.monotonic() <= 63.0
    assert states(trials).count(State.COMPLETE) in (10, 12)
    assert bench.recorder.messages("ended")[0].startswith(
        "the GPU minutes of the budget are used up"
    )


def test_an_error_of_the_store_leaves_nothing_running(make_bench: MakeBench) -> None:
    bench = make_bench(trials=4, parallel=2)
    loop = bench.loop()
    record = bench.recorder.write_trial

    def full(trial: Trial) -> None:
        if trial.number == 2:
            raise StoreError("the disk is full")
        record(trial)

    bench.recorder.write_trial = full
    with pytest.raises(StoreError, match="the disk is full"):
        loop.run()
    assert bench.executor.running_now == 0
    del bench.recorder.write_trial
    assert states(bench.run()) == [State.COMPLETE] * 4


def test_ctrl_c_without_a_handler_leaves_nothing_running(make_bench: MakeBench) -> None:
    bench = make_bench(trials=4, parallel=2)
    loop = bench.loop()

    def press_ctrl_c() -> None:
        if bench.clock.monotonic() >= 5.0:
            raise KeyboardInterrupt

    bench.clock.on_sleep = press_ctrl_c
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert bench.executor.running_now == 0
    assert states(tuple(bench.recorder.trials.values())) == [State.INTERRUPTED] * 2


def test_a_trial_that_is_being_pruned_stays_pruned_on_interrupt(
    make_bench: MakeBench, fakes: Any
) -> None:
    def script(job: Job) -> Any:
        return fakes.TrialScript(duration_s=20, curve=[float(job.number)] * 20, ends_after_s=5)

    bench = make_bench(trials=8, script=script)
    bench.task = replace(bench.task, pruner=PrunerSettings(name="asha"))
    loop = bench.loop()
    bench.interrupt_at(loop, 22.0)
    with pytest.raises(StudyInterruptedError):
        loop.run()
    assert states(tuple(bench.recorder.trials.values())) == [State.COMPLETE, State.PRUNED]
    assert len(bench.recorder.messages("pruning")) == 1  # asked once, however much it still reports
