"""Seeds of answers, and token estimates."""

from __future__ import annotations

import pytest

from localhpo.llm.protocol import Message, derive_seeds
from localhpo.llm.tokens import estimate_prompt_tokens, estimate_tokens


def test_derived_seeds_start_with_the_given_one_and_are_distinct() -> None:
    assert derive_seeds(7, 1) == [7]
    assert derive_seeds(7, 3) == derive_seeds(7, 5)[:3]
    drawn = [seed for start in range(200) for seed in derive_seeds(start, 8)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= seed < 2**31 for seed in drawn)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("learning_rate", 6), ("3.1e-4", 6), ("a b", 3), ("  \n", 1), ("ß", 2), ("界", 3)],
)
def test_tokens_are_estimated_from_above(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def test_each_message_adds_template_tokens() -> None:
    one = estimate_prompt_tokens([Message("user", "abc")])
    assert estimate_prompt_tokens([Message("user", "abc"), Message("user", "abc")]) > one + 1
