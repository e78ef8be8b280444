"""Objectives, constraints, the Pareto set, and origins of proposals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localhpo.errors import InputError
from localhpo.objective import (
    Constraint,
    Objective,
    best_trial,
    best_trials,
    dominates,
    evaluate,
)
from localhpo.trial import Measurement, Origin, Proposal, State, Trial, Usage

LOSS = Objective("loss", "minimize")
F1 = Objective("f1", "maximize")
FAST = Constraint("latency_ms", max=200.0)

numbers = st.floats(allow_nan=False, allow_infinity=False)


def trial(number: int, *values: float, violations: Sequence[float] = ()) -> Trial:
    return Trial(
        number,
        State.COMPLETE,
        Proposal({"x": number}, Origin(engine="random")),
        values=values,
        violations=tuple(violations),
    )


def report(**metrics: float) -> list[Measurement]:
    return [Measurement(0, name, value, 0.0) for name, value in metrics.items()]


@pytest.mark.parametrize(
    ("constraint", "value", "violation"),
    [
        (Constraint("a", max=2.0), 3.5, 1.5),
        (Constraint("a", max=2.0), 2.0, 0.0),
        (Constraint("a", min=2.0), 0.5, 1.5),
        (Constraint("a", min=-1.0, max=1.0), 0.0, -1.0),
        (Constraint("a", min=-1.0, max=1.0), -3.0, 2.0),
        (Constraint("a", min=-1.0, max=1.0), 3.0, 2.0),
    ],
)
def test_a_violation_is_how_far_the_bound_is_exceeded(
    constraint: Constraint, value: float, violation: float
) -> None:
    assert constraint.violation(value) == violation


def test_values_are_the_last_reported_ones_in_the_order_of_the_objectives() -> None:
    measurements = [
        *report(loss=3.0, f1=0.5, latency_ms=180.0),
        *report(loss=2.0, latency_ms=250.0),
    ]
    found = evaluate([F1, LOSS], [FAST], measurements, Usage())
    assert (found.values, found.violations) == ((0.5, 2.0), (50.0,))
    assert (found.missing, found.not_finite) == ((), None)


def test_the_rule_best_holds_for_objectives_and_not_for_constraints() -> None:
    measurements = [*report(loss=1.0, latency_ms=100.0), *report(loss=2.0, latency_ms=250.0)]
    found = evaluate([LOSS], [FAST], measurements, Usage(), "best")
    assert (found.values, found.violations) == ((1.0,), (50.0,))


def test_what_localhpo_measures_can_be_an_objective_or_a_constraint() -> None:
    usage = Usage(wall_s=12.0, peak_memory_mb=900.0)
    small = Constraint("peak_memory_mb", max=800.0)
    found = evaluate([LOSS, Objective("wall_s")], [small], report(loss=0.5), usage)
    assert (found.values, found.violations) == ((0.5, 12.0), (100.0,))


def test_reported_metric_overrides_measured_one() -> None:
    found = evaluate([Objective("wall_s")], [], report(wall_s=3.0), Usage(wall_s=12.0))
    assert found.values == (3.0,)


def test_missing_metrics_are_named() -> None:
    found = evaluate([LOSS, F1], [FAST, Constraint("energy_j", max=1.0)], report(f1=0.5), Usage())
    assert found.values == found.violations == ()
    assert found.missing == ("loss", "latency_ms", "energy_j")


def test_a_last_value_that_is_not_finite_is_named_and_the_one_before_it_counts() -> None:
    found = evaluate([LOSS], [], [*report(loss=0.5), *report(loss=math.nan)], Usage())
    assert found.values == (0.5,)
    assert found.not_finite is not None
    assert found.not_finite.name == "loss"


def test_one_objective_has_one_best_trial_the_earliest_of_equal_ones() -> None:
    trials = [trial(0, 2.0), trial(1, 1.0), trial(2, 1.0)]
    assert best_trials(trials, [LOSS]) == (trials[1],)
    assert best_trial(trials, [Objective("loss", "maximize")]) == trials[0]
    assert best_trial([], [LOSS]) is None


def test_a_trial_that_breaks_a_constraint_is_not_the_best() -> None:
    trials = [trial(0, 2.0, violations=[-5.0]), trial(1, 1.0, violations=[5.0])]
    assert best_trial(trials, [LOSS]) == trials[0]


def test_where_no_trial_is_feasible_the_least_infeasible_are_the_best() -> None:
    trials = [
        trial(0, 2.0, violations=[3.0, -9.0]),
        trial(1, 1.0, violations=[5.0, 1.0]),
        trial(2, 3.0, violations=[1.0, 2.0]),
    ]
    assert best_trials(trials, [LOSS]) == (trials[0],)
    assert trials[0].feasible is False


def test_several_objectives_have_no_single_best_trial() -> None:
    with pytest.raises(ValueError, match="2 objectives"):
        best_trial([trial(0, 1.0, 2.0)], [LOSS, F1])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(-1, 1)), max_size=12))
def test_the_pareto_set_is_what_nothing_feasible_dominates(
    rows: list[tuple[int, int, int]],
) -> None:
    objectives = [LOSS, F1]
    trials = [trial(n, a, b, violations=[v]) for n, (a, b, v) in enumerate(rows)]
    front = best_trials(trials, objectives)
    feasible = [one for one in trials if one.feasible]
    considered = feasible or [one for one in trials if one.violations == (1,)]
    assert bool(front) == bool(trials)
    for one in front:
        assert one in considered
        assert not any(dominates(other.values, one.values, objectives) for other in considered)
    for one in considered:
        covered = (
            member.values == one.values or dominates(member.values, one.values, objectives)
            for member in front
        )
        assert one in front or any(covered)


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=3))
def test_domination_is_irreflexive_and_antisymmetric(points: list[tuple[float, float]]) -> None:
    for a, b in itertools.product(points, repeat=2):
        assert not (dominates(a, b, [LOSS, F1]) and dominates(b, a, [LOSS, F1]))
        assert not dominates(a, a, [LOSS, F1])


def test_the_value_of_a_trial_is_that_of_the_one_objective() -> None:
    assert trial(0, 0.5).value == 0.5
    assert trial(0).value is None
    with pytest.raises(InputError, match="has 2 values"):
        _ = trial(0, 0.5, 1.0).value


def test_feasibility_is_unknown_without_values_or_measured_constraints() -> None:
    assert trial(0).feasible is None
    assert trial(0, 1.0).feasible is True
    assert trial(0, 1.0, violations=[0.0]).feasible is True
    assert trial(0, 1.0, violations=[math.nan]).feasible is None


ORIGINS = [
    ("llm", Origin("llm")),
    ("meta", Origin("meta")),
    ("transfer", Origin("transfer")),
    ("bo", Origin(engine="bo")),
    ("bo+llm", Origin("llm", "bo")),
    ("bo+meta", Origin("meta", "bo")),
    ("bo+transfer", Origin("transfer", "bo")),
    ("bo+llm+transfer", Origin("llm+transfer", "bo")),
    ("tpe", Origin(engine="tpe")),
    ("random", Origin(engine="random")),
    ("default", Origin("default")),
    ("user", Origin("user")),
    ("external", Origin("external")),
    ("my_plugin", Origin(engine="my_plugin")),
]


@pytest.mark.parametrize(("text", "origin"), ORIGINS)
def test_an_origin_is_spelled_and_read_alike(text: str, origin: Origin) -> None:
    assert str(origin) == text
    assert Origin.parse(text) == origin


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model", "llm"),
        ("engine:tpe", "tpe"),
        ("engine:bo", "bo"),
        ("model+bo", "bo+llm"),
        ("experience", "transfer"),
        ("experience+bo", "bo+transfer"),
        ("model+experience+bo", "bo+llm+transfer"),
        ("added", "external"),
        ("default", "default"),
        ("user", "user"),
    ],
)
def test_origins_of_version_0_1_0_are_read(old: str, new: str) -> None:
    assert str(Origin.parse(old)) == new


def test_origin_uses_its_sources() -> None:
    origin = Origin.parse("bo+llm+transfer")
    assert origin.uses("llm")
    assert origin.uses("transfer")
    assert not origin.uses("meta")
    assert not Origin(engine="bo").uses("bo")


def test_an_external_trial_does_not_count_against_the_budget(
    make_trial: Callable[..., Trial],
) -> None:
    from localhpo.trial import count_budgeted

    trials = [
        make_trial(0, {}, origin="external"),
        make_trial(1, {}),
        make_trial(2, {}, origin="user"),
    ]
    assert count_budgeted(trials) == 2
