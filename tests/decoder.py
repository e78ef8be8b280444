"""llguidance with a tokenizer of single bytes: what a grammar accepts, and texts of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llguidance import LLMatcher, LLTokenizer

TOKENIZER = LLTokenizer("byte")  # token n is the byte n; the others are special


class Decoder:
    """A compiled grammar."""

    def __init__(self, grammar: str) -> None:
        """Compile a Lark grammar, or the result of `LLMatcher.grammar_from_...`."""
        self._start = LLMatcher(TOKENIZER, grammar)
        assert not self._start.is_error(), self._start.get_error()

    def accepts(self, text: str) -> bool:
        """Return whether the text is a complete sentence that cannot be continued."""
        tokens = list(text.encode())
        matcher = self._start.deep_copy()
        if matcher.try_consume_tokens(tokens) < len(tokens) or not matcher.is_accepting():
            return False
        assert not matcher.is_error(), matcher.get_error()
        assert matcher.is_stopped(), f"{text} can be continued"
        return True

    def write(self, choose: Callable[[np.ndarray], int], limit: int = 5000) -> str:
        """Return a text, where `choose` picks one of the allowed tokens at each step."""
        matcher = self._start.deep_copy()
        written: list[int] = []
        while not matcher.is_stopped():
            mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
            token = choose(np.flatnonzero(np.unpackbits(mask, bitorder="little")))
            assert matcher.consume_token(token), matcher.get_error()
            written.append(token)
            assert len(written) < limit, "the text does not end"
        assert matcher.is_accepting()
        return bytes(token for token in written if token != TOKENIZER.eos_token).decode()
