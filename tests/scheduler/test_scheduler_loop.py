from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from localhpo.errors import (
    BackendError,
    CreatorError,
    NoGoodTrialError,
    SpaceExhaustedError,
    TaskError,
)
from localhpo.executor.protocol import Job
from localhpo.scheduler.ledger import trial_seed
from localhpo.scheduler.loop import LoopSettings
from localhpo.scheduler.placement import Gpu, Inventory
from localhpo.task import Budget, PrunerSettings, Resources
from localhpo.trial import Cause, Failure, Proposal, State, Trial

MakeStage = Callable[..., Any]


def states(trials: tuple[Trial, ...]) -> list[State]:
    return [trial.state for trial in trials]


def test_a_study_runs_to_the_end_of_its_budget(make_stage: MakeStage) -> None:
    stage = make_stage(trials=4)
    trials = stage.run()
    assert [t.number for t in trials] == [0, 1, 2, 3]
    assert states(trials) == [State.COMPLETE] * 4
    assert all(t.score == 1.0 and len(t.measurements) == 1 for t in trials)
    assert tuple(stage.recorder.trials.values()) == trials
    assert stage.recorder.said("ended") == ["the budget is used up"]


def test_a_finished_study_starts_nothing(make_stage: MakeStage) -> None:
    stage = make_stage(trials=2)
    first = stage.run()
    assert stage.run() == first
    assert stage.executor.jobs == []


def test_a_budget_may_grow(make_stage: MakeStage) -> None:
    stage = make_stage(trials=2)
    stage.run()
    stage.task = replace(stage.task, budget=Budget(trials=5))
    assert len(stage.run()) == 5
    assert [job.number for job in stage.executor.jobs] == [2, 3, 4]


@pytest.mark.parametrize("parallel", [1, 2, 3, 5])
def test_slots_are_full_while_budget_remains_and_never_overfull(
    make_stage: MakeStage, hands: Any, parallel: int
) -> None:
    def play(job: Job) -> Any:
        return hands.Play(duration_s=3.0 + 7 * (job.number * 37 % 5))

    stage = make_stage(trials=20, parallel=parallel, play=play)
    loop = stage.loop()
    busy: list[tuple[int, int]] = []

    def look() -> None:
        counted = len(stage.recorder.ends)
        busy.append((stage.executor.at_once, min(parallel, 20 - counted)))

    stage.clock.on_sleep = look
    loop.run()
    assert stage.executor.most_at_once == parallel
    assert all(running <= parallel for running, _ in busy)
    # A trial may have ended within this turn's sleep: seen at the next turn, and replaced in it.
    assert all(running == room for running, room in busy)
    assert len(stage.recorder.ends) == len(set(stage.recorder.ends)) == 20


def test_several_free_slots_are_one_question(make_stage: MakeStage) -> None:
    stage = make_stage(trials=5, parallel=3)
    stage.run()
    assert [n for _, n in stage.creator.shown] == [3, 2]


def test_fewer_proposals_than_asked_for_are_asked_for_again(
    make_stage: MakeStage, hands: Any
) -> None:
    stage = make_stage(trials=6, parallel=3, creator=hands.Creator(most=1))
    assert states(stage.run()) == [State.COMPLETE] * 6
    assert stage.executor.most_at_once == 3


def test_a_proposal_knows_what_runs_and_what_waits(make_stage: MakeStage, hands: Any) -> None:
    def play(job: Job) -> Any:
        return hands.Play(duration_s=5.0 if job.number == 0 else 30.0)

    stage = make_stage(trials=3, parallel=2, play=play)
    stage.run()
    history, n = stage.creator.shown[1]
    assert n == 1
    assert (history.next_number, history.seed) == (2, 7)
    assert states(history.trials) == [State.COMPLETE, State.RUNNING]


def test_jobs_carry_what_the_task_says(make_stage: MakeStage, make_task: Any) -> None:
    task = make_task(
        budget=Budget(timeout_s=60, grace_s=2), resources=Resources(memory_mb=100, cpus=2, gpus=0.5)
    )
    stage = make_stage(trials=1, task=task)
    stage.run(inventory=Inventory(cpus=4, gpus=(Gpu("3"),)))
    (job,) = stage.executor.jobs
    assert (job.timeout_s, job.grace_s, job.memory_mb) == (60, 2, 100)
    assert job.env["CUDA_VISIBLE_DEVICES"] == "3"
    assert job.folder.name == "0"
    assert job.seed == trial_seed(7, 0) == stage.recorder.trials[0].seed


