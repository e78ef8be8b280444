"""From text to an answer: what is put on the grid, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localhpo.errors import ConfigurationError
from localhpo.grammar import Answer, parse_answer
from localhpo.space import Categorical, Float, Int, Ordinal, Space

SPACE = Space(
    [
        Float("lr", 1e-5, 1.0, log=True),
        Float("dropout", 0.0, 0.5),
        Int("depth", 1, 8),
        Ordinal("batch", (32, 64)),
        Categorical("booster", ("gbtree", "dart")),
        Int("rate", 0, 3, when={"booster": ("dart",)}),
    ]
)
GOOD = '{"lr":3.1e-4,"dropout":0.25,"depth":3,"batch":32,"booster":"gbtree"}'
CONFIG = {"lr": 3.1e-4, "dropout": 0.25, "depth": 3, "batch": 32, "booster": "gbtree"}


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("3.1e-4", "0.00031"),
        GOOD.replace("3.1e-4", "3.0999e-04"),
        GOOD.replace("0.25", "0.250000001"),
        GOOD.replace('"depth":3', '"depth":3.0'),
        GOOD.replace(",", " ,\n "),
        json.dumps(dict(reversed(CONFIG.items())), indent=2),
    ],
)
def test_values_within_the_bounds_are_rounded_to_the_grid(text: str) -> None:
    answer = parse_answer(text, SPACE)
    assert answer == Answer(CONFIG)
    assert SPACE.text(answer.config) == GOOD


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the answer must be JSON"),
        (GOOD[:-1], "the answer must be JSON"),
        (GOOD + GOOD, "the answer must be JSON"),
        ("Sure! " + GOOD, 'got "Sure! '),
        ("[" * 100_000, "the answer must be JSON"),
        ("[1]", "the answer must be a JSON object, got [1]"),
        ("null", "the answer must be a JSON object, got None"),
        (GOOD.replace("0.25", "NaN"), "a value must be finite, got NaN"),
        (GOOD.replace("0.25", "-Infinity"), "a value must be finite, got -Infinity"),
        (GOOD.replace("0.25", "1e999"), "dropout must be a number from 0 to 0.5, got inf"),
        (GOOD.replace("0.25", "9" * 5000), "the answer must be JSON"),
        (GOOD.replace("0.25", "0.51"), "dropout must be a number from 0 to 0.5, got 0.51"),
        (GOOD.replace("0.25", '"0.25"'), 'got "0.25"'),
        (GOOD.replace("0.25", "true"), "got true"),
        (GOOD.replace("0.25", "null"), "got None"),
        (GOOD.replace("0.25", "[0.25]"), "got [0.25]"),
        (GOOD.replace('"depth":3', '"depth":3.5'), "depth must be a whole number"),
        (GOOD.replace("32", "48"), "batch must be one of 32, 64, got 48"),
        (GOOD.replace("gbtree", "\\ud800"), "booster must be one of"),
        (GOOD.replace('"depth":3,', ""), "depth is missing"),
        (GOOD.replace("}", ',"rate":1}'), "rate is given, but it is active only when booster"),
        (GOOD.replace("gbtree", "dart"), "rate is missing"),
        (GOOD.replace("}", ',"color":1}'), '"color" is not a parameter of the space'),
        (GOOD.replace("}", ',"lr":1e-2}'), '"lr" is given twice'),
    ],
)
def test_everything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_answer(text, SPACE)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500
    str(caught.value).encode()  # can be printed


def rationale(**changes: Any) -> str:
    answer = {"analysis": "lower it", "config": CONFIG, "evidence": [4, 1, 4], **changes}
    return json.dumps({key: value for key, value in answer.items() if value != "absent"})


def test_a_rationale() -> None:
    answer = parse_answer(rationale(), SPACE, rationale=True, trials=[0, 1, 4])
    assert answer == Answer(CONFIG, "lower it", (4, 1))
    line = rationale(analysis="two\nlines\x7f", evidence=[])
    assert parse_answer(line, SPACE, rationale=True).analysis == "two lines "


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"analysis": ""}, "analysis must have 1 to 600 characters, got 0"),
        ({"analysis": "x" * 601}, "analysis must have 1 to 600 characters, got 601"),
        ({"analysis": 3}, "analysis must be a string, got 3"),
        ({"analysis": "\ud800"}, "analysis must be a string"),
        ({"analysis": "absent"}, "must have the keys analysis, config, evidence, got config"),
        ({"more": 1}, "must have the keys analysis, config, evidence, got"),
        ({"config": [1]}, "config must be a JSON object, got [1]"),
        ({"config": {**CONFIG, "lr": 2}}, "lr must be a number from 1e-5 to 1e0, got 2"),
        ({"evidence": [2]}, "evidence must cite trials that exist and were shown, got 2"),
        ({"evidence": [True]}, "got true"),
        ({"evidence": [1.0]}, "got 1"),
        ({"evidence": [1] * 6}, "evidence must be a list of at most 5 trial numbers"),
        ({"evidence": 1}, "evidence must be a list of at most 5 trial numbers, got 1"),
    ],
)
def test_a_bad_rationale(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_answer(rationale(**changes), SPACE, rationale=True, trials=[0, 1, 4])
    assert message in str(caught.value)


def test_the_two_forms_do_not_stand_for_each_other() -> None:
    with pytest.raises(ConfigurationError, match='"analysis" is not a parameter'):
        parse_answer(rationale(), SPACE)
    with pytest.raises(ConfigurationError, match="must have the keys analysis"):
        parse_answer(GOOD, SPACE, rationale=True)
