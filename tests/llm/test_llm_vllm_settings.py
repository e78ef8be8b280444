"""What vLLM is started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from localhpo.llm.vllm.settings import Settings, command


def flags(folder: Path, *, on_cpu: bool, context_tokens: int = 2048, **chosen: Any) -> list[str]:
    settings = Settings(**chosen)
    return command(
        settings, folder, context_tokens=context_tokens, name="m", port=1, on_cpu=on_cpu
    )


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


def test_a_cpu_is_told_no_share(sprout: Path) -> None:
    assert SHARE not in flags(sprout, on_cpu=True)
