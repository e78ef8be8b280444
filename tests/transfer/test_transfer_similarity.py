"""How similar tasks are: symmetric, bounded, 1 for a task and itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import spaces

from localhpo.objective import Objective
from localhpo.space import Categorical, Float, Int, Ordinal, Space
from localhpo.task import Task
from localhpo.transfer import plain_name, similarity
from localhpo.transfer.similarity import data_size, same_metric
from localhpo.trial import Value

MakeTask = Callable[..., Task]


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """A task whose hyperparameters have names that others have too."""
    drawn = draw(spaces(max_size=3, conditional=False))
    return Task(
        name=draw(st.sampled_from(["forest-1", "forest-2", "net"])),
        command=(),
        objectives=(
            Objective(
                draw(st.sampled_from(["auc", "AUC", "loss"])),
                draw(st.sampled_from(["minimize", "maximize"])),
            ),
        ),
        space=Space([replace(p, name=n) for p, n in zip(drawn, "abc", strict=False)]),
        background=draw(st.sampled_from(["", "a forest", "3,276 rows", "a net on 50000 images"])),
        fixed=draw(
            st.dictionaries(
                st.sampled_from("abcde"[min(3, len(drawn)) :]), st.sampled_from([1, 2.5, "x", True])
            )
        ),
        folder=Path(),
    )


@given(tasks(), tasks())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_similarity_is_symmetric_and_bounded(a: Task, b: Task) -> None:
    forward, backward = similarity(a, b), similarity(b, a)
    assert forward.value == pytest.approx(backward.value, abs=1e-12)
    assert 0.0 <= forward.value <= 1.0
    assert forward.reasons


@given(tasks())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_task_is_fully_similar_to_itself(task: Task) -> None:
    assert similarity(task, task).value == pytest.approx(1.0)


def test_other_ranges_and_other_names_are_less_similar(make_task: MakeTask) -> None:
    def value(space: Space) -> float:
        return similarity(make_task(), make_task(space=space)).value

    rate = Float("learning_rate", low=1e-4, high=1e-1, log=True)
    wide = value(Space([rate, Int("depth", low=1, high=40)]))
    unknown = value(Space([rate, Int("clusters", low=1, high=8)]))
    assert 1.0 > wide > unknown > value(Space([Float("alpha", 0, 1), Int("k", 1, 9)])) == 0.0


def test_names_are_compared_without_prefix_case_and_punctuation(make_task: MakeTask) -> None:
    space = Space([Float("clf__Learning-Rate", 1e-4, 1e-1, log=True), Int("model.depth", 1, 8)])
    assert similarity(make_task(), make_task(space=space)).value == pytest.approx(1.0)
    assert plain_name("clf__max_depth") == plain_name("model.MAX-depth") == "maxdepth"


def test_an_ambiguous_plain_name_matches_nothing(make_task: MakeTask) -> None:
    twice = make_task(space=Space([Int("a.depth", 1, 8), Int("b.depth", 1, 8)]))
    assert similarity(make_task(space=Space([Int("depth", 1, 8)])), twice).value == 0.0


def test_other_fixed_values_are_less_similar(make_task: MakeTask) -> None:
    def value(a: dict[str, Value], b: dict[str, Value]) -> float:
        return similarity(make_task(fixed=a), make_task(fixed=b)).value

    fixed: dict[str, Value] = {"trees": 300, "method": "hist"}
    assert value(fixed, {"clf__Trees": 300.0, "method": "HIST"}) == pytest.approx(1.0)
    one, both = value(fixed, {**fixed, "trees": 50}), value(fixed, {"trees": 50, "method": "exact"})
    assert 1.0 > one > both > 0.5
    assert value(fixed, {"subsample": 0.5}) == value(fixed, {}) == pytest.approx(1.0)
    found = similarity(make_task(fixed=fixed), make_task(fixed={"method": "exact"}))
    assert "fixed at different values: method" in found.reasons


def test_tuned_and_fixed_parameters_match_where_the_range_contains_the_value(
    make_task: MakeTask,
) -> None:
    narrow = Space([Float("learning_rate", 1e-4, 1e-1, log=True)])

    def value(**fixed: Value) -> float:
        return similarity(make_task(), make_task(space=narrow, fixed=fixed)).value

    assert 1.0 > value(depth=3) > value() > value(depth=30) > 0.4
    assert value(depth="3") == value(depth=30)  # a text is no number
    reason = similarity(make_task(), make_task(space=narrow, fixed={"depth": 3})).reasons[0]
    assert "1 of 2 hyperparameters in common" in reason
    assert "1 tuned in one task and fixed in the other" in reason


def test_metric_and_direction_count(make_task: MakeTask) -> None:
    task = make_task(objectives=(Objective("auc", "maximize"),))
    other = similarity(task, replace(task, objectives=(Objective("log_loss", "minimize"),)))
    assert 0.0 < other.value < 1.0
    assert "different metrics (auc, log_loss)" in other.reasons
    opposite = similarity(task, replace(task, objectives=(Objective("auc", "minimize"),)))
    assert opposite.value == 0.0
    assert "auc is minimized in one task and maximized in the other" in opposite.reasons


def test_words_and_size_count_a_little(make_task: MakeTask) -> None:
    task = make_task(background="A forest on 3,276 rows.")
    similar = similarity(task, replace(task, background="A forest on 4,000 rows."))
    dissimilar = similarity(task, replace(task, background="A network on 50,000,000 rows."))
    assert 1.0 > similar.value > dissimilar.value > 0.5
    assert "data of 3,276 and 4,000 rows" in similar.reasons


@pytest.mark.parametrize(
    ("background", "size"),
    [
        ("on 3,276 rows, 9 features", 3276),
        ("60000 images", 60000),
        ("9 features", None),
        ("", None),
    ],
)
def test_data_size_is_read_from_the_description(background: str, size: int | None) -> None:
    assert data_size(background) == size


def test_choices_are_compared_by_normalized_text(make_task: MakeTask) -> None:
    def over(*values: object) -> Task:
        return make_task(space=Space([Categorical("flag", values), Ordinal("b", (1, 2))]))

    assert similarity(over("TRUE", "FALSE"), over(False, True)).value == pytest.approx(1.0)
    assert similarity(over("a", "b"), over("c", "d")).value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("val_accuracy", "acc", True),
        ("test/f1", "valid_f1_score", True),
        ("val_cross_entropy", "logloss", True),
        ("valence", "alence", False),
        ("val_auc", "val_f1", False),
        ("test", "test", True),
    ],
)
def test_a_metric_is_the_same_on_every_split(one, other, same):
    assert same_metric(one, other) is same
