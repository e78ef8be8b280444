"""Estimates the memory of a vLLM server, for its start and for `localhpo doctor`.

vLLM refuses to start with a KV cache that cannot hold one sequence of the whole context, and has
its own layout (vllm/v1/core/kv_cache_utils.py of version 0.32). Layers of one kind are put into
groups of G layers, the last group padded; all groups take blocks of one size, G pages, from one
pool. A block holds some tokens for G layers:

- full attention takes a block for those tokens in each of its groups;
- a sliding window takes the same for the window and the tokens of two steps;
- linear attention takes two blocks in each of its groups, for any length, and pages are enlarged
  until one holds a state, so that a page of the other layers holds more tokens;
- one block is reserved, and the last block of each sequence is half empty on average.

The estimate below is never lower (`tests/llm/test_llm_vllm_memory.py` compares it with vLLM), and
includes several answers besides the prompt that they share. When the cache is full, vLLM queues
answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from localhpo.llm.models.memory import PROPOSAL_TOKENS, CachePart, MemoryEstimate, ModelMemory

STEP_TOKENS = 2048
"""Tokens of a step: vLLM's default on devices below 70 GB and on CPUs. On larger devices its
default is higher, which needs more memory for steps and windows."""

WORK_BYTES = 2 * 2**30
"""Memory besides weights and KV cache: half a GiB for the CUDA context, activations, buffers of
attention and CUDA graphs. An estimate, not yet measured."""

AT_ONCE = 8
"""Number of answers with memory at the same time: those of two proposals. A small model generates
more at a time, but shorter ones."""

_ANSWER_TOKENS = 1024
"""Largest number of tokens of an answer."""
_IN_FLIGHT = 2 * STEP_TOKENS
"""Largest number of tokens in unfinished steps: one step is scheduled during another."""
_BLOCK_TOKENS = 128
"""Tokens of the largest attention block; the other sizes divide it."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Layout of vLLM's KV cache for a model, in bytes. See the module."""

    token_bytes: int
    window_token_bytes: int
    sequence_bytes: int
    """States of a sequence, with the unused part of their enlarged pages."""


def estimate_memory(
    memory: ModelMemory,
    context_length: int,
    tokens: int = PROPOSAL_TOKENS,
    *,
    answers: int = AT_ONCE,
    in_flight: int = _IN_FLIGHT,
) -> MemoryEstimate:
    """Return the memory of a server on its device.

    Args:
        memory: Memory of its model.
        context_length: Context length of the model, in tokens.
        tokens: Tokens of prompt and answer of a sequence; at most the context length.
        answers: Number of answers at a time; those beyond `AT_ONCE` are queued.
        in_flight: Largest number of tokens in unfinished steps; by default as on a GPU.
    """
    tokens = min(tokens, context_length)
    at_once = min(answers, AT_ONCE)
    own = at_once * _ANSWER_TOKENS
    layout = _layout(memory)
    seen = min(tokens, memory.window + in_flight)
    parts = (
        CachePart(tokens + own, layout.token_bytes),
        CachePart(seen + own, layout.window_token_bytes, "in windows"),
        CachePart(1 + at_once, layout.sequence_bytes, "of states"),
    )
    return MemoryEstimate(memory.weights_bytes, parts, tokens, WORK_BYTES)


def _layout(memory: ModelMemory) -> _Layout:
    counts = (memory.layers, memory.window_layers, memory.state_layers)
    size = _group_size([count for count in counts if count])
    full, windowed, states = (-(-count // size) for count in counts)
    token, window_token = _of_equal_pages(
        memory.token_bytes // max(memory.layers, 1),
        memory.window_token_bytes // max(memory.window_layers, 1),
    )
    page = _page(memory.state_bytes // max(memory.state_layers, 1), token)
    if not windowed and not states:  # one group, whose layers may differ
        return _Layout(memory.token_bytes, 0, 0)
    return _Layout(
        token_bytes=full * size * token,
        window_token_bytes=windowed * size * window_token,
        sequence_bytes=(2 * states + full) * size * page if states else 0,
    )


def _group_size(counts: Sequence[int]) -> int:
    """Return the number of layers in a group.

    That of the rarest kind, or of the most frequent one if all are nearly equal, as in vLLM's
    `_get_kv_cache_groups_uniform_page_size`.
    """
    least, most = min(counts, default=1), max(counts, default=1)
    return most if most < 1.5 * least else least


def _of_equal_pages(token: int, window_token: int) -> tuple[int, int]:
    """Return the bytes of a token in both kinds of layers after their pages have one size.

    The smaller page takes more tokens if its size divides the larger one; else it is padded.
    """
    largest = max(token, window_token)
    token, window_token = (
        largest if size and largest % size else size for size in (token, window_token)
    )
    return token, window_token


def _page(state: int, token: int) -> int:
    """Return the size of a page that holds a state: a multiple of an attention block."""
    block = _BLOCK_TOKENS * token
    return -(-state // block) * block if block else state
