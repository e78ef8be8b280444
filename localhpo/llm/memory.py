"""How much memory a model needs on a device, and whether a device has it.

Weights are held whole: of a mixture of experts all experts', although a token wakes a few. While
a model reads, each layer keeps keys and values of what it has read (the KV cache): a layer that
sees everything, for each token; one with a sliding window, for no more tokens than its window;
one with linear attention a state of fixed size. With H heads of keys, of width d, and b bytes a
number, a layer keeps 2 H d b bytes for each token. (`localhpo.llm.folder.config` reads this from a
model's config.json; what a server makes of it is in `localhpo.llm.server_memory`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

PROPOSAL_TOKENS = 8192
"""Prompt and answer of a proposal: what a device must have room for. Longer ones are rare."""

WORK_BYTES = 2**30
"""What a device holds beside weights and KV cache: its context, what a pass computes. Assumed."""

_SINGLE = 4
"""Bytes of a number in single precision, in which a model runs in process on a CPU."""


@dataclass(frozen=True, slots=True)
class CachePart:
    """So many times so many bytes of a KV cache."""

    count: int
    each_bytes: int
    what: str = ""
    """Of what, where it is not tokens in every layer."""

    @property
    def size_bytes(self) -> int:
        """All of it."""
        return self.count * self.each_bytes


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """Bytes that a model takes, in the precision of its files."""

    weights_bytes: int
    """As the files hold them; of a mixture of experts all experts."""
    token_bytes: int
    """KV cache of one token in the layers that see every token."""
    window_token_bytes: int
    """The same in the layers with a sliding window."""
    window: int
    """Tokens that those layers look back on; 0 where there are none."""
    state_bytes: int
    """Of layers with linear attention: the same for each sequence, whatever its length."""
    number_bytes: int
    """Of one number in the KV cache: 2 where the model computes in half precision."""
    layers: int
    """That see every token, and keep keys and values of their own."""
    window_layers: int
    """The same, with a sliding window."""
    state_layers: int
    """With linear attention."""

    def kv_parts(self, tokens: int) -> Sequence[CachePart]:
        """Return what one sequence of so many tokens takes in the KV cache."""
        return (
            CachePart(tokens, self.token_bytes),
            CachePart(min(tokens, self.window), self.window_token_bytes, "in windows"),
            CachePart(1, self.state_bytes, "of states"),
        )

    def kv_bytes(self, tokens: int) -> int:
        """Return the sum of `kv_parts`."""
        return sum(part.size_bytes for part in self.kv_parts(tokens))

    def in_single_precision(self, parameters: int) -> ModelMemory:
        """Return what the model takes, at most, where it runs in process on a CPU, unpacked."""
        scale = _SINGLE / self.number_bytes
        return replace(
            self,
            weights_bytes=_SINGLE * parameters,
            token_bytes=round(scale * self.token_bytes),
            window_token_bytes=round(scale * self.window_token_bytes),
            state_bytes=round(scale * self.state_bytes),
            number_bytes=_SINGLE,
        )


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What a model takes on a device."""

    weights_bytes: int
    kv_parts: Sequence[CachePart]
    tokens: int
    """Of prompt and answer."""
    work_bytes: int = WORK_BYTES

    @property
    def kv_bytes(self) -> int:
        """Of the KV cache."""
        return sum(part.size_bytes for part in self.kv_parts)

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_bytes + self.work_bytes


def estimate_memory(
    memory: ModelMemory, context_length: int, tokens: int = PROPOSAL_TOKENS
) -> MemoryEstimate:
    """Return what a model takes in process for one sequence, no longer than its context."""
    tokens = min(tokens, context_length)
    return MemoryEstimate(memory.weights_bytes, memory.kv_parts(tokens), tokens)
