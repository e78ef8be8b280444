"""vLLM's own classes accept the estimated KV cache."""

from __future__ import annotations

import tomllib
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm_server import skip_without_vllm

from localhpo.llm.models import config, profiles
from localhpo.llm.vllm import memory as server_memory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of what vLLM and its torch import
]

TABLE = tomllib.loads(Path(profiles.__file__).with_suffix(".toml").read_text())


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_the_estimate_is_enough_for_vllm(name: str, devices: int) -> None:
    skip_without_vllm()
    from vllm.v1.core import kv_cache_utils

    memory = config.parse_shape(TABLE[name]["config"], devices).cache
    for tokens, block, in_flight in product((2048, 8192, 131_072), (16, 128), (2048, 4096)):
        # One answer: the smallest cache that is ever asked for.
        needed = server_memory.estimate_memory(memory, tokens, tokens, answers=1)
        layers = specs(TABLE[name]["config"], block, devices)
        (made,) = kv_cache_utils.get_kv_cache_configs(
            engine(tokens, in_flight, devices), [layers], [needed.kv_bytes]
        )
        assert made.num_blocks > 1


def engine(tokens: int, in_flight: int, devices: int) -> Any:
    """Return the settings that vLLM reads: those of a GPU with prefix caching."""
    from vllm.v1.kv_cache_layout import KVCacheLayout

    return SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=tokens, original_max_model_len=tokens),
        parallel_config=SimpleNamespace(
            decode_context_parallel_size=1, tensor_parallel_size=devices
        ),
        scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=False),
        cache_config=SimpleNamespace(
            num_gpu_blocks_override=None,
            mamba_cache_mode="align",
            prefix_cache_retention_interval=0,
            get_resolved_kv_cache_layout=lambda: KVCacheLayout.LBNHC,
        ),
        attention_config=SimpleNamespace(hisparse_config=None),
        speculative_config=None,
        num_prefill_lookahead_tokens=0,
        max_in_flight_tokens=in_flight,
    )


def specs(said: dict[str, Any], block: int, devices: int) -> dict[str, Any]:
    """Return vLLM's description of each layer on one device, from transformers' class."""
    from transformers import AutoConfig

    given = {key: value for key, value in said.items() if key != "quantization_config"}
    config = AutoConfig.for_model(**given)
    count = config.num_hidden_layers
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * count
    own = config.per_layer_config if config.is_heterogeneous else [config] * count
    has_states = "linear_attention" in kinds
    return {str(i): spec(own[i], kinds[i], block, has_states, devices) for i in range(count)}


def spec(config: Any, kind: str, block: int, has_states: bool, devices: int) -> Any:
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, MambaSpec, SlidingWindowSpec

    heads = max(1, config.num_key_value_heads // devices)  # ModelConfig.get_num_kv_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if has_states:  # as Platform._align_hybrid_block_size does it
        a_token = 2 * heads * width * 2
        state = MambaSpec(block_size=-1, **states(config, devices)).page_size_bytes
        block *= -(-state // (block * a_token))
        if kind == "linear_attention":
            page = block * a_token
            return MambaSpec(block_size=block, page_size_padded=page, **states(config, devices))
    of_token = {"num_kv_heads": heads, "head_size": width, "dtype": torch.bfloat16}
    if kind == "sliding_attention":
        return SlidingWindowSpec(block_size=block, sliding_window=config.sliding_window, **of_token)
    return FullAttentionSpec(block_size=block, **of_token)


def states(config: Any, devices: int) -> dict[str, Any]:
    import torch

    keys = config.linear_num_key_heads * config.linear_key_head_dim
    heads, width = config.linear_num_value_heads, config.linear_value_head_dim
    convolved = (config.linear_conv_kernel_dim - 1, (2 * keys + heads * width) // devices)
    recurrent = (heads // devices, config.linear_key_head_dim, width)
    return {"shapes": (convolved, recurrent), "dtypes": (torch.bfloat16, torch.float32)}
