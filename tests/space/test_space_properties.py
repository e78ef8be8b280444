"""What holds for any space."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import floats, parameters, spaces, spaces_with_configs

from localhpo.errors import ConfigurationError
from localhpo.space import Categorical, Float, Int, Parameter, Space, Value

quick = settings(deadline=None, max_examples=100)


@quick
@given(spaces_with_configs())
def test_a_sampled_configuration_is_canonical(drawn: tuple[Space, dict[str, Value]]) -> None:
    space, config = drawn
    space.validate(config)
    assert space.canonical(config) == config
    assert all(space.is_active(name, config) == (name in config) for name in space.names)


@quick
@given(spaces_with_configs())
def test_a_configuration_encodes_and_decodes_back(drawn: tuple[Space, dict[str, Value]]) -> None:
    space, config = drawn
    point = space.encode(config)
    assert point.shape == (len(space.columns),)
    assert ((point >= 0) & (point <= 1)).all()
    assert space.decode(point) == config


@quick
@given(spaces(), st.data())
def test_any_point_of_the_cube_is_a_canonical_configuration(
    space: Space, data: st.DataObject
) -> None:
    n = len(space.columns)
    point = data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))
    space.validate(space.decode(point))


@quick
@given(spaces())
def test_the_default_is_canonical(space: Space) -> None:
    space.validate(space.default())


@quick
@given(spaces_with_configs())
def test_the_text_is_json_of_the_same_values(drawn: tuple[Space, dict[str, Value]]) -> None:
    space, config = drawn
    text = space.text(config)
    assert json.loads(text) == config
    assert list(json.loads(text)) == list(config)


@quick
@given(parameters(), st.floats(0, 1))
def test_a_value_has_one_spelling(parameter: Parameter, unit: float) -> None:
    value = parameter.from_unit(unit)
    text = parameter.text(value)
    read = parameter.canonical(json.loads(text))
    assert (read, type(read)) == (value, type(value))
    assert parameter.text(read) == text
    assert not text.startswith("-0") or float(text) < 0


@quick
@given(parameters(), st.data())
def test_grid_is_ascending_and_distinct(parameter: Parameter, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, parameter.cardinality - 1))
    around = [
        parameter.at(i) for i in range(max(index - 1, 0), min(index + 2, parameter.cardinality))
    ]
    units = [parameter.to_unit(value) for value in around]
    assert [parameter.canonical(value) for value in around] == around
    assert [parameter.from_unit(unit) for unit in units] == around
    assert units == sorted(set(units))
    if isinstance(parameter, Float | Int):
        assert around == sorted(set(around))


@quick
@given(floats("x"), st.floats(-0.5, 1.5))
def test_a_number_is_put_on_the_grid_within_the_bounds(parameter: Float, place: float) -> None:
    number = parameter.low + place * (parameter.high - parameter.low)
    if not parameter.low <= number <= parameter.high:
        with pytest.raises(ConfigurationError):
            parameter.canonical(number)
        return
    value = parameter.canonical(number)
    assert parameter.low <= value <= parameter.high
    assert parameter.canonical(value) == value


@quick
@given(spaces())
def test_a_table_gives_the_space_back(space: Space) -> None:
    table = json.loads(json.dumps(space.to_table()))
    again = Space.from_table(table)
    assert again == space
    assert again.names == space.names
    assert again.signature() == space.signature()


@quick
@given(spaces(max_size=5))
def test_the_cardinality_is_the_number_of_configurations(space: Space) -> None:
    if space.cardinality > 3000:
        return
    texts = [space.text(config) for config in space.configurations()]
    assert len(texts) == len(set(texts)) == space.cardinality


@quick
@given(spaces(), st.integers(0, 1000))
def test_distance_is_a_metric_in_the_unit_interval(space: Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = space.sample(rng), space.sample(rng)
    assert space.distance(a, a) == 0
    assert space.distance(a, b) == space.distance(b, a)
    assert 0 <= space.distance(a, b) <= 1
    assert (space.distance(a, b) == 0) == (space.key(a) == space.key(b))


@quick
@given(spaces())
def test_parents_come_first_and_the_rest_keeps_its_order(space: Space) -> None:
    for parameter in space:
        assert all(
            space.names.index(parent) < space.names.index(parameter.name)
            for parent in parameter.when
        )
    assert Space(space.parameters).names == space.names


def test_one_hot_columns() -> None:
    space = Space([Categorical("a", ("x", "y")), Int("b", 0, 4)])
    assert space.columns == ('a="x"', 'a="y"', "b")
    assert space.encode({"a": "y", "b": 1}).tolist() == [0, 1, 0.25]
