"""Arguments and environment of a vLLM server."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_model import make_model
from vllm_server import skip_without_vllm

from localhpo.llm.models import registration
from localhpo.llm.vllm import memory as server_memory
from localhpo.llm.vllm.settings import Settings, server_command


def flags(folder: Path, *, on_cpu: bool, context_tokens: int = 2048, **chosen: Any) -> list[str]:
    settings = Settings(**chosen)
    return server_command(
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
def test_a_shared_gpu_is_enough_for_a_start(
    sprout: Path, chosen: dict[str, Any], share: str, has_kv: bool
) -> None:
    """By default vLLM refuses to start if more than 8 % of the device is in use."""
    argv = flags(sprout, on_cpu=False, **chosen)
    assert value(argv, SHARE) == share
    assert (value(argv, KV) is not None) == has_kv


def test_the_step_size_is_that_of_the_estimate(sprout: Path) -> None:
    step = "--max-num-batched-tokens"
    assert value(flags(sprout, on_cpu=False), step) == str(server_memory.STEP_TOKENS)
    assert value(flags(sprout, on_cpu=False, answers=4096), step) == "4096"
    assert value(flags(sprout, on_cpu=True, context_tokens=4096), step) == "4096"


@pytest.mark.parametrize(("gpus", "heads"), [(("0", "1"), 1), (("0", "1", "2", "3"), 1)])
def test_each_device_of_a_split_model_holds_a_part(
    tmp_path: Path, gpus: tuple[str, ...], heads: int
) -> None:
    folder = make_model(tmp_path / "Oak", num_hidden_layers=8)  # of two heads of keys
    _, _, whole = registration.measure_model(folder)
    _, _, part = registration.measure_model(folder, len(gpus))
    assert part.token_bytes == whole.token_bytes * heads / 2
    assert part.weights_bytes == whole.weights_bytes // len(gpus)
    argv = flags(folder, on_cpu=False, gpus=gpus)
    assert value(argv, "--tensor-parallel-size") == str(len(gpus))
    assert flags(folder, on_cpu=False, gpu_count=len(gpus)) == argv  # whichever devices it is given
    needed = server_memory.estimate_memory(part, 2048, 2048, answers=Settings().answers)
    assert value(argv, KV) == str(needed.kv_bytes)


def test_a_cpu_gets_no_memory_share(sprout: Path) -> None:
    assert SHARE not in flags(sprout, on_cpu=True)


def test_the_kv_cache_on_a_gpu_is_that_of_the_card(tmp_path: Path) -> None:
    windows = {"sliding_window": 16, "sliding_window_pattern": 2, "head_dim": 16}
    folder = make_model(tmp_path / "Oak", "gemma3_text", **windows)
    memory = registration.build_card(folder, "oak").memory
    assert memory is not None and memory.window_layers
    needed = server_memory.estimate_memory(memory, 2048, 1000).kv_bytes
    assert value(flags(folder, on_cpu=False, context_tokens=1000), KV) == str(needed)
    fewer = flags(folder, on_cpu=False, context_tokens=1000, answers=2)
    assert int(value(fewer, KV) or 0) < needed


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_chosen_kv_cache_size_is_used(sprout: Path, on_cpu: bool) -> None:
    assert value(flags(sprout, on_cpu=on_cpu, kv_cache_mb=300), KV) == str(300 * 2**20)


def test_a_cpu_has_memory_for_a_context_and_its_answers(sprout: Path) -> None:
    _, _, memory = registration.measure_model(sprout)
    single = memory.in_single_precision(parameters=0)
    assert value(flags(sprout, on_cpu=True), KV) == str(256 * 2**20)
    long = server_memory.estimate_memory(single, 2**20, 2**20, in_flight=2**20).kv_bytes
    assert value(flags(sprout, on_cpu=True, context_tokens=2**20), KV) == str(long)


def test_duplicate_weights_count_once(sprout: Path, tmp_path: Path) -> None:
    """A Mistral folder has the weights again in another file, which no server reads."""
    folder = shutil.copytree(sprout, tmp_path / "copy")
    with (folder / "consolidated.safetensors").open("wb") as file:
        file.truncate(10**9)
    assert value(flags(folder, on_cpu=True), "--dtype") == "float32"  # for it is small


LAYERS = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
STATES = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "head_dim": 32,
}
MODELS: dict[str, tuple[bool, dict[str, Any]]] = {
    "llama": (False, {}),
    "gemma3_text": (False, {"head_dim": 16}),
    "qwen3_next": (
        True,
        {**LAYERS, **STATES, "num_experts": 2, "num_experts_per_tok": 1}
        | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    ),
    "qwen3_5_text": (True, {**LAYERS, **STATES}),
    "olmo_hybrid": (True, {**LAYERS, **STATES}),
    "lfm2": (True, {"layer_types": ["conv", "full_attention"]}),
    "falcon_h1": (
        True,
        {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16},
    ),
}
"""Type of a model -> whether it keeps states, and sizes."""


@pytest.mark.parametrize("kind", MODELS)
def test_models_with_states_cache_no_prefixes_on_a_cpu(kind: str, tmp_path: Path) -> None:
    keeps_states, sizes = MODELS[kind]
    folder = make_model(tmp_path / kind, kind, **sizes)
    assert ("--no-enable-prefix-caching" in flags(folder, on_cpu=True)) is keeps_states
    assert ("--enable-prefix-caching" in flags(folder, on_cpu=True)) is not keeps_states
    assert "--enable-prefix-caching" in flags(folder, on_cpu=False)
    assert value(flags(folder, on_cpu=True), "--dtype") == (
        "bfloat16" if keeps_states else "float32"
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what vLLM and its torch import
@pytest.mark.parametrize(
    "kind", sorted(MODELS.keys() - {"qwen3_5_text"})
)  # it needs torchvision there
def test_vllm_accepts_the_arguments(kind: str, tmp_path: Path) -> None:
    """Its own check of a whole configuration, which loads no weights.

    That of Qwen 3.5 imports torchvision, which is no part of the environment on a CPU.
    """
    skip_without_vllm()
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    folder = make_model(tmp_path / kind, kind, **MODELS[kind][1])
    argv = flags(folder, on_cpu=True)[3:]
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(argv)
    made = AsyncEngineArgs.from_cli_args(parsed).create_engine_config()
    assert made.model_config.is_hybrid is MODELS[kind][0]
    assert made.cache_config.enable_prefix_caching is not MODELS[kind][0]
