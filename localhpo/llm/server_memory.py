"""How much memory a server of vLLM takes: what it is started with, and what `doctor` holds it to.

vLLM refuses to start with a KV cache that cannot hold one sequence of the whole context, and counts
that in its own way (vllm/v1/core/kv_cache_utils.py of version 0.32). Layers of one kind are put
into groups of G layers, the last one filled up; all groups draw blocks of one size, G pages, from
one pool. So, with a block for some tokens of G layers:

- layers that see everything take a block for those tokens, in each of their groups;
- layers with a window take the same for their window and what is read in two steps;
- layers with linear attention take two blocks in each of their groups, whatever the length, and a
  page is made so large that it holds a state: that of the other layers has more tokens then;
- one block is nobody's, and each sequence leaves its last one half empty.

The sum below is never less (`tests/llm/test_llm_vllm_memory.py` asks vLLM), and has room for
answers beside the prompt that they share. When it is used up vLLM lets answers wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from localhpo.llm.memory import PROPOSAL_TOKENS, CachePart, MemoryEstimate, ModelMemory

STEP_TOKENS = 2048
"""Read at a time: what vLLM takes on a device of less than 70 GB, and on a CPU. On a larger one it
would take more, and then more memory, for steps and windows."""

WORK_BYTES = 2 * 2**30
"""Beside weights and KV cache: half a GiB for CUDA's context, what a step computes, buffers of
attention and CUDA graphs. Estimated, not yet measured."""

AT_ONCE = 8
"""Answers with room beside each other: those of two proposals. A small model is asked for more,
but each of them is then short."""

_ANSWER_TOKENS = 1024
"""Of one answer, at the most."""
_IN_FLIGHT = 2 * STEP_TOKENS
"""Tokens that are read and not yet settled, at the most: one step is planned during another."""
_BLOCK_TOKENS = 128
"""In the largest block of attention; others divide it."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """What vLLM takes for a model, in bytes. See the module."""

    token_bytes: int
    window_token_bytes: int
    sequence_bytes: int
    """Of states, with what their large pages leave empty."""


def estimate_memory(
    memory: ModelMemory,
    context_length: int,
    tokens: int = PROPOSAL_TOKENS,
    *,
    answers: int = AT_ONCE,
    in_flight: int = _IN_FLIGHT,
) -> MemoryEstimate:
    """Return what a server takes on its device.

    Args:
        memory: Of its model.
        context_length: Of the model, in tokens.
        tokens: Of prompt and answer that a sequence may have; no more than the context.
        answers: Drawn at a time; more than `AT_ONCE` wait.
        in_flight: Tokens that are read and not yet settled, at the most; by default as on a GPU.
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
    """Return how many layers a group has: as the kind with the fewest, or nearly equal, the most.

    As `_get_kv_cache_groups_uniform_page_size` has it.
    """
    least, most = min(counts, default=1), max(counts, default=1)
    return most if most < 1.5 * least else least


def _of_equal_pages(token: int, window_token: int) -> tuple[int, int]:
    """Return the bytes of a token in both kinds of layers, once their pages are of one size.

    The smaller page gets more tokens where it divides the larger, and is else filled up.
    """
    largest = max(token, window_token)
    token, window_token = (
        largest if size and largest % size else size for size in (token, window_token)
    )
    return token, window_token


def _page(state: int, token: int) -> int:
    """Return the bytes of a page that holds a state, and so many tokens."""
    block = _BLOCK_TOKENS * token
    return -(-state // block) * block if block else state
