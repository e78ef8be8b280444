"""Memory of a server, computed by hand; test_llm_vllm_memory.py compares it with vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from localhpo.llm.models import profiles
from localhpo.llm.models.memory import ModelMemory
from localhpo.llm.vllm import memory as server_memory

GIB = 2**30


def memory(**changes: int) -> ModelMemory:
    given: dict[str, Any] = {
        "weights_bytes": 7,
        "token_bytes": 0,
        "window_token_bytes": 0,
        "window": 0,
        "state_bytes": 0,
        "number_bytes": 2,
        "layers": 0,
        "window_layers": 0,
        "state_layers": 0,
    }
    return ModelMemory(**(given | changes))


def parts(memory: ModelMemory, tokens: int = 8192, **options: int) -> list[tuple[int, int]]:
    needed = server_memory.estimate_memory(memory, 10**6, tokens, **options)
    return [(part.count, part.each_bytes) for part in needed.kv_parts if part.each_bytes]


ONE = 100
"""Bytes of a token in one layer."""


def windowed(full: int, windows: int, window_one: int = ONE) -> ModelMemory:
    return memory(
        layers=full,
        token_bytes=full * ONE,
        window_layers=windows,
        window_token_bytes=windows * window_one,
        window=512,
    )


@pytest.mark.parametrize(
    ("memory", "full", "in_windows"),
    [
        (memory(layers=36, token_bytes=3601), 3601, 0),  # layers of one kind may differ
        (windowed(0, 32), 0, 32 * ONE),
        (windowed(12, 12), 12 * ONE, 12 * ONE),
        (windowed(5, 29), 5 * ONE, 30 * ONE),  # six groups of five
        (windowed(13, 12), 13 * ONE, 13 * ONE),  # nearly as many: one group of each
        (windowed(5, 25, 2 * ONE), 5 * ONE, 25 * 2 * ONE),  # its pages have half the tokens
        (windowed(5, 25, 3 * ONE // 2), 5 * 3 * ONE // 2, 25 * 3 * ONE // 2),  # filled up
    ],
)
def test_layers_are_grouped_with_equal_pages(
    memory: ModelMemory, full: int, in_windows: int
) -> None:
    tokens = 4096 + 8 * 1024
    wanted = [(tokens, full), (tokens, in_windows)]
    assert parts(memory, 4096) == [part for part in wanted if part[1]]


def test_a_window_includes_the_tokens_of_two_steps() -> None:
    own = 8 * 1024
    counts = [count for count, _ in parts(windowed(1, 1), tokens=100_000)]
    assert counts == [100_000 + own, 512 + 2 * 2048 + own]
    counts = [count for count, _ in parts(windowed(1, 1), tokens=100_000, in_flight=100_000)]
    assert counts == [100_000 + own] * 2


def test_pages_are_enlarged_to_hold_a_state() -> None:
    hybrid = memory(layers=8, token_bytes=8 * 4096, state_layers=24, state_bytes=24 * 2_000_000)
    page = 4 * 128 * 4096  # the first that holds a state
    assert parts(hybrid)[1] == (1 + 8, (2 * 3 + 1) * 8 * page)
    alone = memory(state_layers=4, state_bytes=4 * 100)
    assert parts(alone) == [(1 + 8, 2 * 4 * 100)]


def test_memory_is_for_the_answers_at_a_time() -> None:
    plain = memory(layers=2, token_bytes=10)
    assert parts(plain, answers=2) == [(8192 + 2 * 1024, 10)]
    assert parts(plain, answers=64) == [(8192 + 8 * 1024, 10)]


def test_tokens_are_limited_by_the_context() -> None:
    needed = server_memory.estimate_memory(memory(layers=1, token_bytes=10), context_length=2048)
    assert (needed.tokens, needed.kv_bytes) == (2048, (2048 + 8192) * 10)
    assert needed.total_bytes == 7 + needed.kv_bytes + 2 * GIB


def test_known_memory_needs() -> None:
    known = {"qwen3-8b": 2.25, "gemma-3-4b-it": 1.84, "gpt-oss-20b": 0.66, "qwen3.5-4b": 1.73}
    for name, gib in known.items():
        profile = profiles.read_profiles()[name]
        kv_bytes = server_memory.estimate_memory(
            profile.memory, profile.shape.context_length
        ).kv_bytes
        assert kv_bytes / GIB == pytest.approx(gib, abs=0.005)
