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
)
from localhpo.executor.protocol import Job
from localhpo.resources.placement import Gpu, Inventory
from localhpo.scheduler.loop import LoopSettings
from localhpo.scheduler.trial_table import trial_seed
from localhpo.task import Budget, PrunerSettings, Resources
from localhpo.trial import Cause, Failure, Origin, Proposal, State, Trial

MakeBench = Callable[..., Any]


def states(trials: tuple[Trial, ...]) -> list[State]:
    return [trial.state for trial in trials]


def test_a_study_runs_to_the_end_of_its_budget(make_bench: MakeBench) -> None:
    bench = make_bench(trials=4)
    trials = bench.run()
    assert [t.number for t in trials] == [0, 1, 2, 3]
    assert states(trials) == [State.COMPLETE] * 4
    assert all(t.value == 1.0 and len(t.measurements) == 1 for t in trials)
    assert tuple(bench.recorder.trials.values()) == trials
    assert bench.recorder.messages("ended") == ["the budget is used up"]


def test_a_finished_study_starts_nothing(make_bench: MakeBench) -> None:
    bench = make_bench(trials=2)
    first = bench.run()
    assert bench.run() == first
    assert bench.executor.jobs == []


def test_a_grown_budget_goes_on_after_the_last_trial(make_bench: MakeBench) -> None:
    bench = make_bench(trials=2)
    bench.run()
    bench.task = replace(bench.task, budget=Budget(trials=5))
    assert len(bench.run()) == 5
    assert [job.number for job in bench.executor.jobs] == [2, 3, 4]


@pytest.mark.parametrize("parallel", [1, 2, 3, 5])
def test_all_slots_are_used_while_budget_remains(
    make_bench: MakeBench, fakes: Any, parallel: int
) -> None:
    def script(job: Job) -> Any:
        return fakes.TrialScript(duration_s=3.0 + 7 * (job.number * 37 % 5))

    bench = make_bench(trials=20, parallel=parallel, script=script)
    loop = bench.loop()
    busy: list[tuple[int, int]] = []

    def count_running() -> None:
        counted = len(bench.recorder.ends)
        busy.append((bench.executor.running_now, min(parallel, 20 - counted)))

    bench.clock.on_sleep = count_running
    loop.run()
    assert bench.executor.max_running == parallel
    assert all(running <= parallel for running, _ in busy)
    # A trial may have ended within this turn's sleep: seen at the next turn, and replaced in it.
    assert all(running == room for running, room in busy)
    assert len(bench.recorder.ends) == len(set(bench.recorder.ends)) == 20


def test_several_free_slots_are_one_call_of_the_creator(make_bench: MakeBench) -> None:
    bench = make_bench(trials=5, parallel=3)
    bench.run()
    assert [n for _, n in bench.creator.shown] == [3, 2]


def test_fewer_proposals_than_asked_for_are_asked_for_again(
    make_bench: MakeBench, fakes: Any
) -> None:
    bench = make_bench(trials=6, parallel=3, creator=fakes.Creator(most=1))
    assert states(bench.run()) == [State.COMPLETE] * 6
    assert bench.executor.max_running == 3


def test_the_history_contains_running_trials(make_bench: MakeBench, fakes: Any) -> None:
    def script(job: Job) -> Any:
        return fakes.TrialScript(duration_s=5.0 if job.number == 0 else 30.0)

    bench = make_bench(trials=3, parallel=2, script=script)
    bench.run()
    history, n = bench.creator.shown[1]
    assert n == 1
    assert (history.next_number, history.seed) == (2, 7)
    assert states(history.trials) == [State.COMPLETE, State.RUNNING]


def test_a_job_has_the_limits_and_devices_of_the_task(
    make_bench: MakeBench, make_task: Any
) -> None:
    task = make_task(
        budget=Budget(timeout_s=60, grace_s=2), resources=Resources(memory_mb=100, cpus=2, gpus=0.5)
    )
    bench = make_bench(trials=1, task=task)
    bench.run(inventory=Inventory(cpus=4, gpus=(Gpu("3"),)))
    (job,) = bench.executor.jobs
    assert (job.timeout_s, job.grace_s, job.memory_mb) == (60, 2, 100)
    assert job.env["CUDA_VISIBLE_DEVICES"] == "3"
    assert job.folder.name == "0"
    assert job.seed == trial_seed(7, 0) == bench.recorder.trials[0].seed


