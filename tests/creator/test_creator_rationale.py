from __future__ import annotations

import dataclasses

import pytest
from scipy.stats import spearmanr

from localhpo.creator import rationale
from localhpo.creator.protocol import History
from localhpo.objective import Constraint, Objective
from localhpo.space import Categorical, Float, Int, Space
from localhpo.trial import Cause, Failure, State

SPACE = Space(
    [
        Float("rate", 1e-4, 1.0, log=True),
        Int("depth", 1, 9),
        Categorical("booster", ("tree", "dart")),
        Float("drop", 0.0, 0.5, when={"booster": ("dart",)}),
    ]
)


def config(rate=1e-2, depth=4, booster="tree", **more):
    return {"rate": rate, "depth": depth, "booster": booster, **more}


@pytest.fixture
def history_of(make_task):
    def make(trials, direction="maximize", **changes):
        task = make_task(space=SPACE, objectives=(Objective("val_f1", direction),), **changes)
        return History(task, tuple(trials), seed=0, next_number=len(trials))

    return make


def test_changes_against_the_best_trial_are_listed_largest_first(history_of, make_trial):
    trials = [make_trial(0, config(), value=0.5), make_trial(1, config(rate=3e-2), value=0.971)]
    reason, evidence = rationale.compute_rationale(history_of(trials), config(rate=1e-2, depth=8))
    assert reason == "against trial 1 (val_f1 0.971): depth 4 -> 8, rate 3e-2 -> 1e-2"
    assert evidence == (1,)


def test_a_parameter_that_becomes_active_or_inactive_is_named(history_of, make_trial):
    tree, dart = config(), config(booster="dart", drop=0.1)
    reason, _ = rationale.compute_rationale(history_of([make_trial(0, tree, value=0.5)]), dart)
    assert 'booster "tree" -> "dart", drop 0.1 (not used there)' in reason
    reason, _ = rationale.compute_rationale(history_of([make_trial(0, dart, value=0.5)]), tree)
    assert "drop no longer used" in reason


@pytest.mark.parametrize(
    ("direction", "sign", "phrase"),
    [
        ("maximize", -1, "in 6 trials, lower rate went with higher val_f1 (Spearman -1.00)"),
        ("minimize", 1, "in 6 trials, lower rate went with lower val_f1 (Spearman +1.00)"),
        ("minimize", -1, "in 6 trials, higher rate went with lower val_f1 (Spearman -1.00)"),
    ],
)
def test_a_change_against_a_trend_is_said_to_go_the_other_way(
    history_of, make_trial, direction, sign, phrase
):
    trials = [
        make_trial(number, config(rate=rate), value=sign * float(number))
        for number, rate in enumerate([1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1])
    ]
    history = history_of(trials, direction)
    toward = 2e-4 if "lower rate" in phrase else 5e-2
    reason, evidence = rationale.compute_rationale(history, config(rate=toward))
    assert phrase in reason
    assert "this goes the other way" in reason, "it moves away from the edge that was best"
    assert len(evidence) == 5
    assert set(evidence) <= {trial.number for trial in trials}


def test_a_change_along_a_trend_is_described(history_of, make_trial):
    rates, values = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1], [0.4, 0.5, 0.3, 0.2, 0.1]
    trials = [
        make_trial(n, config(rate=r), value=s)
        for n, (r, s) in enumerate(zip(rates, values, strict=True))
    ]
    reason, evidence = rationale.compute_rationale(history_of(trials), config(rate=1e-4))
    assert reason == (
        "against trial 1 (val_f1 0.5): rate 3e-3 -> 1e-4; "
        "in 5 trials, lower rate went with higher val_f1 (Spearman -0.90)"
    )
    assert evidence == (1, 0, 2, 3, 4)


def test_a_weak_trend_is_not_mentioned(history_of, make_trial):
    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1e0]
    values = [0.2, 0.5, 0.1, 0.4, 0.3]
    trials = [
        make_trial(n, config(rate=r), value=s)
        for n, (r, s) in enumerate(zip(rates, values, strict=True))
    ]
    reason, evidence = rationale.compute_rationale(history_of(trials), config(rate=2e-3))
    assert "Spearman" not in reason
    assert evidence == (1,)


def test_without_a_value_the_last_failure_is_the_evidence(history_of, make_trial):
    assert rationale.compute_rationale(history_of([]), config()) == (
        "proposed before any trial had a value",
        (),
    )
    failure = Failure(Cause.TIMEOUT, "took too long")
    trials = [make_trial(0, config(), State.FAILED, failure=failure)]
    assert rationale.compute_rationale(history_of(trials), config(depth=3)) == (
        "proposed before any trial had a value; trial 0 failed (timeout)",
        (0,),
    )


@pytest.mark.filterwarnings("ignore:An input array is constant")
@pytest.mark.parametrize(
    ("a", "b"),
    [([1, 2, 3, 4], [4, 1, 2, 3]), ([1, 1, 2, 5], [0.1, 0.2, 0.2, 9]), ([3, 2, 1], [1, 2, 3])],
)
def test_spearman_is_scipys(a, b):
    assert rationale.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)


def test_spearman_of_a_constant_is_zero():
    assert rationale.spearman([1, 1, 1], [1, 2, 3]) == 0.0


def test_the_first_objective_and_feasible_trials_count(history_of, make_trial):
    trials = [
        make_trial(0, config(), values=(0.5, 3.0), violations=(-1.0,)),
        make_trial(1, config(rate=3e-2), values=(0.9, 1.0), violations=(4.0,)),
        make_trial(2, config(rate=5e-2), values=(0.7, 2.0), violations=(0.0,)),
    ]
    history = history_of(trials, constraints=(Constraint("size", max=9.0),))
    objectives = (*history.task.objectives, Objective("cost", "minimize"))
    several = dataclasses.replace(
        history, task=dataclasses.replace(history.task, objectives=objectives)
    )
    reason, evidence = rationale.compute_rationale(several, config(depth=8))
    assert reason.startswith("against trial 2 (val_f1 0.7)")
    assert evidence == (2,)
