"""Tokens of texts: their number, without a tokenizer and against a context; control tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from localhpo.errors import BackendError
from localhpo.llm.protocol import Message, Model

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


def check_context(model: Model, prompt_tokens: int, max_tokens: int, *, hint: str) -> None:
    """Check that a prompt and its answer fit the context of a model.

    Raises:
        BackendError: they do not, or the prompt is empty.
    """
    if not prompt_tokens:
        raise BackendError("the prompt is empty")
    if prompt_tokens + max_tokens > model.context_length:
        raise BackendError(
            f"{prompt_tokens} tokens of prompt and {max_tokens} of answer do not fit the context"
            f" of model {model.name}: {model.context_length} tokens",
            hint=hint,
        )


def control_token_escaper(control: Iterable[str]) -> Callable[[str], str]:
    """Return a function that escapes the control tokens in a text.

    A prompt quotes a user's text and a script's output; `<|im_end|>` in them must not end a turn.

    Args:
        control: Spellings of the control tokens.
    """
    longest_first = sorted(filter(None, control), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
    return lambda text: pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
