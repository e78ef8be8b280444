from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import Any

import pytest

from localhpo.errors import StoreError, StudyInterruptedError
from localhpo.executor.protocol import Job
from localhpo.scheduler.budget import Spent
from localhpo.scheduler.loop import LoopSettings
from localhpo.scheduler.placement import Gpu, Inventory
from localhpo.task import Budget, PrunerSettings, Resources
from localhpo.trial import State, Trial

MakeStage = Callable[..., Any]


def states(trials: tuple[Trial, ...]) -> list[State]:
    return [trial.state for trial in trials]


@pytest.mark.parametrize("times", [1, 2])
def test_interrupted_trials_are_recorded_and_run_again(make_stage: MakeStage, times: int) -> None:
    stage = make_stage(trials=4, parallel=2)
    loop = stage.loop()
    stage.interrupt_at(loop, 15.0, times)
    with pytest.raises(StudyInterruptedError) as error:
        loop.run()
    assert error.value.exit_code == 130
    recorded = tuple(stage.recorder.trials.values())
    assert states(recorded) == [State.COMPLETE] * 2 + [State.INTERRUPTED] * 2
    assert stage.executor.at_once == 0

    trials = stage.run()
    assert states(trials) == [State.COMPLETE] * 4
    assert [t.restarts for t in trials] == [0, 0, 1, 1]
    assert [job.number for job in stage.executor.jobs] == [2, 3]


def test_what_an_interrupted_run_reported_is_dropped(make_stage: MakeStage, hands: Any) -> None:
    play = hands.Play(duration_s=10, curve=[5.0, 4.0, 3.0, 2.0])
    stage = make_stage(trials=1, play=lambda job: play)
    loop = stage.loop()
    stage.interrupt_at(loop, 6.0)
    with pytest.raises(StudyInterruptedError):
        loop.run()
    assert len(stage.recorder.trials[0].measurements) == 2
    (trial,) = stage.run()
    assert [m.value for m in trial.measurements] == [5.0, 4.0, 3.0, 2.0]
    assert stage.recorder.trials[0] == trial


def test_a_stopped_study_leaves_the_inbox_to_the_next_run(
    make_stage: MakeStage, hands: Any
) -> None:
    stage = make_stage(trials=2, play=lambda job: hands.Play(dies_after_s=3))
    loop = stage.loop(inbox=lambda: [hands.user()] if stage.clock.monotonic() > 6.0 else ())
    stage.interrupt_at(loop, 6.0)
    with pytest.raises(StudyInterruptedError):
        loop.run()
    assert states(tuple(stage.recorder.trials.values())) == [State.INTERRUPTED]


def test_an_interrupt_before_the_first_trial(make_stage: MakeStage) -> None:
    stage = make_stage()
    loop = stage.loop()
    loop.interrupt()
    with pytest.raises(StudyInterruptedError):
        loop.run()
    assert stage.recorder.trials == {}


def test_an_interrupt_waits_a_little_for_a_proposal_and_keeps_it(
    make_stage: MakeStage, hands: Any
) -> None:
    stage = make_stage(settings=LoopSettings(poll_s=0.25))

    class Slow(hands.Creator):
        def propose(self, history: Any, n: int) -> Any:
            loop.interrupt()
            while stage.clock.monotonic() < 3.0:
                time.sleep(0.001)
            return super().propose(history, n)

    stage.creator = Slow()
    loop = stage.loop()
    stage.clock.on_sleep = lambda: time.sleep(0.002)
    with pytest.raises(StudyInterruptedError):
        loop.run()
    assert states(tuple(stage.recorder.trials.values())) == [State.QUEUED]


