"""What vLLM is started with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_model import make_model

from localhpo.llm import adding, served
from localhpo.llm.vllm.settings import Settings, command


def flags(folder: Path, *, on_cpu: bool, context_tokens: int = 2048, **chosen: Any) -> list[str]:
    settings = Settings(**chosen)
    return command(settings, folder, context_tokens=context_tokens, name="m", port=1, on_cpu=on_cpu)


def value(argv: list[str], flag: str) -> str | None:
    return argv[argv.index(flag) + 1] if flag in argv else None


SHARE, KV = "--gpu-memory-utilization", "--kv-cache-memory-bytes"


@pytest.mark.parametrize(
    ("chosen", "share", "has_kv"),
    [
        ({}, "0.01", True),
        ({"kv_cache_mb": 300}, "0.01", True),
        ({"gpu_share": 0.5}, "0.5", False),
        ({"gpu_share": 0.5, "kv_cache_mb": 300}, "0.5", True),
    ],
)
def test_a_gpu_that_others_use_is_enough_for_a_start(
    sprout: Path, chosen: dict[str, Any], share: str, has_kv: bool
) -> None:
    """By default vLLM would refuse where more than 8 % of the device is in use."""
    argv = flags(sprout, on_cpu=False, **chosen)
    assert value(argv, SHARE) == share
    assert (value(argv, KV) is not None) == has_kv


def test_what_is_read_at_a_time_is_what_the_sum_counts(sprout: Path) -> None:
    step = "--max-num-batched-tokens"
    assert value(flags(sprout, on_cpu=False), step) == str(served.STEP_TOKENS)
    assert value(flags(sprout, on_cpu=False, answers=4096), step) == "4096"
    assert value(flags(sprout, on_cpu=True, context_tokens=4096), step) == "4096"


def test_a_cpu_is_told_no_share(sprout: Path) -> None:
    assert SHARE not in flags(sprout, on_cpu=True)


def test_a_gpu_gives_what_a_card_says(tmp_path: Path) -> None:
    windows = {"sliding_window": 16, "sliding_window_pattern": 2, "head_dim": 16}
    folder = make_model(tmp_path / "Oak", "gemma3_text", **windows)
    memory = adding.draft(folder, "oak").memory
    assert memory is not None and memory.window_layers
    needed = served.need(memory, 2048, 1000).kv_bytes
    assert value(flags(folder, on_cpu=False, context_tokens=1000), KV) == str(needed)
    fewer = flags(folder, on_cpu=False, context_tokens=1000, answers=2)
    assert int(value(fewer, KV) or 0) < needed


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_size_that_was_chosen_is_taken(sprout: Path, on_cpu: bool) -> None:
    assert value(flags(sprout, on_cpu=on_cpu, kv_cache_mb=300), KV) == str(300 * 2**20)


def test_a_cpu_has_room_for_a_context_and_its_answers(sprout: Path) -> None:
    _, _, memory = adding.measure(sprout)
    single = memory.in_single_precision(parameters=0)
    assert value(flags(sprout, on_cpu=True), KV) == str(256 * 2**20)
    long = served.need(single, 2**20, 2**20, in_flight=2**20).kv_bytes
    assert value(flags(sprout, on_cpu=True, context_tokens=2**20), KV) == str(long)


def test_weights_that_lie_there_twice_count_once(sprout: Path, tmp_path: Path) -> None:
    """A Mistral has them in one file more, which no server reads."""
    folder = shutil.copytree(sprout, tmp_path / "copy")
    with (folder / "consolidated.safetensors").open("wb") as file:
        file.truncate(10**9)
    assert value(flags(folder, on_cpu=True), "--dtype") == "float32"  # for it is small
