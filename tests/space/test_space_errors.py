"""What bad input gets: where, which key, what must hold, what came and what to do."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import numpy as np
import pytest

from localhpo.errors import ConfigurationError, SpaceError
from localhpo.space import Categorical, Float, Int, Ordinal, Space

WHERE = "task.toml [space]"

BAD_TABLES = [
    ("x = 3", "x: must be a table, got 3", 'x = { type = "float", low = 0.0, high = 1.0 }'),
    ('"{x}" = { type = "float", low = 0, high = 1 }',
     "must not contain braces or control", "--NAME"),
    ('"a\u009b" = { type = "float", low = 0, high = 1 }',
     "must not contain braces or control", "--NAME"),
    ('"" = { type = "float", low = 0, high = 1 }', "must be a non-empty string", ""),
]  # fmt: skip

BAD_PARAMETERS = [
    ("low = 0, high = 1", "x: type is missing", "float, int, ordinal, categorical"),
    ('type = "flaot"',
     'type must be one of float, int, ordinal, categorical, got "flaot"', "did you mean 'float'?"),
    ('type = "bool"', 'got "bool"', "values = [true, false]"),
    ('type = "loguniform"', 'got "loguniform"', "log = true"),
    ('type = "choice"', 'got "choice"', "'categorical'"),
    ("type = 3", "got 3", ""),
    ('type = "float", low = 0, hihg = 1',
     '"hihg" is not a key of type float', "did you mean 'high'?"),
    ('type = "int", values = [1]', '"values" is not a key of type int', "known: type, low"),
    ('type = "float", low = 0', "high is missing", "type float needs it"),
    ('type = "ordinal"', "values is missing", "type ordinal needs it"),
    ('type = "float", low = 2, high = 1',
     "low must not be above high, got low = 2 and high = 1", "exchange"),
    ('type = "int", low = 2, high = 1',
     "low must not be above high, got low = 2 and high = 1", "exchange"),
    ('type = "float", low = 0, high = 1, log = true',
     "low must be above 0 where log = true, got 0", "raise low"),
    ('type = "int", low = -3, high = 1, log = true',
     "low must be above 0 where log = true, got -3", "raise low"),
    ('type = "float", low = 1, high = 2, log = true, step = 0.1',
     "step and log exclude each other", "one of them"),
    ('type = "int", low = 1, high = 9, log = true, step = 2',
     "step and log exclude each other", "one of them"),
    ('type = "float", low = 1, high = 2, step = 0', "step must be above 0, got 0", ""),
    ('type = "int", low = 1, high = 2, step = -1', "step must be above 0, got -1", ""),
    ('type = "float", low = 0, high = 1, step = 2',
     "step must not be larger than high - low, got 2", "smaller"),
    ('type = "float", low = 0.1234567890123456, high = 9, step = 0.1',
     "low and step must be rounder numbers", "15 digits"),
    ('type = "int", low = 0, high = 1_000_000_000, step = 12347',
     "low and step must be rounder numbers", "grammar"),
    ('type = "float", low = nan, high = 1', "low must be finite, got nan", ""),
    ('type = "float", low = 0, high = inf', "high must be finite, got inf", ""),
    ('type = "float", low = 0, high = 1e305', "high must be 0 or from 1e-300 to 1e300", "unit"),
    ('type = "float", low = "0", high = 1', 'low must be a number, got "0"', ""),
    ('type = "float", low = false, high = 1', "low must be a number, got false", ""),
    ('type = "int", low = true, high = 1', "low must be a whole number, got true", ""),
    ('type = "int", low = 0.5, high = 1', "low must be a whole number, got 0.5", 'type = "float"'),
    ('type = "int", low = 0, high = 9, step = 1.5', "step must be a whole number, got 1.5", ""),
    ('type = "int", low = 0, high = 10_000_000_000_000', "high must be at most 10^12", "unit"),
    ('type = "float", low = 0, high = 1, log = "yes"', 'log must be true or false, got "yes"', ""),
    ('type = "float", low = 1e-4, high = 0.1, log = true, default = 1',
     "default must be a number from 1e-4 to 1e-1, got 1", ""),
    ('type = "float", low = 0, high = 1, default = true',
     "default must be a number from 0 to 1, got true", ""),
    ('type = "int", low = 0, high = 8, step = 2, default = 9',
     "default must be a whole number from 0 to 8 in steps of 2, got 9", ""),
    ('type = "int", low = 0, high = 8, default = 2.5',
     "default must be a whole number from 0 to 8, got 2.5", ""),
    ('type = "categorical", values = ["a", "b"], default = "c"',
     'default must be one of "a", "b", got "c"', ""),
    ('type = "categorical", values = []',
     "values must be a list of at least one value, got []", ""),
    ('type = "categorical", values = "abc"',
     'values must be a list of at least one value, got "abc"', ""),
    ('type = "ordinal", values = [1, 2, 1]', "values must differ, got 1 and 1", ""),
    ('type = "ordinal", values = [1, 1.0]', "values must differ, got 1 and 1", ""),
    ('type = "categorical", values = [1, true]',
     "values must differ, got 1 and true", "only booleans, or only numbers"),
    ('type = "categorical", values = [false, 0.0]', "values must differ, got false and 0", "only"),
    ('type = "categorical", values = [nan]', "values must be finite, got nan", ""),
    ('type = "categorical", values = [[1]]',
     "values must be strings, numbers or booleans, got [1]", "as a string"),
    ('type = "categorical", values = ["a\\u0000"]', "values must be valid Unicode without NUL", ""),
    ('type = "float", low = 0, high = 1, help = 3', "help must be a string, got 3", ""),
    ('type = "float", low = 0, high = 1, when = "y"', "when must map each parent", "for instance"),
    ('type = "float", low = 0, high = 1, when = { y = "a" }',
     'when.y must be a list of at least one value, got "a"', 'when = { y = ["a"] }'),
    ('type = "float", low = 0, high = 1, when = { y = [] }', "when.y must be a list", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [*BAD_TABLES, *((f"x = {{ {row} }}", *expected) for row, *expected in BAD_PARAMETERS)],
)
def test_invalid_parameter_names_place_and_rule(table: str, message: str, hint: str) -> None:
    with pytest.raises(SpaceError) as caught:
        Space.from_table(tomllib.loads(table), WHERE)
    assert str(caught.value).startswith(WHERE)
    assert message in str(caught.value)
    assert hint in caught.value.hint


BASE = """
booster = { type = "categorical", values = ["gbtree", "dart"] }
depth = { type = "int", low = 0, high = 8, step = 2 }
rate = { type = "float", low = 0, high = 1 }
"""

BAD_CONDITIONS = [
    ("when = { boster = ['dart'] }",
     'x: when names "boster", which is not a parameter of the space', "did you mean 'booster'?"),
    ("when = { booster = ['drat'] }",
     'x: when.booster must be one of "gbtree", "dart", got "drat"', "did you mean 'dart'?"),
    ("when = { booster = [true] }", "got true", ""),
    ("when = { depth = [9] }",
     "x: when.depth must be a whole number from 0 to 8 in steps of 2, got 9", ""),
    ("when = { depth = [3] }",
     "x: when.depth must be a whole number from 0 to 8 in steps of 2, got 3", ""),
    ("when = { rate = [0.5] }", "x: when names rate, which is a float", ""),
    ("when = { x = [1] }", "x: its condition leads back to itself: x needs x", "remove"),
    ("when = { y = [1] } }\ny = { type = 'int', low = 0, high = 1, when = { x = [1] }",
     "x: its condition leads back to itself: x needs y needs x", "remove"),
    ("when = { booster = ['dart'] } }\n"
     "y = { type = 'int', low = 0, high = 1, when = { x = [1], booster = ['gbtree'] }",
     "y: its condition can never hold",
     ""),
]  # fmt: skip


@pytest.mark.parametrize(("when", "message", "hint"), BAD_CONDITIONS)
def test_invalid_condition_names_place_and_rule(when: str, message: str, hint: str) -> None:
    table = tomllib.loads(f"{BASE}\nx = {{ type = 'int', low = 0, high = 1, {when} }}")
    with pytest.raises(SpaceError) as caught:
        Space.from_table(table, WHERE)
    assert str(caught.value).startswith(f"{WHERE} ")
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_a_space_must_have_parameters_with_different_names() -> None:
    with pytest.raises(SpaceError, match=r"\[space\] a space must have at least one parameter"):
        Space.from_table({})
    with pytest.raises(SpaceError, match="x: this name is declared twice"):
        Space([Int("x", 0, 1), Float("x", 0, 1)])


def test_too_many_branches_are_refused() -> None:
    def space(parents: int) -> Space:
        parameters: list[Any] = [Categorical(f"p{i}", (False, True)) for i in range(parents)]
        parameters += [Int(f"c{i}", 0, 1, when={f"p{i}": (True,)}) for i in range(parents)]
        return Space(parameters)

    assert space(12).cardinality == 3**12
    for parents in (13, 1000):
        with pytest.raises(SpaceError, match="at most 4,096 combinations of branches"):
            space(parents)


SPACE = Space(
    [
        Float("learning_rate", 1e-4, 1e-1, log=True),
        Int("depth", 1, 8),
        Categorical("booster", ("gbtree", "dart")),
        Float("rate_drop", 0.0, 0.5, when={"booster": ("dart",), "depth": (7, 8)}),
        Ordinal("bins", (16, 32, 64)),
    ]
)
GOOD: dict[str, Any] = {"learning_rate": 0.01, "depth": 3, "booster": "gbtree", "bins": 16}


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"learning_rate": 0.2}, "learning_rate must be a number from 1e-4 to 1e-1, got 0.2", ""),
        ({"learning_rate": math.nan}, "must be a number from 1e-4 to 1e-1, got nan", ""),
        ({"learning_rate": -math.inf}, "got -inf", ""),
        ({"learning_rate": "0.01"}, 'got "0.01"', ""),
        ({"learning_rate": True}, "got true", ""),
        ({"learning_rate": None}, "got None", ""),
        ({"learning_rate": 10**400}, "learning_rate must be", ""),
        ({"depth": 9}, "depth must be a whole number from 1 to 8, got 9", ""),
        ({"depth": 2.5}, "depth must be a whole number from 1 to 8, got 2.5", ""),
        ({"depth": True}, "got true", ""),
        ({"bins": 48}, "bins must be one of 16, 32, 64, got 48", ""),
        ({"bins": [16]}, "got [16]", ""),
        ({"booster": "Dart"}, 'booster must be one of "gbtree", "dart", got "Dart"', ""),
        ({"boster": "dart"}, '"boster" is not a parameter of the space', "did you mean 'booster'?"),
        ({"rate_drop": 0.1},
         'rate_drop is given, but it is active only when booster is "dart" and depth is 7 or 8',
         "leave rate_drop out"),
        ({"booster": "dart", "depth": 7},
         "rate_drop is missing: it must be a number from 0 to 0.5", ""),
    ],
)  # fmt: skip
def test_invalid_configuration_names_the_rule(
    change: dict[str, Any], message: str, hint: str
) -> None:
    for check in (SPACE.canonical, SPACE.validate, SPACE.text, SPACE.key):
        with pytest.raises(ConfigurationError) as caught:
            check({**GOOD, **change})
        assert message in str(caught.value)
        assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**GOOD, "learning_rate": 0.012345}, "learning_rate must be on its grid: 0.0123 instead"),
        ({**GOOD, "bins": 16.0}, "bins must be on its grid: 16 instead of 16.0"),
        (dict(reversed(GOOD.items())), "the keys must be in the order learning_rate, depth"),
    ],
)
def test_non_canonical_configuration_is_canonicalized_but_not_valid(
    config: dict[str, Any], message: str
) -> None:
    SPACE.validate(SPACE.canonical(config))
    with pytest.raises(ConfigurationError, match=message):
        SPACE.validate(config)


@pytest.mark.parametrize(
    "vector", [[0.5], np.full(6, math.nan), np.zeros((2, 3)), [0.5] * 5 + [math.inf]]
)
def test_a_bad_point_of_the_cube(vector: Any) -> None:
    assert len(SPACE.columns) == 6
    with pytest.raises(ConfigurationError, match="a point must have 6 finite coordinates"):
        SPACE.decode(vector)
