from __future__ import annotations

from dataclasses import replace

import pytest

from localhpo.creator.context import (
    build_facts,
    quality_digit,
    rank_trials,
    select_trials,
    value_digits,
)
from localhpo.creator.protocol import History
from localhpo.objective import Constraint, Objective
from localhpo.space import Categorical, Float, Int, Ordinal, Space
from localhpo.task import Budget
from localhpo.trial import Cause, Failure, State


def config(depth, rate=1e-2):
    return {"learning_rate": rate, "depth": depth}


@pytest.fixture
def history_of(make_task):
    def make(trials, **changes):
        return History(make_task(**changes), tuple(trials), seed=0, next_number=len(trials))

    return make


@pytest.fixture
def with_values(make_trial):
    def make(values, **changes):
        return [
            make_trial(number, config(1 + number % 8, 1e-4 * (1 + number)), value=value, **changes)
            for number, value in enumerate(values)
        ]

    return make


def test_finished_trials_come_worst_to_best_with_refused_and_pruned_ones_first(make_trial):
    trials = [
        make_trial(0, config(1), value=0.3),
        make_trial(1, config(2), State.FAILED),
        make_trial(2, config(3), State.PRUNED, value=0.1),
        make_trial(3, config(4), State.INFEASIBLE),
        make_trial(4, config(5), value=0.2),
        make_trial(5, config(6), State.RUNNING),
    ]
    assert [t.number for t in rank_trials(trials, "minimize")] == [1, 3, 2, 0, 4]
    assert [t.number for t in rank_trials(trials, "maximize")] == [1, 3, 2, 4, 0]


def test_of_equal_values_the_earlier_is_better(with_values):
    assert [t.number for t in rank_trials(with_values([0.5, 0.5]), "minimize")] == [1, 0]


def test_running_queued_and_interrupted_trials_are_shown_as_running(history_of, make_trial):
    states = [State.RUNNING, State.QUEUED, State.INTERRUPTED]
    trials = [make_trial(n, config(n + 1), state) for n, state in enumerate(states)]
    shown = build_facts(history_of(trials))
    assert shown.running == tuple(
        f'{{"learning_rate":1e-2,"depth":{depth}}}' for depth in (1, 2, 3)
    )
    assert shown.trials == ()
    assert shown.best is None


def test_a_failure_shows_its_cause_and_message(history_of, make_trial):
    failure = Failure(Cause.OUT_OF_MEMORY_HOST, "used 900 MB\nof 800 MB")
    trial = make_trial(0, config(1), State.FAILED, failure=failure, summary="ended at step 3")
    (fact,) = build_facts(history_of([trial])).trials
    assert fact.state == "failed"
    assert fact.cause == "out of host memory"
    assert fact.summary == "used 900 MB of 800 MB ended at step 3"
    assert fact.value == ""
    assert fact.quality is None


def test_a_long_summary_is_cut(history_of, make_trial):
    trial = make_trial(0, config(1), value=1.0, summary="word " * 200)
    (fact,) = build_facts(history_of([trial])).trials
    assert len(fact.summary) <= 300
    assert fact.summary.endswith("...")


@pytest.mark.parametrize(
    ("values", "qualities"),
    [
        ([0.5], [9]),
        ([0.5, 0.4], [0, 9]),
        ([0.5, 0.5], [9, 9]),
        ([3, 2, 1], [0, 5, 9]),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ([2, 2, 1, 1], [0, 0, 9, 9]),
    ],
)
def test_quality_is_the_rank_with_the_best_at_nine(history_of, with_values, values, qualities):
    shown = build_facts(history_of(with_values(values))).trials
    by_number = sorted(shown, key=lambda fact: fact.number)
    assert [fact.quality for fact in by_number] == qualities


@pytest.mark.parametrize("others", range(1, 40))
def test_quality_rises_with_rank_and_stays_a_digit(others):
    grades = [quality_digit(worse, others - worse) for worse in range(others + 1)]
    assert grades == sorted(grades)
    assert grades[0] == 0
    assert grades[-1] == 9


@pytest.mark.parametrize(
    ("values", "digits"),
    [
        ([0.5], 4),
        ([0.1, 0.2], 4),
        ([0.97131, 0.97134], 5),
        ([0.9713215, 0.9713224], 6),
        ([0.5, 0.5], 4),
        ([1.0, 1.0 + 1e-12], 7),
    ],
)
def test_values_have_enough_digits_to_tell_the_best_two_apart(values, digits):
    assert value_digits(values) == digits


def test_the_best_trial_is_complete_and_never_a_pruned_one(history_of, make_trial):
    trials = [
        make_trial(0, config(1), value=0.5),
        make_trial(1, config(2), State.PRUNED, value=0.1),
    ]
    shown = build_facts(history_of(trials))
    assert shown.best is not None
    assert shown.best.number == 0
    assert shown.best.quality == 9
    assert shown.trials[-1].number == 0


