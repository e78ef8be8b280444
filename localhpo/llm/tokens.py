"""Estimates the number of tokens of a text without its tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from localhpo.llm.protocol import Message

_OVERHEAD = 8
"""Tokens that a chat template adds per message."""
_PIECES = re.compile(r"[A-Za-z]{1,3}|\s+|.", re.DOTALL)
"""Pieces that count as a token each. Real tokenizers make fewer: their words are longer, and some
take three digits at a time."""


def estimate_tokens(text: str) -> int:
    """Return an upper estimate of the tokens of a text."""
    pieces = (piece.encode() for piece in _PIECES.findall(text))
    return sum(1 if piece.isascii() else len(piece) for piece in pieces)


def estimate_prompt_tokens(messages: Sequence[Message]) -> int:
    """Return an upper estimate of the tokens of a rendered prompt."""
    return sum(estimate_tokens(message.content) + _OVERHEAD for message in messages) + _OVERHEAD