def test_threads_set_by_the_task_are_kept(
    make_bench: MakeBench, make_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    bench = make_bench(trials=1)
    bench.run()
    assert bench.executor.jobs[0].env == {"OMP_NUM_THREADS": "1"}
    bench = make_bench(trials=1, task=make_task(env={"OMP_NUM_THREADS": "3"}))
    bench.run()
    assert bench.executor.jobs[0].env == {}


def test_seeds_differ_by_study_and_number() -> None:
    seeds = {trial_seed(study, number) for study in range(30) for number in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert trial_seed(0, 0) == 713683445  # and never change


def test_a_note_tells_that_fewer_trials_fit_than_wanted(make_bench: MakeBench) -> None:
    bench = make_bench(trials=4, parallel=4, cpus=2)
    bench.run()
    assert bench.executor.max_running == 2
    assert "this machine has room for 2 at once" in bench.recorder.messages("note")[0]


def test_warnings_of_the_inventory_are_recorded(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.run(inventory=Inventory(cpus=2, warnings=("GPU 0 does not answer",)))
    assert bench.recorder.messages("warning") == ["GPU 0 does not answer"]


# Waiting trials.


def test_enqueued_trials_run_first(make_bench: MakeBench, fakes: Any) -> None:
    bench = make_bench(trials=3)
    enqueued = [[fakes.user_proposal(depth=5), fakes.user_proposal(depth=6)]]
    trials = bench.run(read_enqueued=lambda: enqueued.pop() if enqueued else ())
    assert [str(t.proposal.origin) for t in trials] == ["user", "user", "test"]
    assert [t.config["depth"] for t in trials[:2]] == [5, 6]


def test_trials_enqueued_during_a_run_come_next(make_bench: MakeBench, fakes: Any) -> None:
    bench = make_bench(trials=4)
    enqueued: list[Proposal] = []

    def read_enqueued() -> list[Proposal]:
        taken = enqueued[:]
        enqueued.clear()
        if bench.clock.monotonic() == 15.0:
            enqueued.append(fakes.user_proposal(depth=5))
        return taken

    trials = bench.run(read_enqueued=read_enqueued)
    assert [str(t.proposal.origin) for t in trials] == ["test"] * 2 + ["user", "test"]
    assert trials[2].queued_at < (trials[1].finished_at or 0)  # at once, not when a slot is free


def test_enqueued_trials_are_read_when_a_slot_is_free(make_bench: MakeBench, fakes: Any) -> None:
    settings = LoopSettings(poll_s=0.25, idle_s=1000.0, concurrent_proposals=False)
    bench = make_bench(trials=2, settings=settings)
    enqueued = [[fakes.user_proposal(depth=5)], []]
    trials = bench.run(read_enqueued=lambda: enqueued.pop() if enqueued else ())
    assert [str(t.proposal.origin) for t in trials] == ["test", "user"]


def test_enqueued_trials_beyond_the_budget_stay_queued(make_bench: MakeBench, fakes: Any) -> None:
    bench = make_bench(trials=1)
    enqueued = [[fakes.user_proposal(depth=depth) for depth in (1, 2, 3)]]
    trials = bench.run(read_enqueued=lambda: enqueued.pop() if enqueued else ())
    assert states(trials) == [State.COMPLETE, State.QUEUED, State.QUEUED]
    assert bench.recorder.messages("ended") == [
        "the budget is used up; 2 trials wait for the next run"
    ]
    bench.task = replace(bench.task, budget=Budget(trials=2))
    assert states(bench.run()) == [State.COMPLETE, State.COMPLETE, State.QUEUED]
    assert bench.creator.shown == []


def test_order_of_waiting_trials(make_bench: MakeBench, fakes: Any) -> None:
    """First the user's, then interrupted ones, then those the Creator proposed."""
    made = Origin.parse("test")
    queued = Trial(0, State.QUEUED, Proposal({"learning_rate": 0.01, "depth": 1}, made))
    interrupted = Trial(1, State.INTERRUPTED, Proposal({"learning_rate": 0.01, "depth": 2}, made))
    user = Trial(2, State.QUEUED, fakes.user_proposal())
    bench = make_bench(trials=4)
    bench.recorder.trials = {t.number: t for t in (queued, interrupted, user)}
    bench.run()
    assert [job.number for job in bench.executor.jobs] == [2, 1, 0, 3]


# Failures and refusals.


def test_failed_trials_count_and_the_study_goes_on(make_bench: MakeBench, fakes: Any) -> None:
    failure = Failure(Cause.OUT_OF_MEMORY_HOST, "took 900 MB, the limit is 800")

    def script(job: Job) -> Any:
        return fakes.TrialScript(failure=failure) if job.number % 2 else fakes.TrialScript()

    bench = make_bench(trials=4, script=script)
    assert states(bench.run()) == [State.COMPLETE, State.FAILED] * 2
    assert bench.recorder.messages("failed") == [failure.message] * 2


def test_the_same_failure_from_the_start_ends_the_study(make_bench: MakeBench, fakes: Any) -> None:
    failure = Failure(Cause.COULD_NOT_START, "there is no program 'pyton'")
    script = fakes.TrialScript(duration_s=0.5, curve=(), failure=failure)
    bench = make_bench(trials=10, script=lambda job: script)
    with pytest.raises(NoGoodTrialError, match="there is no program 'pyton'"):
        bench.run()
    assert len(bench.recorder.ends) == 3
    with pytest.raises(NoGoodTrialError):  # a new run has three tries of its own
        bench.run()
    assert len(bench.recorder.ends) == 6


def test_infeasible_proposals_do_not_count_against_the_budget(make_bench: MakeBench) -> None:
    bench = make_bench(trials=3)
    trials = bench.run(
        check_config=lambda config: "too big" if config["learning_rate"] < 0.004 else None
    )
    assert states(trials) == [State.INFEASIBLE] * 3 + [State.COMPLETE] * 3
    assert trials[0].summary == "too big"
    assert bench.recorder.messages("infeasible") == ["too big"] * 3


def test_infeasible_proposals_are_counted_in_a_row(make_bench: MakeBench) -> None:
    bench = make_bench(trials=3)
    fits = {0.016, 0.031, 0.046}  # each after fifteen that do not
    trials = bench.run(
        check_config=lambda config: None if config["learning_rate"] in fits else "big"
    )
    assert states(trials).count(State.INFEASIBLE) == 43


def test_only_infeasible_proposals_are_an_error(make_bench: MakeBench) -> None:
    bench = make_bench(trials=3)
    with pytest.raises(CreatorError, match="20 infeasible proposals in a row; the last: too big"):
        bench.run(check_config=lambda config: "too big")
    assert len(bench.recorder.trials) == 20


# Errors of the Creator.


def test_a_used_up_space_ends_the_study_without_an_error(make_bench: MakeBench, fakes: Any) -> None:
    creator = fakes.Creator(raises={2: SpaceExhaustedError("2 of 2 configurations were tried")})
    bench = make_bench(trials=9, parallel=2, creator=creator)
    assert states(bench.run()) == [State.COMPLETE] * 2
    assert "2 of 2 configurations were tried" in bench.recorder.messages("note")[0]
    assert bench.recorder.messages("ended") == ["the space is used up"]


@pytest.mark.parametrize("concurrent", [False, True])
def test_running_trials_end_before_a_model_error_is_raised(
    make_bench: MakeBench, fakes: Any, concurrent: bool
) -> None:
    def script(job: Job) -> Any:
        return fakes.TrialScript(duration_s=5.0 if job.number == 0 else 60.0)

    creator = fakes.Creator(raises={2: BackendError("the server is gone")})
    settings = LoopSettings(poll_s=0.25, concurrent_proposals=concurrent)
    bench = make_bench(trials=9, parallel=2, creator=creator, script=script, settings=settings)
    with pytest.raises(BackendError, match="the server is gone"):
        bench.run()
    assert states(tuple(bench.recorder.trials.values())) == [State.COMPLETE] * 2


def test_any_exception_of_a_creator_is_raised(make_bench: MakeBench, fakes: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        make_bench(creator=fakes.Creator(raises={0: ZeroDivisionError()})).run()


def test_a_creator_that_proposes_nothing_is_an_error(make_bench: MakeBench, fakes: Any) -> None:
    with pytest.raises(CreatorError, match="must make 1 to 1 proposals, made 0"):
        make_bench(creator=fakes.Creator(most=0)).run()


RATE = {"learning_rate": 0.01, "depth": 1}


@pytest.mark.parametrize(
    ("proposed", "message"),
    [
        ([{**RATE, "depth": 99}], r"counting must propose configurations of the space; .*99"),
        ([{"depth": 1}], "learning_rate is missing"),
        ([{"learning_rate": 0.00100000001, "depth": 1}], r"is trial 0 \(complete\)"),
        ([RATE, {"learning_rate": 0.0100000001, "depth": 1}], "another of its proposals"),
        (None, "counting must return a list of proposals; got None"),
        ([RATE] * 3, "must make 1 to 2 proposals, made 3"),
    ],
)
def test_what_is_not_new_and_in_the_space_is_an_error_and_never_stored(
    make_bench: MakeBench, fakes: Any, proposed: Any, message: str
) -> None:
    class Wrong(fakes.Creator):
        def propose(self, history: Any, n: int) -> Any:
            if n == 1:
                return super().propose(history, n)
            return proposed and [Proposal(c, Origin.parse("test")) for c in proposed]

    bench = make_bench(trials=1)
    bench.run()
    bench.task = replace(
        bench.task, budget=Budget(trials=4), resources=replace(bench.task.resources, parallel=2)
    )
    bench.creator = Wrong()
    with pytest.raises(CreatorError, match=message):
        bench.run()
    assert len(bench.recorder.trials) == 1
    bench.creator = fakes.Creator()
    assert len(bench.run()) == 4  # the study can go on


def test_a_proposal_is_put_on_the_grid(make_bench: MakeBench, fakes: Any) -> None:
    class OffGrid(fakes.Creator):
        def propose(self, history: Any, n: int) -> Any:
            rate = 0.0123456 * (1 + history.next_number)
            return [Proposal({"depth": 2.0, "learning_rate": rate}, Origin.parse("test"))]

    trials = make_bench(trials=2, creator=OffGrid()).run()
    assert [list(trial.config.items()) for trial in trials] == [
        [("learning_rate", 0.0123), ("depth", 2)],
        [("learning_rate", 0.0247), ("depth", 2)],
    ]


def test_polling_goes_on_while_the_creator_proposes(make_bench: MakeBench, fakes: Any) -> None:
    """The second proposal comes only after the running trial was seen to go on and to end."""
    bench = make_bench(trials=3, parallel=2, settings=LoopSettings(poll_s=0.25))
    seen: list[int] = []

    class Slow(fakes.Creator):
        def propose(self, history: Any, n: int) -> Any:
            if history.next_number == 1:
                while not bench.recorder.ends:
                    time.sleep(0.001)
            return super().propose(history, 1)

    bench.creator = Slow()
    loop = bench.loop()
    bench.clock.on_sleep = lambda: (seen.append(bench.executor.running_now), time.sleep(0.0005))
    assert states(loop.run()) == [State.COMPLETE] * 3
    assert seen.count(1) >= 40  # the ten seconds of the first trial, a quarter each


# Pruning.


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_poor_trials_are_pruned(make_bench: MakeBench, fakes: Any, pruner: Any) -> None:
    def script(job: Job) -> Any:
        value = float(job.number)
        return fakes.TrialScript(duration_s=20, curve=[value] * 20)

    bench = make_bench(trials=8, script=script)
    bench.task = replace(bench.task, pruner=PrunerSettings(name=pruner))
    trials = bench.run()
    first = {"median": 4, "asha": 1}[pruner]
    assert states(trials) == [State.COMPLETE] * first + [State.PRUNED] * (8 - first)
    assert all(len(t.measurements) < 5 and t.value == t.number for t in trials[first:])
    assert len(bench.recorder.messages("pruning")) == 8 - first
    assert len(bench.recorder.ends) == 8
