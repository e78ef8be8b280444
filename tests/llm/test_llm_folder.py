"""Descriptions of model folders, compared with transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_model import edit_json, make_model

from localhpo.errors import CardError
from localhpo.llm.models import config, description, thinking, weights

MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
LAYERS = 12

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "grouped queries": ("llama", {}),
    "one head of keys": ("llama", {"num_key_value_heads": 1}),
    "heads wider than the model": ("qwen3", {"head_dim": 48}),
    "windows that are switched off": ("qwen2", {"sliding_window": 16, "use_sliding_window": False}),
    "windows from a layer on": (
        "qwen2",
        {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 5},
    ),
    "windows everywhere": ("mistral", {"sliding_window": 16}),
    "windows in every other layer": ("gemma2", {"sliding_window": 16, "head_dim": 16}),
    "five windows to one": ("gemma3_text", {"sliding_window": 16, "head_dim": 16}),
    "three windows to one": ("cohere2", {"sliding_window": 16}),
    "mixture of experts": ("qwen3_moe", {**MOE, "num_experts": 8, "head_dim": 16}),
    "mixture of experts with windows": (
        "gpt_oss",
        {"sliding_window": 16, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "full layers with heads of their own": (
        "gemma4_text",
        {
            "sliding_window": 16,
            "head_dim": 16,
            "global_head_dim": 32,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "hidden_size_per_layer_input": 0,
        },
    ),
    "layers that share keys": (
        "gemma4_text",
        {
            "sliding_window": 16,
            "head_dim": 16,
            "global_head_dim": 32,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 512,
            "num_kv_shared_layers": 4,
        },
    ),
    "linear attention": (
        "qwen3_5_text",
        {
            "head_dim": 32,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 24,
        },
    ),
    "latent attention": (
        "deepseek_v3",
        {
            **MOE,
            "kv_lora_rank": 32,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 20,
            "q_lora_rank": 24,
            "n_routed_experts": 4,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "num_key_value_heads": 4,
        },
    ),
}
UNSAID = (
    "layer_types", "per_layer_config", "global_head_dim", "num_global_key_value_heads",
    "full_attention_interval",
)  # fmt: skip
"""What transformers writes, or leaves out, when it saves: published files are as their maker wrote
them."""


def build(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    name, own = KINDS[kind]
    common = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "eos_token_id": 0,
        "bos_token_id": None,
        "pad_token_id": 0,
        "dtype": "float32",
    }
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**common, **own})).eval()


def cached_bytes(model: Any, tokens: int) -> tuple[int, int]:
    """Return the cache size of a model after so many tokens, and its number of window layers."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(torch.arange(tokens)[None] % 500, past_key_values=cache, use_cache=True)
    held = 0
    for layer in cache.layers:
        for state in vars(layer).values():
            parts = state.values() if isinstance(state, dict) else [state]
            kept = (part for part in parts if isinstance(part, torch.Tensor) and part.ndim)
            held += sum(part.nbytes for part in kept)
    return held, sum("Sliding" in type(layer).__name__ for layer in cache.layers)


def as_published(model: Any, kind: str, folder: Path) -> Mapping[str, Any]:
    """Return config.json as published: without the defaults of its class."""
    model.config.save_pretrained(folder)
    saved = json.loads((folder / "config.json").read_text())
    return {k: v for k, v in saved.items() if k not in UNSAID} | KINDS[kind][1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_kv_cache_has_the_size_of_that_in_transformers(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    saved = (tmp_path, as_published(model, kind, tmp_path))
    for said in (config.read_config(saved[0]), saved[1]):
        memory = config.parse_shape(said).cache
        assert memory.number_bytes == 4  # made in single precision
        for tokens in (10, 200):
            held, windows = cached_bytes(model, tokens)
            a_token = windows and memory.window_token_bytes
            # transformers keeps one token less than the window, a server all of them.
            assert held <= memory.kv_bytes(tokens) <= held + (a_token if tokens > 16 else 0)


def test_chunked_attention_counts_as_full_attention() -> None:
    """In a vLLM server they keep every token, in transformers they do not."""
    kinds = ["chunked_attention"] * 3 + ["full_attention"]
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 512}
    said = {**sizes, "num_hidden_layers": 4, "max_position_embeddings": 1024}
    memory = config.parse_shape(said | {"layer_types": kinds, "attention_chunk_size": 16}).cache
    assert (memory.layers, memory.window_layers) == (4, 0)
    assert memory.kv_bytes(100) == 100 * 4 * (2 * 64) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_all_parameters_are_counted(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert (tmp_path / weights.INDEX).is_file()
    found = weights.summarize_weights(
        weights.read_headers(tmp_path), config.parse_shape(config.read_config(tmp_path))
    )
    held = saved_once(model)
    assert found.parameters == sum(tensor.numel() for tensor in held)
    assert (found.size_bytes, found.dtype) == (sum(tensor.nbytes for tensor in held), "float32")


def saved_once(model: Any) -> list[Any]:
    """Return each tensor that is saved; a tied embedding once."""
    return list({tensor.data_ptr(): tensor for tensor in model.state_dict().values()}.values())


PACKED: dict[str, tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]], int]] = {
    "gptq": (
        {"quant_method": "gptq", "bits": 4},
        {
            "l.qweight": ("I32", (8, 64)),
            "l.qzeros": ("I32", (1, 8)),
            "l.scales": ("F16", (1, 64)),
            "l.g_idx": ("I32", (64,)),
        },
        64 * 64,
    ),
    "mxfp4": (
        {"quant_method": "mxfp4"},
        {"e.gate_blocks": ("U8", (2, 6, 3, 16)), "e.gate_scales": ("U8", (2, 6, 3))},
        2 * 6 * 96,
    ),
    "fp8": (
        {"quant_method": "fp8"},
        {"l.weight": ("F8_E4M3", (32, 64)), "l.weight_scale_inv": ("F32", (1, 1))},
        32 * 64,
    ),
    "bitsandbytes": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"l.weight": ("U8", (1024, 1)), "l.weight.absmax": ("U8", (32,))},
        2048,
    ),
    "compressed-tensors": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
        },
        {"l.weight_packed": ("I32", (64, 8)), "l.weight_shape": ("I64", (2,))},
        64 * 64,
    ),
}


