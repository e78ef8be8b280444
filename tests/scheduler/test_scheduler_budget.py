from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from localhpo.scheduler.budget import (
    RemainingBudget,
    SpentTime,
    estimate_remaining_s,
    remaining_budget,
    repeated_failure,
)
from localhpo.task import Budget
from localhpo.trial import Cause, Failure, Measurement, State, Trial

NO_BOUND = RemainingBudget(trials=None, wall_s=None, gpu_s=None)


def test_remaining_budget() -> None:
    spent = SpentTime(wall_s=90, gpu_s=30)
    assert remaining_budget(Budget(trials=10), 4, spent) == replace(NO_BOUND, trials=6)
    assert remaining_budget(Budget(trials=None, minutes=2), 4, spent) == replace(
        NO_BOUND, wall_s=30
    )
    assert remaining_budget(Budget(trials=None, gpu_minutes=2), 4, spent) == replace(
        NO_BOUND, gpu_s=90
    )


def test_nothing_remains_of_a_budget_that_shrank() -> None:
    assert remaining_budget(Budget(trials=3), 5, SpentTime()).trials == 0


@pytest.mark.parametrize(
    ("spent", "sentence"),
    [
        (SpentTime(wall_s=59), ""),
        (SpentTime(wall_s=60), "the minutes of the budget are used up"),
        (SpentTime(gpu_s=61), "the GPU minutes of the budget are used up"),
    ],
)
def test_time_is_up(spent: SpentTime, sentence: str) -> None:
    assert remaining_budget(Budget(minutes=1, gpu_minutes=1), 0, spent).time_is_up == sentence


def test_time_that_earlier_runs_used_is_read_from_their_events() -> None:
    events = [SpentTime(10, 5).to_data(), {}, SpentTime(30.5, 7).to_data(), {"other": 1}]
    assert SpentTime.from_data(events) == SpentTime(30.5, 7)
    assert SpentTime.from_data([]) == SpentTime()


MakeTrial = Callable[..., Trial]


def test_the_estimate_comes_from_finished_trials(make_trial: MakeTrial) -> None:
    trials = [make_trial(n, {}, started_at=100.0 * n, finished_at=100.0 * n + 10) for n in range(2)]
    assert estimate_remaining_s(trials, [], replace(NO_BOUND, trials=6), slots=1) == 60
    assert estimate_remaining_s(trials, [], replace(NO_BOUND, trials=6), slots=2) == 30
    assert estimate_remaining_s(trials, [4.0], replace(NO_BOUND, trials=6), slots=1) == 56
    assert estimate_remaining_s(trials, [25.0], replace(NO_BOUND, trials=1), slots=4) == 0
    # Idle slots do not make the last trial any faster.
    assert estimate_remaining_s(trials, [2.0], replace(NO_BOUND, trials=1), slots=4) == 8


def test_the_estimate_is_at_most_the_minutes(make_trial: MakeTrial) -> None:
    trials = [make_trial(0, {}, started_at=0.0, finished_at=10.0)]
    assert (
        estimate_remaining_s(trials, [], RemainingBudget(trials=6, wall_s=33, gpu_s=None), slots=1)
        == 33
    )
    assert (
        estimate_remaining_s([], [], RemainingBudget(trials=6, wall_s=33, gpu_s=None), slots=1)
        == 33
    )


def test_without_a_finished_trial_there_is_no_estimate() -> None:
    assert estimate_remaining_s([], [3.0], replace(NO_BOUND, trials=6), slots=1) is None
    assert estimate_remaining_s([], [], NO_BOUND, slots=1) is None


def test_quick_failures_do_not_shorten_the_estimate(make_trial: MakeTrial) -> None:
    trials = [
        make_trial(0, {}, started_at=0.0, finished_at=10.0),
        make_trial(1, {}, State.FAILED, started_at=10.0, finished_at=10.1),
    ]
    assert estimate_remaining_s(trials, [], replace(NO_BOUND, trials=2), slots=1) == 20
    assert estimate_remaining_s(
        trials[1:], [], replace(NO_BOUND, trials=2), slots=1
    ) == pytest.approx(0.2)


def failures(make_trial: MakeTrial, *ways: tuple[Cause, str]) -> list[Trial]:
    return [
        make_trial(n, {}, State.FAILED, failure=Failure(cause, f"{cause} {n}", stderr))
        for n, (cause, stderr) in enumerate(ways)
    ]


WRONG_OPTION = (Cause.EXIT_CODE, "usage: ...\nerror: unrecognized arguments: --depth\n")


@pytest.mark.parametrize(
    ("ways", "stops"),
    [
        ([(Cause.COULD_NOT_START, "")] * 3, True),
        ([(Cause.NOTHING_REPORTED, "a"), (Cause.NOTHING_REPORTED, "b")] * 2, True),
        ([WRONG_OPTION] * 3, True),
        ([(Cause.COULD_NOT_START, "")] * 2, False),
        ([WRONG_OPTION] * 2 + [(Cause.EXIT_CODE, "bad value 0.3")], False),
        ([(Cause.EXIT_CODE, "")] * 3, False),  # nothing says that it is the same mistake
        ([(Cause.OUT_OF_MEMORY_DEVICE, "x")] * 3, False),
        ([(Cause.TIMEOUT, "")] * 3, False),
        ([(Cause.COULD_NOT_START, "")] * 2 + [(Cause.NOTHING_REPORTED, "")], False),
    ],
)
def test_repeated_failure(
    make_trial: MakeTrial, ways: list[tuple[Cause, str]], stops: bool
) -> None:
    assert bool(repeated_failure(failures(make_trial, *ways), 3)) is stops


def test_a_trial_that_reported_is_no_repeated_failure(make_trial: MakeTrial) -> None:
    trials = failures(make_trial, *[WRONG_OPTION] * 3)
    trials[1] = trials[1].with_(measurements=(Measurement(0, "loss", 1.0, 0.0),))
    assert repeated_failure(trials, 3) is None
    good = make_trial(0, {}, State.COMPLETE, value=1.0)
    assert repeated_failure([good, *failures(make_trial, *[WRONG_OPTION] * 5)], 3) is None


def test_zero_switches_the_rule_off(make_trial: MakeTrial) -> None:
    assert repeated_failure(failures(make_trial, *[WRONG_OPTION] * 9), 0) is None
    assert repeated_failure([], 3) is None
