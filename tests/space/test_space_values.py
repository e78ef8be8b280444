"""The grid of values, their spelling, and the order of parameters, by example."""

from __future__ import annotations

import hashlib
import itertools
import math
from typing import Any

import numpy as np
import pytest

from localhpo.space import Categorical, Float, Int, Ordinal, Space


@pytest.mark.parametrize(
    ("parameter", "value", "canonical", "text"),
    [
        (Float("x", 1e-5, 1.0, log=True), 0.000312345, 0.000312, "3.12e-4"),
        (Float("x", 1e-5, 1.0, log=True), 0.1, 0.1, "1e-1"),
        (Float("x", 1e-5, 1.0, log=True), 1, 1.0, "1e0"),
        (Float("x", 1.0, 1000.0, log=True), 250.4, 250.0, "2.5e2"),
        (Float("x", 1.0, 1000.0, log=True), 999.9, 1000.0, "1e3"),
        (Float("x", 0.00123456, 0.1, log=True), 0.00123457, 0.00123456, "1.23456e-3"),
        (Float("x", 0.00123456, 0.1, log=True), 0.0012351, 0.00124, "1.24e-3"),
        (Float("x", 0.1, 0.98765, log=True), 0.98764, 0.98765, "9.8765e-1"),
        (Float("x", 0.0, 1.0), 1 / 3, 0.333, "0.333"),
        (Float("x", 0.0, 0.5), 1 / 3, 0.3333, "0.3333"),
        (Float("x", 0.0, 1e-8), 3.14159e-9, 3.14e-9, "0.00000000314"),
        (Float("x", -1.0, 1.0), -1e-9, 0.0, "0"),
        (Float("x", -1.0, 0.0), -0.0, 0.0, "0"),
        (Float("x", 0.0, 10.0), 10, 10.0, "10"),
        (Float("x", 0.0, 1e6), 1234.5678, 1235.0, "1235"),
        (Float("x", 0.0, 1e18), 123456789.4, 123457000.0, "123457000"),
        (Float("x", 0.0, 1.0, step=0.1), 0.30000000000000004, 0.3, "0.3"),
        (Float("x", 0.0, 1.0, step=0.3), 1.0, 0.9, "0.9"),
        (Float("x", 0.05, 2.0, step=0.3), 0.31, 0.35, "0.35"),
        (Float("x", 3.0, 3.0), 3, 3.0, "3"),
        (Int("x", 0, 10), 3.0, 3, "3"),
        (Int("x", 0, 10, step=4), 5, 4, "4"),
        (Int("x", 0, 10, step=4), 10, 8, "8"),
        (Int("x", 0, 10), np.int64(3), 3, "3"),
        (Float("x", 0.0, 10.0), np.float32(0.5), 0.5, "0.5"),
        (Categorical("x", (True, False)), np.bool_(True), True, "true"),
        (Ordinal("x", (1, 2.5, 1e-5)), 1.0, 1, "1"),
        (Ordinal("x", (1, 2.5, 1e-5)), 1e-05, 1e-05, "1e-5"),
        (Categorical("x", ("é", 'q"', "\n")), "\n", "\n", r'"\n"'),
        (Categorical("x", ("é", 'q"', "\n")), "é", "é", '"é"'),
    ],
)
def test_canonical_values_and_their_spelling(
    parameter: Any, value: Any, canonical: Any, text: str
) -> None:
    result = parameter.canonical(value)
    assert (result, type(result)) == (canonical, type(canonical))
    assert parameter.text(value) == text


@pytest.mark.parametrize(
    ("parameter", "count"),
    [
        (Float("x", 1e-3, 1.0, log=True), 2701),
        (Float("x", 0.00123456, 1.0, log=True), 2678),
        (Float("x", 0.0, 1.0), 1001),
        (Float("x", 0.0, 0.5), 5001),
        (Float("x", 0.05, 0.05), 1),
        (Float("x", 0.0, 1.0, step=0.3), 4),
        (Int("x", 3, 11), 9),
        (Int("x", 0, 10, step=4), 3),
        (Ordinal("x", (1, 2)), 2),
    ],
)
def test_cardinality(parameter: Any, count: int) -> None:
    values = [parameter.at(index) for index in range(count)]
    assert parameter.cardinality == count == len(set(values))
    assert [parameter.canonical(value) for value in values] == values


def test_the_unit_interval_of_a_log_float_is_geometric() -> None:
    parameter = Float("x", 1e-4, 1.0, log=True)
    assert [parameter.from_unit(u) for u in (0, 0.25, 0.5, 1)] == [1e-4, 1e-3, 1e-2, 1.0]
    assert parameter.to_unit(1e-2) == pytest.approx(0.5)


def test_adjacent_bounds_stay_distinct() -> None:
    below, above = math.nextafter(0.1, 0), math.nextafter(0.1, 1)
    for log in (False, True):
        parameter = Float("x", below, above, log=log)
        values = [parameter.at(i) for i in range(parameter.cardinality)]
        assert values in ([below, 0.1, above], [below, above])
        assert [parameter.from_unit(parameter.to_unit(v)) for v in values] == values


