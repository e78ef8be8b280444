"""Which past studies count, and which of their configurations are retrieved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import spaces

from localhpo.objective import Constraint, Objective
from localhpo.space import Float, Int, Space
from localhpo.task import Task
from localhpo.transfer import PastStudy, retrieve_configs, split_usable, to_single_objective
from localhpo.trial import Origin, Proposal, State, Trial

MakeTask = Callable[..., Task]
MakeTrial = Callable[..., Trial]
MakePast = Callable[..., PastStudy]

LOSS, ACCURACY = Objective("loss", "minimize"), Objective("val_acc", "maximize")


@pytest.fixture
def make_past(make_task: MakeTask, make_trial: MakeTrial) -> MakePast:
    def make(values: Sequence[float | None], study: str = "small/old", **changes: Any) -> PastStudy:
        """A study with one trial per value, depths 1, 2, 3, ...; None: it failed."""
        trials = tuple(
            make_trial(
                number,
                {"learning_rate": 1e-2, "depth": 1 + number % 8},
                State.FAILED if value is None else State.COMPLETE,
                value,
            )
            for number, value in enumerate(values)
        )
        return PastStudy(study, changes.pop("task", make_task()), trials, **changes)

    return make


def with_trials(past: PastStudy, *given: dict[str, Any]) -> PastStudy:
    """Return the study with fields of its trials replaced, by number."""
    trials = tuple(
        dataclasses.replace(trial, **changes)
        for trial, changes in zip(past.trials, given, strict=True)
    )
    return dataclasses.replace(past, trials=trials)


@pytest.mark.parametrize(
    ("values", "private", "reason"),
    [
        ([1.0, 2.0, 3.0], False, None),
        ([1.0, 2.0, 3.0], True, "it is private"),
        ([1.0, 1.0, 1.0], False, "loss is 1 in all of its trials"),
        ([None, None], False, "none of its trials has a value, 2 failed"),
        ([1.0, 2.0, None], False, "2 of its trials have a value, fewer than 3"),
        ([], False, "0 of its trials have a value, fewer than 3"),
    ],
)
def test_unusable_and_private_studies_do_not_count(
    make_past: MakePast, values: list[float | None], private: bool, reason: str | None
) -> None:
    past = make_past(values, private=private)
    usable, unusable = split_usable([past])
    assert (usable, unusable) == (([past], []) if reason is None else ([], [(past, reason)]))
    assert bool(retrieve_configs(past.task, [past])) is (reason is None)


def test_the_best_trials_come_first_and_failed_ones_never(make_past: MakePast) -> None:
    past = make_past([None, 5.0, 1.0, 4.0, 3.0, 2.0, *[9.0] * 10])
    retrieved = retrieve_configs(past.task, [past])
    assert [one.trial for one in retrieved] == [2, 5, 4]
    assert retrieved[0].weight == pytest.approx(1.0)
    assert retrieved[0].value == 1.0


def test_a_study_that_maximizes_is_ranked_by_its_largest_values(make_past: MakePast) -> None:
    past = make_past([1.0, 2.0, 3.0])
    task = dataclasses.replace(past.task, objectives=(Objective("loss", "maximize"),))
    (one,) = retrieve_configs(task, [dataclasses.replace(past, task=task)])
    assert one.trial == 2


def test_equal_configurations_are_one_with_the_largest_weight(
    make_past: MakePast, make_task: MakeTask
) -> None:
    similar = make_past([3.0, 2.0, 1.0], "small/near")
    other = make_task(objectives=(Objective("accuracy", "minimize"),))
    dissimilar = make_past([3.0, 2.0, 1.0], "other/far", task=other)
    (one,) = retrieve_configs(make_task(), [dissimilar, similar])
    assert one.study == "small/near"
    assert one.similarity == pytest.approx(1.0)


def test_nothing_is_retrieved_for_a_dissimilar_task(
    make_past: MakePast, make_task: MakeTask
) -> None:
    task = make_task(space=Space([Float("alpha", 0.0, 1.0), Int("neighbors", 1, 50)]))
    assert retrieve_configs(task, [make_past([1.0, 2.0, 3.0])]) == ()


def test_a_study_with_several_objectives_is_read_by_the_same_one(
    make_past: MakePast, make_task: MakeTask
) -> None:
    both = make_task(objectives=(LOSS, ACCURACY))
    past = with_trials(
        make_past([0.0, 0.0, 0.0], task=both),
        {"values": (1.0, 0.1)}, {"values": (2.0, 0.9)}, {"values": (3.0, 0.5)},
    )  # fmt: skip
    (by_loss,) = retrieve_configs(make_task(objectives=(LOSS,)), [past])
    assert (by_loss.trial, by_loss.metric, by_loss.value) == (0, "loss", 1.0)
    wanted = make_task(objectives=(Objective("accuracy", "maximize"), LOSS))
    (by_accuracy,) = retrieve_configs(wanted, [past])
    assert (by_accuracy.trial, by_accuracy.metric, by_accuracy.value) == (1, "val_acc", 0.9)
    assert by_accuracy.similarity == pytest.approx(1.0)
    other = make_task(objectives=(Objective("f1", "maximize"),))
    (by_first,) = retrieve_configs(other, [past])
    assert by_first.metric == "loss"
    assert by_first.similarity < 1.0


def test_trials_that_break_a_constraint_are_not_retrieved(
    make_past: MakePast, make_task: MakeTask
) -> None:
    task = make_task(constraints=(Constraint("size", max=10.0),))
    past = make_past([1.0, 2.0, 3.0, 4.0, 5.0], task=task)
    past = with_trials(
        past,
        {"violations": (5.0,)}, {"violations": (math.nan,)}, {"violations": (-1.0,)},
        {"violations": (0.0,)}, {"violations": (-9.0,)},
    )  # fmt: skip
    (one,) = retrieve_configs(make_task(), [past])
    assert one.trial == 2
    broken = with_trials(past, *[{"violations": (1.0,)}] * 5)
    reason = "none of its trials is feasible: 5 break a constraint"
    assert split_usable([broken]) == ([], [(broken, reason)])
    assert retrieve_configs(make_task(), [broken]) == ()


def test_a_study_with_one_objective_is_returned_as_it_is(make_past: MakePast) -> None:
    past = make_past([1.0, 2.0, 3.0])
    assert to_single_objective(past, ACCURACY) is past


@given(st.data(), spaces())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_retrieved_configurations_are_unique_canonical_and_sorted(
    data: st.DataObject, space: Space
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    trials = tuple(
        Trial(
            number,
            State.COMPLETE,
            Proposal(space.sample(rng), origin=Origin.parse("random")),
            values=(float(rng.normal()),),
        )
        for number in range(20)
    )
    task = Task("t", (), (LOSS,), space)
    studies = [PastStudy("t/a", task, trials), PastStudy("t/b", task, trials)]
    retrieved = retrieve_configs(task, studies, limit=3)
    assert 1 <= len(retrieved) <= 3
    for one in retrieved:
        space.validate(one.config)
        assert 0.0 < one.weight <= 1.0
    assert len({space.key(one.config) for one in retrieved}) == len(retrieved)
    assert [m.weight for m in retrieved] == sorted((m.weight for m in retrieved), reverse=True)
