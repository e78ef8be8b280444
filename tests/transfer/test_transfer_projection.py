"""Configurations of one task, projected onto the space of another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from strategies import spaces, spaces_with_configs

from localhpo.objective import Objective
from localhpo.space import Categorical, Float, Int, Ordinal, Space, Value
from localhpo.task import Task
from localhpo.transfer import project_config
from localhpo.transfer.projection import Projection


def task_in(space: Space, **fixed: Value) -> Task:
    return Task("t", (), (Objective("loss", "minimize"),), space, fixed=fixed)


def project(space: Space, source: Space, config: Mapping[str, Value]) -> Projection | None:
    return project_config(task_in(space), task_in(source), config)


def test_numbers_are_clipped_and_new_parameters_take_the_center() -> None:
    source = Space([Float("lr", 1e-5, 1.0, log=True), Int("depth", 1, 20)])
    space = Space([Float("lr", 1e-3, 1e-1, log=True), Int("depth", 1, 20), Int("width", 1, 9)])
    config, transferred, share = project(space, source, {"lr": 0.5, "depth": 7})  # type: ignore[misc]
    assert config == {"lr": 0.1, "depth": 7, "width": 5}
    assert transferred == {"lr": 0.1, "depth": 7}
    assert share == pytest.approx(1 / 3)


def test_a_missing_category_has_no_projection() -> None:
    source = Space([Categorical("optimizer", ("adam", "sgd"))])
    space = Space([Categorical("optimizer", ("sgd", "lion"))])
    assert project(space, source, {"optimizer": "adam"}) is None
    assert project(space, source, {"optimizer": "sgd"}).config == {"optimizer": "sgd"}  # type: ignore[union-attr]


def test_parameters_of_different_kinds_match() -> None:
    source = Space([Int("batch", 1, 512), Float("depth", 1.0, 9.0)])
    space = Space([Ordinal("batch", (32, 64, 128)), Int("depth", 1, 9)])
    projection = project(space, source, {"batch": 100, "depth": 3.4})
    assert projection is not None
    assert projection.config == {"batch": 128, "depth": 3}
    words = Space([Ordinal("size", ("small", "large"))])
    assert project(words, Space([Int("size", 1, 9)]), {"size": 3}) is None


def test_a_value_fixed_there_is_used_where_it_is_tuned_here() -> None:
    rate, trees = Float("lr", 1e-3, 1e-1, log=True), Int("trees", 10, 500)
    task, source = task_in(Space([rate, trees])), task_in(Space([rate]), trees=300)
    projection = project_config(task, source, {"lr": 0.01})
    assert projection is not None
    assert projection.config == {"lr": 0.01, "trees": 300}
    assert projection.share == 1.0
    booster = Categorical("booster", ("tree", "dart"))
    foreign = task_in(Space([rate]), booster="linear")
    assert project_config(task_in(Space([rate, booster])), foreign, {"lr": 0.01}) is None


@pytest.mark.parametrize(
    ("tuned", "there", "here", "kept"),
    [
        (Int("depth", 1, 9), 5, 5, 1.0),
        (Int("depth", 1, 9), 7, 5, 0.75),
        (Int("depth", 1, 9), 9, 50, 1.0),
        (Categorical("depth", ("low", "high")), "low", "low", 1.0),
        (Categorical("depth", ("low", "high")), "low", "high", 0.0),
        (Categorical("depth", ("low", "high")), "low", "deep", 0.0),
    ],
)
def test_share_grows_with_closeness_to_the_fixed_value(
    tuned: Int | Categorical, there: Value, here: Value, kept: float
) -> None:
    rate = Float("lr", 1e-3, 1e-1, log=True)
    task, source = task_in(Space([rate]), depth=here), task_in(Space([rate, tuned]))
    projection = project_config(task, source, {"lr": 0.01, "depth": there})
    assert projection is not None
    assert projection.config == projection.transferred == {"lr": 0.01}
    assert projection.share == pytest.approx((1.0 + kept) / 2)


@st.composite
def neighbors(draw: st.DrawFn) -> tuple[Space, Space, dict[str, Value]]:
    """A space, another one of the same names, and a configuration of that."""
    source, config = draw(spaces_with_configs(max_size=3))
    drawn = draw(spaces(max_size=3, conditional=False))
    named = [dataclasses.replace(p, name=n) for p, n in zip(drawn, source.names, strict=False)]
    return Space(named), source, config


@given(neighbors())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_projection_is_canonical(neighbor: tuple[Space, Space, dict[str, Value]]) -> None:
    space = neighbor[0]
    projection = project(*neighbor)
    if projection is not None:
        space.validate(projection.config)
        assert projection.transferred.items() <= projection.config.items()
        assert 0.0 <= projection.share <= 1.0


@given(spaces_with_configs())
@example((Space([Categorical("c", ("a", "A"))]), {"c": "A"}))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_projection_onto_the_same_space_changes_nothing(
    drawn: tuple[Space, dict[str, Value]],
) -> None:
    space, config = drawn
    projection = project(space, space, config)
    assert projection is not None
    assert space.key(projection.config) == space.key(config)