def test_sampling_gives_each_value_its_share() -> None:
    rng = np.random.default_rng(0)
    space = Space([Int("i", 0, 3), Ordinal("o", (1, 2, 3)), Float("s", 0, 1, step=0.5)])
    drawn = [space.sample(rng) for _ in range(3000)]
    for name, count in (("i", 4), ("o", 3), ("s", 3)):
        values, counts = np.unique([config[name] for config in drawn], return_counts=True)
        assert len(values) == count
        assert (abs(counts - 3000 / count) < 150).all()


def test_sampling_a_log_int_is_uniform_in_orders_of_magnitude() -> None:
    rng = np.random.default_rng(0)
    space = Space([Int("i", 1, 10_000, log=True)])
    drawn = [space.sample(rng)["i"] for _ in range(3000)]
    assert 0.4 < np.mean([value < 100 for value in drawn]) < 0.6
    assert min(drawn) == 1


def test_the_default_is_the_center_where_none_is_named() -> None:
    space = Space(
        [
            Float("log", 1e-4, 1.0, log=True),
            Float("linear", 0, 1),
            Float("named", 0, 1, default=0.12345),
            Int("int", 1, 9),
            Ordinal("ordinal", (32, 64, 128, 256)),
            Categorical("categorical", ("a", "b", "c")),
            Int("child", 0, 4, when={"categorical": ("b",)}),
        ]
    )
    assert space.has_defaults
    assert space.text(space.default()) == (
        '{"log":1e-2,"linear":0.5,"named":0.123,"int":5,"ordinal":64,"categorical":"a"}'
    )


def test_parents_move_before_their_children_and_nothing_else_moves() -> None:
    space = Space(
        [
            Int("grandchild", 0, 1, when={"child": (1,)}),
            Int("a", 0, 1),
            Int("child", 0, 1, when={"parent": (1,)}),
            Int("b", 0, 1),
            Int("parent", 0, 1),
            Int("c", 0, 1),
        ]
    )
    assert space.names == ("a", "b", "parent", "child", "grandchild", "c")
    assert space.conditional
    assert space.cardinality == 2 * 2 * (1 + (1 + 2)) * 2
    config = {"a": 0, "b": 0, "parent": 0, "c": 0}
    assert not space.is_active("grandchild", {**config, "child": 1})
    assert space.is_active("grandchild", {**config, "parent": 1, "child": 1})


def test_configurations_come_in_order() -> None:
    space = Space([Categorical("a", ("x", "y")), Int("b", 0, 1, when={"a": ("y",)})])
    assert list(space.configurations()) == [{"a": "x"}, {"a": "y", "b": 0}, {"a": "y", "b": 1}]


def test_a_huge_space_is_counted_and_enumerated_lazily() -> None:
    space = Space([Float(f"x{i}", 1e-8, 1.0, log=True) for i in range(1500)])
    assert space.cardinality == 7201**1500
    first, second = itertools.islice(space.configurations(), 2)
    assert (first["x0"], second["x0"], second["x1499"]) == (1e-8, 1e-8, 1.01e-8)


def test_distance() -> None:
    space = Space(
        [
            Float("x", 1e-4, 1.0, log=True),
            Categorical("c", ("a", "b")),
            Ordinal("o", (1, 2, 4), when={"c": ("b",)}),
        ]
    )
    a, b = {"x": 1e-4, "c": "a"}, {"x": 1e-2, "c": "b", "o": 2}
    assert space.distance(a, b) == pytest.approx((0.5 + 1 + 1) / 3)
    assert space.distance(b, {**b, "o": 4}) == pytest.approx(0.5 / 3)
    assert space.encode(a).tolist() == [0, 1, 0, 0.5]
    assert space.encode(b) == pytest.approx([0.5, 0, 1, 0.5])


def test_the_key_is_a_hash_of_the_text() -> None:
    space = Space([Float("x", 0, 1), Int("n", 0, 3)])
    text = '{"x":0.333,"n":2}'
    assert space.key({"n": 2, "x": 0.33333}) == hashlib.sha256(text.encode()).hexdigest()


def test_the_signature_changes_with_the_meaning_only() -> None:
    def signature(**changes: Any) -> str:
        fields = {"low": 0.0, "high": 1.0, **changes}
        return Space([Categorical("c", ("a", "b")), Float("x", **fields)]).signature()

    assert signature() == signature(help="what it does") == signature(default=0.25)
    other = [signature(high=2.0), signature(step=0.5), signature(when={"c": ("a",)})]
    other.append(Space([Float("x", 0, 1), Categorical("c", ("a", "b"))]).signature())
    assert len({signature(), *other}) == 5
    assert Space([Int("n", 0, 9, step=1)]).signature() == Space([Int("n", 0, 9)]).signature()


def test_a_space_is_a_value() -> None:
    space = Space([Float("x", 0, 1), Int("n", 0, 3)])
    assert space == Space([Float("x", 0, 1), Int("n", 0, 3)])
    assert space != Space([Int("n", 0, 3), Float("x", 0, 1)])
    assert "x" in space and "y" not in space
    assert [p.name for p in space] == ["x", "n"] and len(space) == 2
    assert space["n"].kind == "int"
    assert hash(space["x"]) == hash(Float("x", 0, 1))
