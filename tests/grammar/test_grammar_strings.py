"""Strings that a grammar must accept and must refuse, run through the real decoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from decoder import Decoder

from localhpo.grammar import lark_grammar
from localhpo.space import Categorical, Float, Int, Ordinal, Space

Deciding = Callable[[str], Callable[[str], bool]]
"""From a grammar to what says whether a text is one of its sentences."""


class Check:
    """Holds the grammar of a space to lists of strings."""

    def __init__(self, deciding: Deciding) -> None:
        self._deciding = deciding

    def __call__(
        self, space: Space, accepted: Sequence[str], refused: Sequence[str], **options: Any
    ) -> None:
        accepts = self._deciding(lark_grammar(space, **options))
        for text in accepted:
            assert accepts(text), f"must accept {text}"
        for text in refused:
            assert not accepts(text), f"must refuse {text}"

    def values(self, parameter: Any, accepted: str, refused: str) -> None:
        """Check the values of a space of one parameter, x; the lists are separated by blanks."""
        texts = [[f'{{"x":{value}}}' for value in values.split()] for values in (accepted, refused)]
        self(Space([parameter]), *texts)


@pytest.fixture(params=["llguidance", pytest.param("vllm", marks=pytest.mark.slow)])
def check(request: pytest.FixtureRequest) -> Check:
    """The engine alone, and inside a real vLLM server, where it is asked token by token."""
    if request.param == "llguidance":
        return Check(lambda grammar: Decoder(grammar).accepts)
    return Check(request.getfixturevalue("vllm_server").acceptance)


@pytest.mark.parametrize(
    ("low", "high", "accepted", "refused"),
    [
        (
            1e-8, 1e-6, "1e-8 1.01e-8 9.99e-8 1e-7 2.5e-7 9.99e-7 1e-6",
            "9.99e-9 1.01e-6 1.0e-8 10e-9 1e-08 1E-8 1.001e-8 0.00000001 1e8 -1e-8 0 1e-",
        ),
        (
            0.05, 3.0, "5e-2 5.01e-2 1e-1 9.99e-1 1e0 1.5e0 3e0",
            "4.99e-2 3.01e0 0.05 5e-02 50e-3 3.0e0 1e+0 1 e0 1e1",
        ),
        (3.0, 4096.0, "3e0 9.99e0 1e1 2.5e2 4.09e3 4.096e3", "2.99e0 4.1e3 4.095e3 1e4"),
        (1e-12, 1e12, "1e-12 1e-11 3.16e0 1e9 1e10 1e12", "9.99e-13 1.01e12 1e13 1e-0 1e00"),
        (3.1e-4, 3.1e-4, "3.1e-4", "3.09e-4 3.11e-4 3e-4 3.10e-4"),
        (1.2345e-4, 1.2399e-4, "1.2345e-4 1.2399e-4", "1.23e-4 1.24e-4 1.235e-4"),
        (1.2345e-4, 2.0001e2, "1.2345e-4 1.24e-4 2e2 2.0001e2", "1.23e-4 2.01e2 1.2346e-4"),
    ],
)  # fmt: skip
def test_log_floats(check: Check, low: float, high: float, accepted: str, refused: str) -> None:
    check.values(Float("x", low, high, log=True), accepted, refused)


@pytest.mark.parametrize(
    ("low", "high", "accepted", "refused"),
    [
        (
            0.0, 1e-8, "0 0.00000000001 0.000000005 0.00000001",
            "0.00000000000 0.00000001001 0.000000000001 1e-8 -0 0.0 .5",
        ),
        (0.05, 3.0, "0.05 0.051 0.06 1 2.999 3", "0.049 0.0501 3.001 3.0 1.0 1. 01 1.50 5e-2"),
        (0.5, 1.0, "0.5 0.5001 0.9999 1", "0.4999 0.50001 1.0001 0.50 1.0"),
        (3.0, 4096.0, "3 4 10 999 4095 4096", "2 2.9 3.5 4097 03 4096.0 1e3"),
        (0.0, 1e6, "0 1 999999 1000000", "1000001 0.5 1e6"),
        (-1.0, -0.5, "-1 -0.9999 -0.5001 -0.5", "-1.0001 -0.4999 -0.50 -0 0 0.5 1 - -.5"),
        (-0.2, 3.0, "-0.2 -0.199 -0.001 0 0.001 3", "-0.201 -0 -0.0 0.0 -3 3.001 -1 --0.1"),
        (-5.0, 0.0, "-5 -4.999 -0.001 0", "-5.001 -0 0.001 5"),
        (-1000.0, 1000.0, "-1000 -999 -10 -1 0 1 10 999 1000", "-1001 1001 -0 00 +1 0.5 1e3"),
        (0.05, 0.05, "0.05", "0.050 0.051 0.049 5e-2"),
        (0.0, 0.0, "0", "0.0 -0 1"),
        (-7.0, -7.0, "-7", "7 -7.0 -6 -8"),
        (0.12345, 1.98765, "0.12345 0.124 1.987 1.98765", "0.123 1.988 0.12346 1.98764"),
        (-0.00005, 1.0, "-0.00005 0 0.001 1", "-0.001 -0.00004 -0"),
    ],
)  # fmt: skip
def test_linear_floats(check: Check, low: float, high: float, accepted: str, refused: str) -> None:
    check.values(Float("x", low, high), accepted, refused)


@pytest.mark.parametrize(
    ("parameter", "accepted", "refused"),
    [
        (Float("x", 0.0, 1.0, step=0.1), "0 0.1 0.3 1", "0.05 0.30 1.1 -0.1 0.30000000000000004"),
        (Float("x", 0.05, 1.0, step=0.3), "0.05 0.35 0.65 0.95", "1 0.3 0 1.25"),
        (Float("x", -1.0, 1.0, step=0.25), "-1 -0.75 0 0.25 0.5 1", "-0.5.0 -0 0.1 -1.25 0.05"),
        (Float("x", 0.0, 1e6, step=0.5), "0 0.5 1 999999.5 1000000", "0.25 0.05 1000000.5 1.0"),
        (Float("x", 1e-3, 1e-2, step=3e-3), "0.001 0.004 0.007 0.01", "0.003 0.01e0 0.010 0.002"),
        (Float("x", 0.3, 0.3, step=0.1), "0.3", "0.2 0.4 0"),
        (Int("x", 3, 11), "3 4 9 10 11", "2 12 03 3.0 1 30 -3 1e1 3."),
        (Int("x", -5, 100), "-5 -1 0 9 10 99 100", "-6 101 -0 00 +1 -10"),
        (Int("x", -120, -7), "-120 -119 -100 -99 -10 -7", "-121 -6 0 7 -1 -07"),
        (Int("x", 4096, 4096), "4096", "4095 4097 409 40960"),
        (Int("x", 1, 4096, log=True), "1 2 10 999 1000 4095 4096", "0 4097 1e0 1e3 -1"),
        (Int("x", 32, 512, step=32), "32 64 96 480 512", "0 31 33 48 544 32.0"),
        (Int("x", -10, 10, step=7), "-10 -3 4", "-9 -4 -1 0 3 7 10 11 -17"),
        (Int("x", 0, 10**12), "0 1 999999999999 1000000000000", "1000000000001 -1 1e12"),
        (Int("x", 5, 10**9, step=7), "5 12 999999992", "6 999999993 1000000000 7"),
        (Ordinal("x", (32, 64, 128)), "32 64 128", "16 3 6 640 32.0 \"32\""),
        (Ordinal("x", (1e-5, 0.001, 0.5, 2.0)), "1e-5 0.001 0.5 2", "1e-05 1e-3 2.0 0.50 0.00001"),
        (Categorical("x", (True, False)), "true false", "True 1 0 null \"true\" tru"),
        (Categorical("x", ("true", 1, "1")), "\"true\" 1 \"1\"", "true \"\" 1.0"),
        (Categorical("x", ("a", "ab", "")), '"a" "ab" ""', '"b" "aba" a " "'),
        (Categorical("x", ("é", "b\\")), '"é" "b\\\\"', r'"\u00e9" "e" "b\" "b\\\"'),
        (Categorical("x", ('q"', "{}")), r'"q\"" "{}"', r'"q"" "q" "{" "{{}}" "\u0071\""'),
        (Categorical("x", ("new\nline",)), r'"new\nline"', r'"new\u000aline" "new\\nline"'),
    ],
)  # fmt: skip
def test_other_kinds(check: Check, parameter: Any, accepted: str, refused: str) -> None:
    check.values(parameter, accepted, refused)


@pytest.mark.parametrize(
    "name", ['a"b', "back\\slash", "é\u2028\U0001f600", "num.impute.selected.cpo", " ", "/*//", "%"]
)
def test_names(check: Check, name: str) -> None:
    space = Space([Int(name, 0, 1)])
    key = json.dumps(name, ensure_ascii=False)
    check(space, [f"{{{key}:0}}", f"{{{key}:1}}"], [f"{{{key}:2}}", '{"":0}', '{"a":0}'])


def test_keys_are_in_order_without_white_space(check: Check) -> None:
    space = Space([Int("a", 0, 9), Int("b", 0, 9)])
    check(
        space,
        ['{"a":1,"b":2}'],
        [
            '{"b":2,"a":1}', '{"a":1}', '{"a":1,"b":2,}', '{"a": 1,"b":2}', ' {"a":1,"b":2}',
            '{"a":1,"b":2} ', '{"a":1,"b":2}\n', '{"a":1,"b":2,"c":3}', '{"a":1,"a":1}', "{}", "",
        ],
    )  # fmt: skip


def test_conditions_nested_and_on_every_kind_of_parent(check: Check) -> None:
    space = Space(
        [
            Float("rate_drop", 0.0, 0.5, when={"booster": ("dart",)}),
            Categorical("booster", ("gbtree", "dart", "gblinear")),
            Int("depth", 0, 5, when={"booster": ("dart", "gbtree")}),
            Ordinal("bins", (16, 32), when={"depth": (2, 3), "booster": ("gbtree",)}),
            Int("last", 0, 1),
        ]
    )
    check(
        space,
        [
            '{"booster":"dart","rate_drop":0.25,"depth":2,"last":1}',
            '{"booster":"gbtree","depth":2,"bins":16,"last":1}',
            '{"booster":"gbtree","depth":3,"bins":32,"last":0}',
            '{"booster":"gbtree","depth":4,"last":0}',
            '{"booster":"gblinear","last":0}',
        ],
        [
            '{"booster":"gbtree","rate_drop":0.25,"depth":1,"last":1}',
            '{"booster":"gbtree","depth":2,"last":1}',
            '{"booster":"gbtree","depth":4,"bins":16,"last":0}',
            '{"booster":"dart","rate_drop":0.25,"depth":2,"bins":16,"last":1}',
            '{"booster":"dart","depth":2,"last":1}',
            '{"booster":"gblinear","depth":2,"last":1}',
            '{"booster":"gbtree"}',
        ],
    )


RATIONALE = '{{"analysis":{},"config":{{"a":1}},"evidence":{}}}'


@pytest.mark.parametrize(
    ("analysis", "evidence", "trials", "fits"),
    [
        ('"x"', "[]", (), True),
        ('"x"', "[1]", (), False),
        ('"x"', "[]", (1, 14), True),
        ('"x"', "[1,14,1,14,14]", (1, 14), True),
        ('"x"', "[1,1,1,1,1,1]", (1, 14), False),
        ('"x"', "[4]", (1, 14), False),
        ('"x"', "[1, 14]", (1, 14), False),
        ('"x"', "[1,]", (1, 14), False),
        ('"' + "x" * 600 + '"', "[]", (), True),
        ('"' + "é" * 600 + '"', "[]", (), True),
        ('"' + "x" * 601 + '"', "[]", (), False),
        ('""', "[]", (), False),
        (r'"a \"quote\" and a \\"', "[]", (), True),
        (r'"a\nb"', "[]", (), False),
        ('"a\nb"', "[]", (), False),
        ('"a\x7fb"', "[]", (), False),
        ('"a"b"', "[]", (), False),
        ('"a\\"', "[]", (), False),
    ],
)  # fmt: skip
def test_the_form_with_a_rationale(
    check: Check, analysis: str, evidence: str, trials: Any, fits: bool
) -> None:
    text = RATIONALE.format(analysis, evidence)
    lists: tuple[list[str], list[str]] = ([text], []) if fits else ([], [text])
    check(Space([Int("a", 1, 2)]), *lists, rationale=True, trials=trials)