@pytest.mark.parametrize("kind", PACKED)
def test_quantized_weights_count_as_their_parameters(kind: str) -> None:
    packing, tensors, parameters = PACKED[kind]
    said = {
        "model_type": "llama", "num_hidden_layers": 1, "hidden_size": 64, "vocab_size": 100,
        "num_attention_heads": 4, "max_position_embeddings": 512, "quantization_config": packing,
        "dtype": "bfloat16",
    }  # fmt: skip
    shape = config.parse_shape(said)
    assert shape.quantization.startswith(kind)
    listed = {name: weights.TensorHeader(dtype, dims, 1) for name, (dtype, dims) in tensors.items()}
    assert weights.summarize_weights(listed, shape).parameters == parameters


def test_a_tied_output_layer_is_not_counted_twice() -> None:
    tensors = {
        "model.embed_tokens.weight": weights.TensorHeader("BF16", (100, 64), 12_800),
        "lm_head.weight": weights.TensorHeader("BF16", (100, 64), 12_800),
    }
    said = {
        "model_type": "qwen3", "num_hidden_layers": 1, "hidden_size": 64, "vocab_size": 100,
        "num_attention_heads": 4, "max_position_embeddings": 512, "tie_word_embeddings": True,
    }  # fmt: skip
    found = weights.summarize_weights(tensors, config.parse_shape(said))
    assert (found.parameters, found.size_bytes, found.dtype) == (6_400, 12_800, "bfloat16")


def test_missing_values_in_config_json_are_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "tiny")
    edit_json(folder / "config.json", max_position_embeddings=None)
    with pytest.raises(CardError, match="must have max_position_embeddings"):
        config.parse_shape(config.read_config(folder))


NO_DECODERS = (
    {"architectures": ["BertForMaskedLM"], "model_type": "bert"},
    {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
    },
    {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"},
    {"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"},
    {"architectures": ["LlamaForCausalLM"]},
    {},
)


@pytest.mark.parametrize("said", NO_DECODERS)
def test_models_that_are_not_causal_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises(CardError, match="must describe a causal language model"):
        config.check_architecture(said)


# Licenses


@pytest.mark.parametrize(
    ("readme", "text", "found"),
    [
        ("---\nlicense: apache-2.0\ntags:\n- license: mit\n---\n# A", "", "Apache-2.0"),
        ('---\nlibrary_name: x\nlicense: "llama3.1"\n---\n', "MIT License", "llama3.1"),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", "", "qwen-research"),
        ("# A model\n\nlicense: mit\n", "", "unknown"),
        ("", "            Apache License\n       Version 2.0, January 2004\n", "Apache-2.0"),
        ("", "Permission is hereby granted, free of charge, to any person", "MIT"),
        ("", "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n", "llama3.2"),
        ("", "All rights reserved.", "unknown"),
    ],
)
def test_the_license_is_found(readme: str, text: str, found: str, tmp_path: Path) -> None:
    if readme:
        (tmp_path / "README.md").write_text(readme)
    if text:
        (tmp_path / "LICENSE.txt").write_text(text)
    assert description.read_license(tmp_path) == found


# Thinking


TURN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
TEMPLATES: dict[str, tuple[str, dict[str, Any], str]] = {
    "no thinking": (TURN + "<assistant>", {}, ""),
    "a switch": (
        TURN + "<assistant>\n{%- if enable_thinking is defined and enable_thinking is false %}"
        "{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif %}",
        {"enable_thinking": False},
        "",
    ),
    "a reasoning block is always opened": (
        TURN + "{% if add_generation_prompt %}{{ '<assistant><think>\\n' }}{% endif %}",
        {},
        "\n</think>\n\n",
    ),
    "a switch, else a reasoning block is opened": (
        TURN + "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}",
        {"enable_thinking": False},
        "",
    ),
    "effort and channels": (
        "{{ reasoning_effort }}" + TURN + "<|channel|><|message|>"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        {"reasoning_effort": "low"},
        "<|channel|>final<|message|>",
    ),
    "effort that can be none": (
        "{% if reasoning_effort not in ['none', 'high'] %}{{ raise_exception('no') }}{% endif %}"
        + TURN,
        {"reasoning_effort": "none"},
        "",
    ),
    "no system message": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}"
        "{{ strftime_now('%d') }}<think>",
        {},
        "\n\n</think>\n\n",
    ),
    "not Jinja": ("{% if", {}, ""),
    "reaches out": ("{{ messages.__class__.__mro__ }}<think>", {}, ""),
    "none": ("", {}, ""),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_reasoning_is_switched_off_by_the_template(name: str) -> None:
    template, kwargs, prefix = TEMPLATES[name]
    assert thinking.find_switch(template) == thinking.ThinkingSwitch(kwargs, prefix)


def test_the_chat_template_is_found(tmp_path: Path) -> None:
    assert thinking.read_chat_template(tmp_path) == ""
    several = [{"name": "tool_use", "template": "B"}, {"name": "default", "template": "A"}]
    for told, found in ((several, "A"), ("C", "C"), (None, "")):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": told}))
        assert thinking.read_chat_template(tmp_path) == found
    (tmp_path / "chat_template.jinja").write_text("D")
    assert thinking.read_chat_template(tmp_path) == "D"
