"""Escapes control tokens in texts that a prompt quotes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def control_token_escaper(control: Iterable[str]) -> Callable[[str], str]:
    """Return a function that escapes the control tokens in a text.

    A prompt quotes a user's text and a script's output; `<|im_end|>` in them must not end a turn.

    Args:
        control: Spellings of the control tokens.
    """
    longest_first = sorted(filter(None, control), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
    return lambda text: pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
