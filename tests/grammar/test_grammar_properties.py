"""What holds for the grammar of any space, by the real decoder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from decoder import TOKENIZER, Decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from strategies import parameters, spaces, spaces_with_configs

from localhpo.errors import ConfigurationError
from localhpo.grammar import json_schema, lark_grammar, parse_answer
from localhpo.space import Float, Parameter, Space, Value
from localhpo.space.values import identity_of

quick = settings(deadline=None, max_examples=100)


def is_canonical(text: str, space: Space) -> bool:
    try:
        return space.text(parse_answer(text, space).config) == text
    except ConfigurationError:
        return False


@quick
@given(spaces_with_configs())
def test_sampled_configurations_are_accepted_and_parsed_back(
    drawn: tuple[Space, dict[str, Value]],
) -> None:
    space, config = drawn
    text = space.text(config)
    assert Decoder(lark_grammar(space)).accepts(text)
    assert parse_answer(text, space).config == config


@st.composite
def edited(draw: st.DrawFn, text: str) -> str:
    """A text with one to three characters replaced, put in or taken out."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        stop = min(start + draw(st.integers(0, 1)), len(text))
        text = text[:start] + draw(st.text('0123456789-+.eE ,"tx', max_size=1)) + text[stop:]
    return text


@quick
@given(spaces_with_configs(), st.data())
def test_the_grammar_accepts_the_canonical_texts_and_nothing_else(
    drawn: tuple[Space, dict[str, Value]], data: st.DataObject
) -> None:
    space, config = drawn
    decoder = Decoder(lark_grammar(space))
    for _ in range(10):
        text = data.draw(edited(space.text(config)))
        assert decoder.accepts(text) == is_canonical(text, space), text


@settings(deadline=None, max_examples=200)
@given(parameters(), st.data())
def test_the_grammar_of_a_parameter_is_exact_at_its_bounds(
    parameter: Parameter, data: st.DataObject
) -> None:
    space = Space([parameter])
    decoder = Decoder(lark_grammar(space))
    last = parameter.cardinality - 1
    for index in {0, last, min(1, last), max(last - 1, 0)}:
        text = parameter.text(parameter.at(index))
        assert decoder.accepts(f'{{"x":{text}}}')
        for _ in range(5):
            other = f'{{"x":{data.draw(edited(text))}}}'
            assert decoder.accepts(other) == is_canonical(other, space), other


@quick
@given(spaces(), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_random_walk_ends_and_is_canonical(space: Space, rationale: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    options = {"rationale": rationale, "trials": [0, 3, 12]}
    text = Decoder(lark_grammar(space, **options)).write(lambda allowed: int(rng.choice(allowed)))
    answer = parse_answer(text, space, **options)
    assert space.text(answer.config) in text


@pytest.mark.parametrize("rationale", [False, True])
@settings(deadline=None, max_examples=40)
@given(spaces(), st.integers(0, 2**32 - 1))
def test_greedy_decoding_by_a_random_model_ends(rationale: bool, space: Space, seed: int) -> None:
    # A model whose preferences do not depend on what it has written would go on for ever if it
    # could: the longest way is the one that ends nothing.
    preference = np.random.default_rng(seed).permutation(TOKENIZER.vocab_size)
    decoder = Decoder(lark_grammar(space, rationale=rationale))
    text = decoder.write(lambda allowed: int(allowed[preference[allowed].argmax()]))
    parse_answer(text, space, rationale=rationale)


@quick
@given(spaces_with_configs())
def test_schema_accepts_samples_and_compiles(
    drawn: tuple[Space, dict[str, Value]],
) -> None:
    space, config = drawn
    schema = json_schema(space)
    assert admits(schema, json.loads(space.text(config)))
    bounds = [bound for p in space if isinstance(p, Float) for bound in (p.low, p.high)]
    if all(bound == 0 or abs(bound) > 1e-12 for bound in bounds):  # llguidance's own limit
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema))
        assert not LLMatcher.validate_grammar(grammar)


def admits(schema: dict, value: object) -> bool:
    """Validate by the part of JSON Schema that is used, strictly as to the order of keys."""
    if "anyOf" in schema:
        return any(admits(part, value) for part in schema["anyOf"])
    if "enum" in schema:
        return any(identity_of(value) == identity_of(listed) for listed in schema["enum"])
    if schema["type"] == "object":
        assert isinstance(value, dict)
        properties = schema["properties"]
        assert schema["required"] == list(properties)
        assert schema["additionalProperties"] is False
        return list(value) == list(properties) and all(
            admits(properties[key], value[key]) for key in value
        )
    assert schema["type"] in ("integer", "number")
    assert isinstance(value, int if schema["type"] == "integer" else int | float)
    return bool(schema["minimum"] <= value <= schema["maximum"])