def test_threads_set_by_the_task_are_left_alone(
    make_stage: MakeStage, make_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    stage = make_stage(trials=1)
    stage.run()
    assert stage.executor.jobs[0].env == {"OMP_NUM_THREADS": "1"}
    stage = make_stage(trials=1, task=make_task(env={"OMP_NUM_THREADS": "3"}))
    stage.run()
    assert stage.executor.jobs[0].env == {}


def test_seeds_differ_by_study_and_number() -> None:
    seeds = {trial_seed(study, number) for study in range(30) for number in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert trial_seed(0, 0) == 713683445  # and never change


def test_a_machine_too_small_is_an_error_before_anything_is_recorded(
    make_stage: MakeStage, make_task: Any
) -> None:
    stage = make_stage(task=make_task(resources=Resources(gpus=1)))
    with pytest.raises(TaskError, match="this machine offers 0"):
        stage.loop()
    assert stage.recorder.trials == {}
    assert stage.recorder.events == []


def test_less_room_than_asked_for_is_said(make_stage: MakeStage) -> None:
    stage = make_stage(trials=4, parallel=4, cpus=2)
    stage.run()
    assert stage.executor.most_at_once == 2
    assert "this machine has room for 2 at once" in stage.recorder.said("note")[0]


def test_a_device_that_is_left_out_is_said(make_stage: MakeStage) -> None:
    stage = make_stage()
    stage.run(inventory=Inventory(cpus=2, warnings=("GPU 0 does not answer",)))
    assert stage.recorder.said("warning") == ["GPU 0 does not answer"]


# What waits.


def test_what_the_user_enqueued_runs_first(make_stage: MakeStage, hands: Any) -> None:
    stage = make_stage(trials=3)
    letters = [[hands.user(depth=5), hands.user(depth=6)]]
    trials = stage.run(inbox=lambda: letters.pop() if letters else ())
    assert [t.proposal.origin for t in trials] == ["user", "user", "engine:test"]
    assert [t.config["depth"] for t in trials[:2]] == [5, 6]


def test_what_is_enqueued_while_trials_run_comes_next(make_stage: MakeStage, hands: Any) -> None:
    stage = make_stage(trials=4)
    letters: list[Proposal] = []

    def inbox() -> list[Proposal]:
        taken = letters[:]
        letters.clear()
        if stage.clock.monotonic() == 15.0:
            letters.append(hands.user(depth=5))
        return taken

    trials = stage.run(inbox=inbox)
    assert [t.proposal.origin for t in trials] == ["engine:test"] * 2 + ["user", "engine:test"]
    assert trials[2].queued_at < (trials[1].finished_at or 0)  # at once, not when a slot is free


def test_the_inbox_is_read_when_a_slot_frees(make_stage: MakeStage, hands: Any) -> None:
    settings = LoopSettings(poll_s=0.25, idle_s=1000.0, concurrent_proposals=False)
    stage = make_stage(trials=2, settings=settings)
    letters = [[hands.user(depth=5)], []]
    trials = stage.run(inbox=lambda: letters.pop() if letters else ())
    assert [t.proposal.origin for t in trials] == ["engine:test", "user"]


def test_more_than_the_budget_stays_queued(make_stage: MakeStage, hands: Any) -> None:
    stage = make_stage(trials=1)
    letters = [[hands.user(depth=depth) for depth in (1, 2, 3)]]
    trials = stage.run(inbox=lambda: letters.pop() if letters else ())
    assert states(trials) == [State.COMPLETE, State.QUEUED, State.QUEUED]
    assert stage.recorder.said("ended") == ["the budget is used up; 2 wait for the next run"]
    stage.task = replace(stage.task, budget=Budget(trials=2))
    assert states(stage.run()) == [State.COMPLETE, State.COMPLETE, State.QUEUED]
    assert stage.creator.shown == []


def test_order_of_what_waits(make_stage: MakeStage, hands: Any) -> None:
    """The user's, then what was interrupted, then what the Creator proposed."""
    queued = Trial(0, State.QUEUED, Proposal({"depth": 1}, "engine:test"))
    interrupted = Trial(1, State.INTERRUPTED, Proposal({"depth": 2}, "engine:test"))
    user = Trial(2, State.QUEUED, hands.user())
    stage = make_stage(trials=4)
    stage.recorder.trials = {t.number: t for t in (queued, interrupted, user)}
    stage.run()
    assert [job.number for job in stage.executor.jobs] == [2, 1, 0, 3]


# Failures and refusals.


def test_failed_trials_count_and_the_study_goes_on(make_stage: MakeStage, hands: Any) -> None:
    failure = Failure(Cause.OUT_OF_MEMORY_HOST, "took 900 MB, the limit is 800")

    def play(job: Job) -> Any:
        return hands.Play(failure=failure) if job.number % 2 else hands.Play()

    stage = make_stage(trials=4, play=play)
    assert states(stage.run()) == [State.COMPLETE, State.FAILED] * 2
    assert stage.recorder.said("failed") == [failure.message] * 2


def test_the_same_failure_from_the_start_ends_the_study(make_stage: MakeStage, hands: Any) -> None:
    failure = Failure(Cause.COULD_NOT_START, "there is no program 'pyton'")
    play = hands.Play(duration_s=0.5, curve=(), failure=failure)
    stage = make_stage(trials=10, play=lambda job: play)
    with pytest.raises(NoGoodTrialError, match="there is no program 'pyton'"):
        stage.run()
    assert len(stage.recorder.ends) == 3
    with pytest.raises(NoGoodTrialError):  # a new run has three tries of its own
        stage.run()
    assert len(stage.recorder.ends) == 6


def test_infeasible_proposals_cost_nothing(make_stage: MakeStage) -> None:
    stage = make_stage(trials=3)
    trials = stage.run(check=lambda config: "too big" if config["learning_rate"] < 0.004 else None)
    assert states(trials) == [State.INFEASIBLE] * 3 + [State.COMPLETE] * 3
    assert trials[0].summary == "too big"
    assert stage.recorder.said("infeasible") == ["too big"] * 3


def test_infeasible_proposals_are_counted_in_a_row(make_stage: MakeStage) -> None:
    stage = make_stage(trials=3)
    fits = {0.016, 0.031, 0.046}  # each after fifteen that do not
    trials = stage.run(check=lambda config: None if config["learning_rate"] in fits else "big")
    assert states(trials).count(State.INFEASIBLE) == 43


def test_nothing_but_infeasible_proposals_is_an_error(make_stage: MakeStage) -> None:
    stage = make_stage(trials=3)
    with pytest.raises(CreatorError, match="20 infeasible proposals in a row; the last: too big"):
        stage.run(check=lambda config: "too big")
    assert len(stage.recorder.trials) == 20


# The Creator's troubles.


def test_a_used_up_space_ends_the_study_well(make_stage: MakeStage, hands: Any) -> None:
    creator = hands.Creator(raises={2: SpaceExhaustedError("2 of 2 configurations were tried")})
    stage = make_stage(trials=9, parallel=2, creator=creator)
    assert states(stage.run()) == [State.COMPLETE] * 2
    assert "2 of 2 configurations were tried" in stage.recorder.said("note")[0]
    assert stage.recorder.said("ended") == ["the space is used up"]


@pytest.mark.parametrize("concurrent", [False, True])
def test_running_trials_end_before_an_error_of_the_model_is_raised(
    make_stage: MakeStage, hands: Any, concurrent: bool
) -> None:
    def play(job: Job) -> Any:
        return hands.Play(duration_s=5.0 if job.number == 0 else 60.0)

    creator = hands.Creator(raises={2: BackendError("the server is gone")})
    settings = LoopSettings(poll_s=0.25, concurrent_proposals=concurrent)
    stage = make_stage(trials=9, parallel=2, creator=creator, play=play, settings=settings)
    with pytest.raises(BackendError, match="the server is gone"):
        stage.run()
    assert states(tuple(stage.recorder.trials.values())) == [State.COMPLETE] * 2


def test_a_bug_in_a_creator_is_raised_as_it_is(make_stage: MakeStage, hands: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        make_stage(creator=hands.Creator(raises={0: ZeroDivisionError()})).run()


def test_a_creator_that_proposes_nothing_is_an_error(make_stage: MakeStage, hands: Any) -> None:
    with pytest.raises(CreatorError, match="must make 1 to 1 proposals, made 0"):
        make_stage(creator=hands.Creator(most=0)).run()


def test_polling_goes_on_while_the_creator_thinks(make_stage: MakeStage, hands: Any) -> None:
    """The second proposal comes only after the running trial was seen to go on and to end."""
    stage = make_stage(trials=3, parallel=2, settings=LoopSettings(poll_s=0.25))
    seen: list[int] = []

    class Slow(hands.Creator):
        def propose(self, history: Any, n: int) -> Any:
            if history.next_number == 1:
                while not stage.recorder.ends:
                    time.sleep(0.001)
            return super().propose(history, 1)

    stage.creator = Slow()
    loop = stage.loop()
    stage.clock.on_sleep = lambda: (seen.append(stage.executor.at_once), time.sleep(0.0005))
    assert states(loop.run()) == [State.COMPLETE] * 3
    assert seen.count(1) >= 40  # the ten seconds of the first trial, a quarter each


# Pruning.


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_poor_trials_are_pruned(make_stage: MakeStage, hands: Any, pruner: Any) -> None:
    def play(job: Job) -> Any:
        value = float(job.number)
        return hands.Play(duration_s=20, curve=[value] * 20)

    stage = make_stage(trials=8, play=play)
    stage.task = replace(stage.task, pruner=PrunerSettings(name=pruner))
    trials = stage.run()
    first = {"median": 4, "asha": 1}[pruner]
    assert states(trials) == [State.COMPLETE] * first + [State.PRUNED] * (8 - first)
    assert all(len(t.measurements) < 5 and t.score == t.number for t in trials[first:])
    assert len(stage.recorder.said("pruning")) == 8 - first
    assert len(stage.recorder.ends) == 8
