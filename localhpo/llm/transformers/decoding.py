"""Draws answers from a language model under a grammar.

The grammar decides at each place which tokens may follow. Where it leaves one alone, that one is
taken without asking the model, and read in the same pass as the choice before it: of the some
120 tokens of a configuration with 12 values, only 35 are choices. This changes no answer, only
the time it takes: llguidance leaves one token alone wherever it forces one.
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
"""Answers drawn in the same passes. Each reads past all others of its row, so that more gain
nothing: measured with 12 and 100 million parameters on one core."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn."""

    seeds: Sequence[int]
    """One per answer."""
    temperature: float
    """0 takes the likeliest token each time."""
    max_tokens: int


@dataclass(frozen=True, slots=True)
class DecodedAnswer:
    """One answer."""

    text: str
    tokens: tuple[int, ...]
    """Without the one that ends it."""
    logprob: float
    """Sum over its choices of the log-probability under the mask, at temperature 1."""


class Decoder:
    """A network, its tokenizer, and the prompt that it read last."""

    def __init__(self, network: Network, tokenizer: LLTokenizer) -> None:
        """Start with nothing read. The tokenizer must have the network's vocabulary size."""
        self._network = network
        self._tokenizer = tokenizer
        self._prefix = CachedPrefix(network)
        self._compiled: tuple[str, LLMatcher] | None = None

    def draw(self, prompt: Sequence[int], grammar: str, sampling: Sampling) -> list[DecodedAnswer]:
        """Return one answer per seed, each accepted by the Lark grammar.

        Raises:
            ConstraintError: the grammar cannot be compiled, or leads nowhere.
            GenerationError: an answer did not end within `max_tokens`.
            BackendError: the network's scores are not numbers.
        """
        root = _Branch(self._compile(grammar), self._tokenizer, sampling.max_tokens)
        shared = [*prompt, *root.tokens]
        branches = [root.fork(seed, shared[-1]) for seed in sampling.seeds]
        try:
            # Each branch reads the last shared token itself: so it gets its first scores.
            self._prefix.become(shared[:-1])
            width = _ROW if self._network.packs else 1
            for start in range(0, len(branches), width):
                self._grow(branches[start : start + width], sampling.temperature)
        except BaseException:
            self._prefix = CachedPrefix(self._network)  # the old one may be read halfway
            raise
        return [branch.result() for branch in branches]

    def _grow(self, branches: Sequence[_Branch], temperature: float) -> None:
        with self._prefix.row(len(branches)) as row:
            while growing := {i: b for i, b in enumerate(branches) if not b.ended}:
                scores = row.read({i: branch.pending for i, branch in growing.items()})
                for branch, its_scores in zip(growing.values(), scores, strict=True):
                    branch.choose(its_scores, temperature)

    def _compile(self, grammar: str) -> LLMatcher:
        """Return a fresh matcher. The last grammar is kept: a study asks with one."""
        from llguidance import LLMatcher

        if self._compiled is None or self._compiled[0] != grammar:
            source = LLMatcher.grammar_from_lark(grammar)
            matcher = LLMatcher(self._tokenizer, source, log_level=0)
            if matcher.is_error():
                raise ConstraintError(f"the grammar cannot be compiled: {matcher.get_error()}")
            self._compiled = grammar, matcher
        return self._compiled[1].deep_copy()


class _Branch:
    """One answer while it is drawn.

    Attributes:
        tokens: What it consists of so far.
        pending: The last of them, which the network has not read yet.
        ended: Whether it is complete.
    """

    def __init__(self, matcher: LLMatcher, tokenizer: LLTokenizer, max_tokens: int) -> None:
        """Begin with what the grammar forces."""
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
        """Return a branch that goes on from here with choices of its own."""
        twin = copy.copy(self)
        twin.tokens = list(self.tokens)
        twin.pending = [pending]
        twin._matcher = self._matcher.deep_copy()
        twin._random = random.Random(seed)
        return twin

    def choose(self, scores: Tensor, temperature: float) -> None:
        """Take one of the allowed tokens by its score, then what it makes forced."""
        import torch

        bits = torch.frombuffer(bytearray(self._allowed), dtype=torch.uint8)
        allowed = bits.to(scores.device).nonzero().squeeze(1)
        scores = scores[allowed].double()
        if not math.isfinite(scores.max()):
            raise BackendError(
                "the model's scores are not finite numbers",
                hint="its weights are damaged, or overflow in half precision",
            )
        place = _pick(scores, temperature, self._random)
        self._logprob += float(scores[place] - scores.logsumexp(0))
        self.pending = []
        self._take([int(allowed[place])])
        self._take_forced()

    def result(self) -> DecodedAnswer:
        """Return the complete answer."""
        return DecodedAnswer(self._text(), tuple(self.tokens), self._logprob)

    def _take_forced(self) -> None:
        """Take tokens while there is no choice; leave what is allowed where there is one."""
        while not self._matcher.is_stopped():
            forced = self._matcher.compute_ff_tokens()
            if not forced:
                self._allowed = self._matcher.compute_logit_bias()
                count = len(self._allowed) - self._allowed.count(0)
                if count > 1:
                    return
                if count == 0:
                    raise ConstraintError(f"the grammar leads nowhere after {self._text()!r}")
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
                hint="allow longer answers, or shorten what the grammar demands",
            )

    def _text(self) -> str:
        return str(self._tokenizer.decode_bytes(self.tokens).decode(errors="replace"))


def _pick(scores: Tensor, temperature: float, rng: random.Random) -> int:
    """Return an index: of the highest score at temperature 0, else drawn by them."""
    import torch

    if temperature == 0:
        return int(scores.argmax())
    # The inverse of the distribution function: one number from the seed's own stream decides, on
    # any device alike.
    rising = torch.softmax(scores / temperature, 0).cumsum(0)
    place = torch.searchsorted(rising, rng.random() * float(rising[-1]), right=True)
    return min(int(place), len(scores) - 1)  # rounding may end at the very top
