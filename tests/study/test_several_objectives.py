"""Several objectives and constraints: `tune`, ask and tell, external trials, resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import localhpo
from localhpo.errors import InputError, NoGoodTrialError, StudyChangedError
from localhpo.objective import Constraint, Objective
from localhpo.space import Space
from localhpo.study import Study
from localhpo.task import CreatorSettings, Task
from localhpo.trial import Cause, Measurement, State

GOALS = {
    "objectives": (Objective("loss"), Objective("size")),
    "constraints": (Constraint("latency_ms", max=200.0),),
    "creator": CreatorSettings(name="random"),
}
MakeTask = Callable[..., Task]


def metrics(x: float, y: float) -> dict[str, float]:
    return {"loss": (x - 2) ** 2 + y**2, "size": abs(x), "latency_ms": 100 * abs(y)}


SPACE = {
    "x": {"type": "float", "low": -5.0, "high": 5.0},
    "y": {"type": "float", "low": -5.0, "high": 5.0},
}


@pytest.mark.parametrize("creator", ["tpe", "nsga2"])
def test_a_function_with_several_objectives_is_tuned_and_its_study_goes_on(
    creator: str, home: Path
) -> None:
    def tune(trials: int) -> Study:
        return localhpo.tune(
            metrics,
            SPACE,
            objectives={"loss": "minimize", "size": "minimize"},
            constraints={"latency_ms": {"max": 200.0}},
            trials=trials,
            creator=creator,
            home=home,
        )

    before = tune(2).trials
    study = tune(4)
    assert study.trials[:2] == before
    for trial in study.trials:
        expected = metrics(**trial.config)  # type: ignore[arg-type]
        assert trial.values == (expected["loss"], expected["size"])
        assert trial.violations == pytest.approx((expected["latency_ms"] - 200.0,))
        assert trial.feasible is (trial.violations[0] <= 0.0)
    assert study.best_trials
    assert all(trial in study.trials for trial in study.best_trials)
    with pytest.raises(InputError, match="2 objectives, and so no single best trial"):
        _ = study.best_trial


def test_a_function_may_return_its_objectives_in_order(home: Path) -> None:
    study = localhpo.tune(
        lambda x, y: (x, 10 + y),
        SPACE,
        objectives={"loss": "minimize", "size": "minimize"},
        trials=2,
        creator="random",
        home=home,
    )
    assert [trial.values for trial in study.trials] == [
        (trial.config["x"], 10 + trial.config["y"])  # type: ignore[operator]
        for trial in study.trials
    ]


def test_a_constraint_decides_which_trial_is_best(make_task: MakeTask, home: Path) -> None:
    limit = (Constraint("latency_ms", max=100.0),)
    goals = {**GOALS, "objectives": (Objective("loss"),), "constraints": limit}
    study = Study.open(make_task(**goals, space=Space.from_table(SPACE, "space")), home=home)
    for _ in range(8):
        trial = study.ask()
        measured = metrics(**trial.config)  # type: ignore[arg-type]
        study.tell(trial, {name: measured[name] for name in ("loss", "latency_ms")})
    feasible = [trial for trial in study.trials if trial.feasible]
    assert len(feasible) not in (0, 8)
    assert study.best_trial == min(feasible, key=lambda trial: trial.values)


@pytest.mark.parametrize(
    ("told", "values", "violations"),
    [
        ({"loss": 1.0, "size": 2.0, "latency_ms": 150.0}, (1.0, 2.0), (-50.0,)),
        ({"size": 2, "latency_ms": 250, "loss": 1}, (1.0, 2.0), (50.0,)),
    ],
)
def test_values_are_told_by_name(
    told: Any, values: Any, violations: Any, make_task: MakeTask, home: Path
) -> None:
    study = Study.open(make_task(**GOALS), home=home)
    ended = study.tell(study.ask(), told)
    assert (ended.values, ended.violations) == (values, violations)
    assert Study.open(make_task(**GOALS), home=home).trials == (ended,)


def test_values_are_told_as_an_array(make_task: MakeTask, home: Path) -> None:
    study = Study.open(make_task(**{**GOALS, "constraints": ()}), home=home)
    trial = study.ask()
    with pytest.raises(InputError, match="in the order loss, size; got array"):
        study.tell(trial, np.array([1.0, 2.0, 3.0]))
    assert study.tell(trial, np.array([1.0, 2.0])).values == (1.0, 2.0)


def test_values_are_told_in_order_and_constraints_by_measurements(
    make_task: MakeTask, home: Path
) -> None:
    study = Study.open(make_task(**GOALS), home=home)
    latency = [Measurement(step, "latency_ms", 190.0 + step, 1.0) for step in range(3)]
    ended = study.tell(study.ask(), [1.0, 2.0], measurements=latency)
    assert (ended.values, ended.violations) == ((1.0, 2.0), (-8.0,))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (1.0, "each objective needs a value, in the order loss, size; got 1"),
        ([1.0], "each objective needs a value, in the order loss, size"),
        ([1.0, 2.0], "latency_ms was not given"),
        ({"loss": 1.0, "latency_ms": 1.0}, "size was not given"),
        ({"loss": 1.0, "size": 1.0, "latncy_ms": 1.0}, "got 'latncy_ms'"),
        (
            {"loss": 1.0, "size": "big", "latency_ms": 1.0},
            'the value of size must be a number; got "?big',
        ),
        (None, "a value or with a failure"),
    ],
)
def test_what_is_told_wrongly_is_refused_and_the_trial_still_runs(
    told: Any, says: str, make_task: MakeTask, home: Path
) -> None:
    study = Study.open(make_task(**GOALS), home=home)
    trial = study.ask()
    with pytest.raises(InputError, match=says):
        study.tell(trial, told)
    assert study.tell(trial, {"loss": 1.0, "size": 1.0, "latency_ms": 1.0}).state is State.COMPLETE


def test_a_value_that_is_not_finite_is_a_failure(make_task: MakeTask, home: Path) -> None:
    study = Study.open(make_task(**GOALS), home=home)
    ended = study.tell(study.ask(), {"loss": math.nan, "size": 1.0, "latency_ms": 1.0})
    assert (ended.state, ended.values) == (State.FAILED, ())
    assert ended.failure is not None
    assert ended.failure.cause is Cause.NOT_FINITE


def test_external_trials_carry_values_and_count_nothing(make_task: MakeTask, home: Path) -> None:
    study = Study.open(make_task(**GOALS), home=home)
    told = {"loss": 1.0, "size": 2.0, "latency_ms": 500.0}
    trial = study.add_trial({"learning_rate": 0.01, "depth": 3}, told)
    assert (trial.feasible, str(trial.proposal.origin)) == (False, "external")
    assert study.best_trials == (trial,), "no trial is feasible: the least infeasible one"


def test_other_objectives_are_another_study(make_task: MakeTask, home: Path) -> None:
    study = Study.open(make_task(**GOALS), home=home)
    study.tell(study.ask(), {"loss": 1.0, "size": 1.0, "latency_ms": 1.0})
    study.close()
    for changes in (
        {"objectives": GOALS["objectives"][:1]},  # type: ignore[index]
        {"constraints": (Constraint("latency_ms", max=300.0),)},
    ):
        with pytest.raises(StudyChangedError, match=r"objectives was|constraints was"):
            Study.open(make_task(**{**GOALS, **changes}), home=home)


def test_an_objective_that_is_never_reported_fails_the_trial_by_name(home: Path) -> None:
    with pytest.raises(NoGoodTrialError):
        localhpo.tune(
            metrics, SPACE, objectives={"loss": "minimize", "sise": "minimize"},
            trials=2, creator="random", home=home, name="typo",
        )  # fmt: skip
    failure = Study.find("typo", home=home).trials[0].failure
    assert failure is not None
    assert "did not report sise" in failure.message
    assert "did you mean 'size'" in failure.message