def test_an_interrupt_does_not_wait_for_ever_for_a_proposal(
    make_stage: MakeStage, hands: Any
) -> None:
    stage = make_stage(settings=LoopSettings(poll_s=0.25, farewell_s=5.0))
    over = Event()

    class Endless(hands.Creator):
        def propose(self, history: Any, n: int) -> Any:
            over.wait()
            return super().propose(history, n)

    stage.creator = Endless()
    loop = stage.loop()
    stage.interrupt_at(loop, 10.0)
    with pytest.raises(StudyInterruptedError):
        loop.run()
    over.set()
    assert 15.0 <= stage.clock.monotonic() <= 16.0


def test_minutes_end_a_study_and_running_trials_can_go_on(make_stage: MakeStage) -> None:
    stage = make_stage(trials=None, parallel=2)
    stage.task = replace(stage.task, budget=Budget(trials=None, minutes=25 / 60))
    assert states(stage.run()) == [State.COMPLETE] * 4 + [State.INTERRUPTED] * 2
    assert 25.0 <= stage.clock.monotonic() <= 26.5
    assert stage.recorder.said("ended") == [
        "the minutes of the budget are used up; 2 wait for the next run"
    ]
    spent = Spent.from_data([event.data for event in stage.recorder.events])
    assert 25.0 <= spent.wall_s <= 26.5

    stage.run(spent=spent)
    assert stage.executor.jobs == []
    stage.task = replace(stage.task, budget=Budget(trials=None, minutes=38 / 60))
    trials = stage.run(spent=spent)
    assert states(trials)[:6] == [State.COMPLETE] * 6
    assert [job.number for job in stage.executor.jobs[:2]] == [4, 5]


def test_gpu_minutes_count_what_trials_hold(make_stage: MakeStage) -> None:
    stage = make_stage(trials=None, parallel=2)
    stage.task = replace(
        stage.task,
        budget=Budget(trials=None, gpu_minutes=1),
        resources=Resources(parallel=2, gpus=0.5),
    )
    trials = stage.run(inventory=Inventory(cpus=4, gpus=(Gpu("0"),)))
    # Two halves of a device for 60 seconds, less the turns between trials.
    assert 60.0 <= stage.clock.monotonic() <= 63.0
    assert states(trials).count(State.COMPLETE) in (10, 12)
    assert stage.recorder.said("ended")[0].startswith("the GPU minutes of the budget are used up")


def test_a_record_that_fails_leaves_nothing_running(make_stage: MakeStage) -> None:
    stage = make_stage(trials=4, parallel=2)
    loop = stage.loop()
    record = stage.recorder.trial

    def full(trial: Trial) -> None:
        if trial.number == 2:
            raise StoreError("the disk is full")
        record(trial)

    stage.recorder.trial = full
    with pytest.raises(StoreError, match="the disk is full"):
        loop.run()
    assert stage.executor.at_once == 0
    del stage.recorder.trial
    assert states(stage.run()) == [State.COMPLETE] * 4


def test_ctrl_c_without_a_handler_leaves_nothing_running(make_stage: MakeStage) -> None:
    stage = make_stage(trials=4, parallel=2)
    loop = stage.loop()

    def look() -> None:
        if stage.clock.monotonic() >= 5.0:
            raise KeyboardInterrupt

    stage.clock.on_sleep = look
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert stage.executor.at_once == 0
    assert states(tuple(stage.recorder.trials.values())) == [State.INTERRUPTED] * 2


def test_a_trial_that_is_being_pruned_stays_pruned_when_all_is_interrupted(
    make_stage: MakeStage, hands: Any
) -> None:
    def play(job: Job) -> Any:
        return hands.Play(duration_s=20, curve=[float(job.number)] * 20, dies_after_s=5)

    stage = make_stage(trials=8, play=play)
    stage.task = replace(stage.task, pruner=PrunerSettings(name="asha"))
    loop = stage.loop()
    stage.interrupt_at(loop, 22.0)
    with pytest.raises(StudyInterruptedError):
        loop.run()
    assert states(tuple(stage.recorder.trials.values())) == [State.COMPLETE, State.PRUNED]
    assert len(stage.recorder.said("pruning")) == 1  # asked once, however much it still reports