def test_the_limit_keeps_the_best_a_spread_and_the_latest_failures(with_values, make_trial):
    good = with_values([float(n) for n in range(40)])
    bad = [make_trial(n, config(1 + n % 8), State.FAILED) for n in range(40, 60)]
    kept = select_trials(rank_trials([*good, *bad], "minimize"), 12)
    assert len(kept) == 12
    assert [t.number for t in kept[:3]] == [57, 58, 59]
    assert [t.number for t in kept[-5:]] == [4, 3, 2, 1, 0]
    assert kept[3].number == 39, "the spread starts at the worst"


@pytest.mark.parametrize("limit", range(14))
@pytest.mark.parametrize(("good", "bad"), [(0, 20), (20, 0), (3, 10), (10, 3), (6, 6)])
def test_the_limit_is_exact_and_the_best_is_always_kept(with_values, make_trial, limit, good, bad):
    trials = with_values([float(n) for n in range(good)])
    trials += [make_trial(good + n, config(1 + n % 8), State.FAILED) for n in range(bad)]
    finished = rank_trials(trials, "minimize")
    kept = select_trials(finished, limit)
    assert len(kept) == min(limit, len(trials))
    assert kept == [trial for trial in finished if trial in kept], "the order is kept"
    if good and limit > 1:
        assert kept[-1].number == 0


def test_remaining_counts_finished_and_waiting_trials(history_of, make_trial):
    trials = [
        make_trial(0, config(1), value=0.5),
        make_trial(1, config(2), State.FAILED),
        make_trial(2, config(3), State.INFEASIBLE),
        make_trial(3, config(4), State.RUNNING),
    ]
    assert build_facts(history_of(trials, budget=Budget(trials=10))).remaining == 7
    assert build_facts(history_of(trials, budget=Budget(trials=None, minutes=5))).remaining is None
    assert build_facts(history_of(trials, budget=Budget(trials=1))).remaining == 0


def test_parameters_are_spelled_like_their_values(make_task):
    space = Space(
        [
            Float("rate", 1e-4, 1.0, log=True, default=0.1, help="step\nsize"),
            Float("drop", 0.0, 0.5, step=0.05, when={"kind": ("a", "b")}),
            Int("depth", 3, 9),
            Ordinal("batch", (32, 64)),
            Categorical("kind", ("a", "b", "c")),
            Int("rows", 0, 10**8, step=12_345_678),
        ]
    )
    shown = {
        fact.name: fact
        for fact in build_facts(History(make_task(space=space), (), 0, 0)).parameters
    }
    assert (shown["rate"].low, shown["rate"].high, shown["rate"].default) == ("1e-4", "1e0", "1e-1")
    assert shown["rate"].log
    assert shown["rate"].help == "step size"
    assert (shown["drop"].step, shown["rows"].step) == ("0.05", "12345678")
    assert shown["drop"].when == 'kind is "a" or "b"'
    assert shown["depth"].kind == "int"
    assert shown["batch"].values == ("32", "64")
    assert shown["kind"].values == ('"a"', '"b"', '"c"')
    assert shown["kind"].default == ""


def test_facts_depend_on_the_history_alone(history_of, with_values):
    history = history_of(with_values([0.3, 0.2, 0.5]))
    assert build_facts(history) == build_facts(replace(history))
    assert build_facts(history, limit=2).shown == 2
    assert build_facts(history, limit=2).finished == 3


SEVERAL = {
    "objectives": (Objective("loss", "minimize"), Objective("size", "minimize")),
    "constraints": (Constraint("latency_ms", max=200.0),),
}


def test_other_objectives_and_violated_constraints_are_told_with_each_trial(history_of, make_trial):
    trials = [
        make_trial(0, config(1), values=(0.5, 12.0), violations=(-10.0,)),
        make_trial(1, config(2), values=(0.1, 9.0), violations=(30.0,)),
        make_trial(2, config(3), values=(0.4, 14.0), violations=(0.0,)),
        make_trial(3, config(4), State.FAILED),
    ]
    shown = build_facts(history_of(trials, **SEVERAL))
    assert (shown.metric, shown.direction) == ("loss", "minimize")
    assert shown.other_objectives == ("minimize size",)
    assert shown.constraints == ("latency_ms <= 200",)
    assert [fact.number for fact in shown.trials] == [3, 1, 0, 2], (
        "an infeasible one is no good one"
    )
    assert [fact.quality for fact in shown.trials] == [None, 0, 5, 9]
    assert [fact.value for fact in shown.trials] == ["", "0.1", "0.5", "0.4"]
    assert [fact.other_results for fact in shown.trials] == [
        "", "size 9, violates latency_ms <= 200 by 30", "size 12", "size 14",
    ]  # fmt: skip
    assert shown.best is not None
    assert shown.best.number == 2


def test_the_least_infeasible_trial_is_best_where_none_is_feasible(history_of, make_trial):
    trials = [
        make_trial(0, config(1), values=(0.1, 1.0), violations=(30.0,)),
        make_trial(1, config(2), values=(0.5, 1.0), violations=(1.0,)),
    ]
    shown = build_facts(history_of(trials, **SEVERAL))
    assert shown.best is not None
    assert shown.best.number == 1
