"""Estimates the memory that a model needs on a device.

All weights count: of a mixture of experts those of all experts, although a token uses few. The KV
cache depends on the kind of layer: full attention keeps keys and values of each token, a sliding
window those of its last tokens, linear attention a state of fixed size. With H key heads of width
d, and b bytes per number, a layer keeps 2 H d b bytes per token. (`localhpo.llm.models.config`
reads this from config.json; `localhpo.llm.vllm.memory` has the needs of a vLLM server.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

PROPOSAL_TOKENS = 8192
"""Tokens of prompt and answer of a proposal that must fit in memory. Longer ones are rare."""

WORK_BYTES = 2**30
"""Memory besides weights and KV cache: CUDA context and activations. An assumption."""

_SINGLE = 4
"""Bytes of a number in single precision, which a model in this process uses on a CPU."""


@dataclass(frozen=True, slots=True)
class CachePart:
    """A part of a KV cache: `count` entries of `each_bytes`."""

    count: int
    each_bytes: int
    what: str = ""
    """Kind of entries; empty for tokens in layers with full attention."""

    @property
    def size_bytes(self) -> int:
        """Size of the part."""
        return self.count * self.each_bytes


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """Memory of a model, in the precision of its files."""

    weights_bytes: int
    """Size of the weights in the files; of a mixture of experts all experts."""
    token_bytes: int
    """KV cache of one token in the layers with full attention."""
    window_token_bytes: int
    """KV cache of one token in the layers with a sliding window."""
    window: int
    """Length of the sliding window in tokens; 0 where no layer has one."""
    state_bytes: int
    """States of the layers with linear attention, per sequence of any length."""
    number_bytes: int
    """Size of a number in the KV cache: 2 in half precision."""
    layers: int
    """Number of layers with full attention and their own keys and values."""
    window_layers: int
    """Number of layers with a sliding window and their own keys and values."""
    state_layers: int
    """Number of layers with linear attention."""

    def kv_parts(self, tokens: int) -> Sequence[CachePart]:
        """Return the KV cache of one sequence of so many tokens."""
        return (
            CachePart(tokens, self.token_bytes),
            CachePart(min(tokens, self.window), self.window_token_bytes, "in windows"),
            CachePart(1, self.state_bytes, "of states"),
        )

    def kv_bytes(self, tokens: int) -> int:
        """Return the size of the KV cache of one sequence."""
        return sum(part.size_bytes for part in self.kv_parts(tokens))

    def in_single_precision(self, parameters: int) -> ModelMemory:
        """Return the memory in single precision, as in this process on a CPU, unpacked."""
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
    """Estimated memory of a model on a device."""

    weights_bytes: int
    kv_parts: Sequence[CachePart]
    tokens: int
    """Tokens of prompt and answer."""
    work_bytes: int = WORK_BYTES

    @property
    def kv_bytes(self) -> int:
        """Size of the KV cache."""
        return sum(part.size_bytes for part in self.kv_parts)

    @property
    def total_bytes(self) -> int:
        """Sum of weights, KV cache and working memory."""
        return self.weights_bytes + self.kv_bytes + self.work_bytes


def estimate_memory(
    memory: ModelMemory, context_length: int, tokens: int = PROPOSAL_TOKENS
) -> MemoryEstimate:
    """Return the memory of a model in this process for one sequence within its context."""
    tokens = min(tokens, context_length)
    return MemoryEstimate(memory.weights_bytes, memory.kv_parts(tokens), tokens)
