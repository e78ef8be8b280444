"""The grammar and the schema as texts, and how they grow."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from decoder import Decoder
from llguidance import LLMatcher

from localhpo.grammar import json_schema, lark_grammar, parse_answer
from localhpo.space import Categorical, Float, Int, Ordinal, Parameter, Space

SPACE = Space(
    [
        Float("learning_rate", 1e-3, 1.0, log=True),
        Categorical("booster", ("gbtree", "dart")),
        Float("rate_drop", 0.0, 0.5, when={"booster": ("dart",)}),
        Float("subsample", 0.5, 1.0, step=0.5),
        Int("max_depth", 3, 11),
    ]
)


def test_a_grammar_can_be_read() -> None:
    assert (
        lark_grammar(SPACE)
        == r"""start: config
config: F0 (F1_0 config1 | F1_1 config2)
config1: F3 F4 "}"
config2: F2 config1
F0: "{\"learning_rate\":" /1e0|[1-9](\.[0-9]?[1-9])?e-[1-3]/
F1_0: ",\"booster\":" "\"gbtree\""
F1_1: ",\"booster\":" "\"dart\""
F2: ",\"rate_drop\":" /0(\.(0[0-9]{0,2}[1-9]|[1-4]([0-9]{0,2}[1-9])?|5))?/
F3: ",\"subsample\":" /(0\.5|1)/
F4: ",\"max_depth\":" /([3-9]|1[01])/
"""
    )


def test_a_schema_has_a_branch_per_combination() -> None:
    lr = {"type": "number", "minimum": 0.001, "maximum": 1.0}
    tail = {
        "subsample": {"enum": [0.5, 1.0]},
        "max_depth": {"type": "integer", "minimum": 3, "maximum": 11},
    }
    schema = json_schema(SPACE)
    assert schema["x-guidance"] == {"whitespace_flexible": False}
    assert [list(branch["properties"].items()) for branch in schema["anyOf"]] == [
        list({"learning_rate": lr, "booster": {"enum": ["gbtree"]}, **tail}.items()),
        list(
            {
                "learning_rate": lr,
                "booster": {"enum": ["dart"]},
                "rate_drop": {"type": "number", "minimum": 0.0, "maximum": 0.5},
                **tail,
            }.items()
        ),
    ]


def test_a_schema_of_ints_on_which_others_depend() -> None:
    space = Space([Int("a", 0, 9), Int("b", 0, 1, when={"a": (2, 5, 6)})])
    without, with_ = [branch["properties"]["a"] for branch in json_schema(space)["anyOf"]]
    assert without == {
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": 1},
            {"type": "integer", "minimum": 3, "maximum": 4},
            {"type": "integer", "minimum": 7, "maximum": 9},
        ]
    }
    assert with_ == {
        "anyOf": [{"enum": [2]}, {"enum": [5]}, {"enum": [6]}],
    }


def test_a_schema_with_a_rationale() -> None:
    schema = json_schema(SPACE, rationale=True, trials=[7, 2, 7])
    assert list(schema["properties"]) == schema["required"] == ["analysis", "config", "evidence"]
    assert schema["properties"]["analysis"] == {"type": "string", "minLength": 1, "maxLength": 600}
    assert schema["properties"]["evidence"]["items"] == {"enum": [2, 7]}
    assert "x-guidance" in schema and "x-guidance" not in schema["properties"]["config"]
    none = json_schema(SPACE, rationale=True)
    assert none["properties"]["evidence"]["maxItems"] == 0
    for one in (schema, none):
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(one))
        assert not LLMatcher.validate_grammar(grammar)


def test_answers_under_the_schema_are_parsed() -> None:
    text = (
        '{"learning_rate":0.0312345,"booster":"dart","rate_drop":0.123456,'
        '"subsample":0.5,"max_depth":4}'
    )
    schema = json.dumps(json_schema(SPACE))
    assert Decoder(LLMatcher.grammar_from_json_schema(schema)).accepts(text)
    config = parse_answer(text, SPACE).config
    assert (config["learning_rate"], config["rate_drop"]) == (0.0312, 0.1235)


@pytest.mark.parametrize("rationale", [False, True])
def test_a_random_walk_under_the_schema_is_parsed(rationale: bool) -> None:
    options: dict[str, Any] = {"rationale": rationale, "trials": [3, 14]}
    schema = json.dumps(json_schema(SPACE, **options))
    decoder = Decoder(LLMatcher.grammar_from_json_schema(schema))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        text = decoder.write(lambda allowed, rng=rng: int(rng.choice(allowed)))
        SPACE.validate(parse_answer(text, SPACE, **options).config)


@pytest.mark.parametrize(
    "grids",
    [
        [Float("x", 0.0, 1e6, step=0.7)],
        [Int("x", 0, 10**9, step=997)],
        [Ordinal("x", tuple(range(5000)))],
        [Categorical(f"p{i}", tuple("abcdefgh")) for i in range(60)],
        [Float("x", -1e300, 1e300)],
        [Float("x", 1e-300, 1e300, log=True)],
        [Float("x", 0.0, 1e-300), Float("y", 1e9, 1e9 + 1e-6)],
        [Int(f"i{i}", 0, 1) for i in range(1500)],
        [Float("x", 0.0, 1.0, step=0.003), Int("y", 7, 10**12, step=640)],
    ],
    ids=lambda grids: f"{len(grids)} {grids[0].kind}",
)
def test_large_grids_and_spaces_compile(grids: list[Parameter]) -> None:
    space = Space(grids)
    decoder = Decoder(lark_grammar(space))
    rng = np.random.default_rng(0)
    for _ in range(5):
        assert decoder.accepts(space.text(space.sample(rng)))
    assert list(json_schema(space)["properties"]) == list(space.names)


@pytest.mark.parametrize("between", [0, 5])
def test_as_many_branches_as_a_space_may_have(between: int) -> None:
    parents = [
        parameter
        for i in range(12)
        for parameter in (
            Categorical(f"p{i}", (False, True)),
            *(Int(f"u{i}_{j}", 0, 9) for j in range(between)),
        )
    ]
    children = [Int(f"c{i}", 0, 9, when={f"p{i}": (True,)}) for i in range(12)]
    space = Space(parents + children)
    decoder = Decoder(lark_grammar(space))
    rng = np.random.default_rng(0)
    for _ in range(5):
        assert decoder.accepts(space.text(space.sample(rng)))
    assert len(json_schema(space)["anyOf"]) == 4096
