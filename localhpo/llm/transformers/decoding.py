"""Samples answers from a language model under a grammar.

The grammar determines the allowed next tokens. If only one is allowed, it is taken without the
model, and read in the same forward pass as the choice before it: of about 120 tokens of a
configuration with 12 values, only 35 are choices. This saves time and changes no answer:
llguidance allows a single token wherever it forces one.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localhpo.errors import BackendError, ConstraintError, GenerationError
from localhpo.llm.transformers.network import CachedPrefix, Network

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor

_ROW = 12
"""Number of answers in the same forward passes. Each attends past all others of its row, so that
more gain nothing: measured with 12 and 100 million parameters on one core."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are sampled."""

    seeds: Sequence[int]
    """One seed per answer."""
    temperature: float
    """0 takes the most probable token each time."""
    max_tokens: int


@dataclass(frozen=True, slots=True)
class DecodedAnswer:
    """A sampled answer."""

    text: str
    tokens: tuple[int, ...]
    """Its tokens, without the end token."""
    logprob: float
    """Sum of the log-probabilities of its choices among the allowed tokens, at temperature 1."""


class Decoder:
    """Samples answers; keeps the KV cache of the last prompt."""

    def __init__(self, network: Network, tokenizer: LLTokenizer) -> None:
        """Start with an empty cache. The tokenizer must have the network's vocabulary size."""
        self._network = network
        self._tokenizer = tokenizer
        self._prefix = CachedPrefix(network)
        self._compiled: tuple[str, LLMatcher] | None = None

    def draw(self, prompt: Sequence[int], grammar: str, sampling: Sampling) -> list[DecodedAnswer]:
        """Return one answer per seed, each of which matches the Lark grammar.

        Raises:
            ConstraintError: the grammar cannot be compiled, or allows no next token.
            GenerationError: an answer did not end within `max_tokens`.
            BackendError: the logits are not finite.
        """
        root = _Branch(self._compile(grammar), self._tokenizer, sampling.max_tokens)
        shared = [*prompt, *root.tokens]
        branches = [root.fork(seed, shared[-1]) for seed in sampling.seeds]
        try:
            # Each branch reads the last shared token itself, to get its first logits.
            self._prefix.set_tokens(shared[:-1])
            width = _ROW if self._network.packs else 1
            for start in range(0, len(branches), width):
                self._grow(branches[start : start + width], sampling.temperature)
        except BaseException:
            self._prefix = CachedPrefix(self._network)  # the old one may be incomplete
            raise
        return [branch.result() for branch in branches]

    def _grow(self, branches: Sequence[_Branch], temperature: float) -> None:
        with self._prefix.row(len(branches)) as row:
            while growing := {i: b for i, b in enumerate(branches) if not b.ended}:
                scores = row.read({i: branch.pending for i, branch in growing.items()})
                for branch, its_scores in zip(growing.values(), scores, strict=True):
                    branch.choose(its_scores, temperature)

    def _compile(self, grammar: str) -> LLMatcher:
        """Return a new matcher. The last grammar is cached: a study has only one."""
        from llguidance import LLMatcher

        if self._compiled is None or self._compiled[0] != grammar:
            source = LLMatcher.grammar_from_lark(grammar)
            matcher = LLMatcher(self._tokenizer, source, log_level=0)
            if matcher.is_error():
                raise ConstraintError(f"the grammar cannot be compiled: {matcher.get_error()}")
            self._compiled = grammar, matcher
        return self._compiled[1].deep_copy()


class _Branch:
    """An answer while it is sampled.

    Attributes:
        tokens: Its tokens so far.
        pending: The last tokens, which the network has not read yet.
        ended: Whether it is complete.
    """

    def __init__(self, matcher: LLMatcher, tokenizer: LLTokenizer, max_tokens: int) -> None:
        """Begin with the tokens that the grammar forces."""
        self.tokens: list[int] = []
        self.pending: list[int] = []
        self.ended = False
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._random = random.Random(0)
        self._logprob = 0.0
        self._allowed = b""
        self._take_forced()

    def fork(self, seed: int, pending: int) -> _Branch:
        """Return a copy that continues with its own random choices."""
        twin = copy.copy(self)
        twin.tokens = list(self.tokens)
        twin.pending = [pending]
        twin._matcher = self._matcher.deep_copy()
        twin._random = random.Random(seed)
        return twin

    def choose(self, scores: Tensor, temperature: float) -> None:
        """Sample an allowed token, then take the tokens that are forced after it."""
        import torch

        bits = torch.frombuffer(bytearray(self._allowed), dtype=torch.uint8)
        allowed = bits.to(scores.device).nonzero().squeeze(1)
        scores = scores[allowed].double()
        if not math.isfinite(scores.max()):
            raise BackendError(
                "the model's logits are not finite",
                hint="its weights are damaged, or overflow in half precision",
            )
        index = _pick(scores, temperature, self._random)
        self._logprob += float(scores[index] - scores.logsumexp(0))
        self.pending = []
        self._take([int(allowed[index])])
        self._take_forced()

    def result(self) -> DecodedAnswer:
        """Return the complete answer."""
        return DecodedAnswer(self._text(), tuple(self.tokens), self._logprob)

    def _take_forced(self) -> None:
        """Take tokens while there is no choice, then store the allowed ones."""
        while not self._matcher.is_stopped():
            forced = self._matcher.compute_ff_tokens()
            if not forced:
                self._allowed = self._matcher.compute_logit_bias()
                count = len(self._allowed) - self._allowed.count(0)
                if count > 1:
                    return
                if count == 0:
                    raise ConstraintError(f"the grammar allows no token after {self._text()!r}")
                forced = [next(token for token, bit in enumerate(self._allowed) if bit)]
            self._take(forced)
        if self._matcher.is_error():
            raise ConstraintError(
                f"the grammar failed after {self._text()!r}: {self._matcher.get_error()}"
            )
        self.ended = True

    def _take(self, tokens: Sequence[int]) -> None:
        self._matcher.consume_tokens(list(tokens))
        taken = [token for token in tokens if token not in self._tokenizer.eos_tokens]
        self.tokens += taken
        self.pending += taken
        if len(self.tokens) > self._max_tokens:
            raise GenerationError(
                f"an answer did not end within {self._max_tokens} tokens: {self._text()!r}",
                hint="raise max_tokens, or shorten the answers that the grammar allows",
            )

    def _text(self) -> str:
        return str(self._tokenizer.decode_bytes(self.tokens).decode(errors="replace"))


def _pick(scores: Tensor, temperature: float, rng: random.Random) -> int:
    """Return the index of the highest score at temperature 0, else a random one by softmax."""
    import torch

    if temperature == 0:
        return int(scores.argmax())
    # Inverse transform sampling: one random number per choice, so that all devices sample alike.
    rising = torch.softmax(scores / temperature, 0).cumsum(0)
    index = torch.searchsorted(rising, rng.random() * float(rising[-1]), right=True)
    return min(int(index), len(scores) - 1)  # rounding may give the upper end
