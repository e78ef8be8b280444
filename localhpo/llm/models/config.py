"""Reads config.json: architecture, context length, precision, and the size of the KV cache.

Each model type describes its layers in its own way, and newer versions of transformers write what
older ones left to defaults (`layer_types`). The rules below are those of the configuration classes
in transformers; tests compare the sums with its caches.

An unknown kind of layer counts as full attention, which needs at least as much. So does chunked
attention: vLLM keeps all of its tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localhpo.errors import CardError
from localhpo.llm.models.memory import ModelMemory

Config = Mapping[str, Any]

_FULL, _SLIDING, _LINEAR = "full_attention", "sliding_attention", "linear_attention"

_ATTENTION = {"attention", _FULL, _SLIDING, "chunked_attention"}

_NUMBER_BYTES = {"float32": 4, "float64": 8}
"""Bytes of a number, where it is not two."""

_MOST, _MOST_LAYERS = 10**9, 10**5
"""Limits far above any real model; larger numbers are errors."""
_SHOWN_CHARS = 60
"""Number of characters of a value in a message."""
_AGAIN = "save the model again with a newer version of transformers"

_SLIDING_PATTERN = {
    "cohere2": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3_text": 6,
    "gemma3n_text": 5,
    "gemma4_text": 6,
    "gpt_oss": 2,
    "olmo3": 4,
}
"""Model type -> period of its layers, of which the last has full attention and the others a sliding
window; for a config.json that does not list the layers."""
_LINEAR_PATTERN = {"qwen3_next": 4, "qwen3_5_text": 4, "qwen3_5_moe_text": 4}
"""The same with linear attention instead of a sliding window."""

_DEFAULTS: Mapping[str, Config] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "vocab_size": 262208,
    },
}
"""Model type -> values that its published files leave to the defaults of its class."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Description of a model in config.json."""

    architecture: str
    """Model type, such as `qwen3`."""
    context_length: int
    layers: int
    hidden_size: int
    vocab_size: int
    dtype: str
    """Precision of computation, as torch names it; empty if not given."""
    quantization: str
    """Quantization such as `gptq, 4 bit`; empty if weights are not quantized."""
    packed_bits: int
    """Bits of a packed weight; 0 where weights are not packed, or not given."""
    tied: bool
    """Whether the embedding is also the output layer."""
    cache: ModelMemory
    """Size of the KV cache, without weights."""


def read_config(folder: Path) -> Config:
    """Return config.json of a model folder.

    Raises:
        CardError: there is no such file, or it is no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise CardError(f"{folder} is not a model folder: it has no config.json") from exc
    except (OSError, ValueError) as exc:
        raise CardError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(config, dict):
        raise CardError(f"{path} must hold an object, but holds {config!r}")
    return config


def check_architecture(config: Config) -> None:
    """Refuse a model that is not a causal language model.

    Raises:
        CardError: it is an encoder, has an encoder, or names no architecture.
    """
    named = config.get("architectures")
    name = str(named[0]) if isinstance(named, list) and named else "(none)"
    has_text = isinstance(config.get("text_config"), dict)
    continues = name.endswith(("ForCausalLM", "LMHeadModel")) or (
        name.endswith("ForConditionalGeneration") and has_text
    )
    if config.get("is_encoder_decoder") or not continues or "model_type" not in config:
        raise CardError(
            "config.json must describe a causal language model (architectures: ...ForCausalLM, and"
            f" a model_type), but has architectures {name}",
            hint="use a decoder model, such as Qwen, Llama, Gemma, Phi or gpt-oss",
        )


def parse_shape(config: Config, devices: int = 1) -> ModelShape:
    """Return the shape of the language part of a model.

    Args:
        config: The content of config.json.
        devices: Number of devices that vLLM splits the model over; the KV cache is that of one.

    Raises:
        CardError: a required value is missing or invalid.
    """
    try:
        return _shape(config, devices)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
        raise CardError(
            f"config.json is not as transformers writes it: {exc}", hint=_AGAIN
        ) from exc


def _shape(config: Config, devices: int) -> ModelShape:
    text = _text_part(config)
    dtype = str(_first(config, text, "dtype", "torch_dtype") or "")
    quantization, bits = _quantization(config)
    return ModelShape(
        architecture=str(config.get("model_type") or "unknown"),
        context_length=_number(text, "max_position_embeddings"),
        layers=_layer_count(text),
        hidden_size=_number(text, "hidden_size"),
        vocab_size=_number(text, "vocab_size"),
        dtype=dtype,
        quantization=quantization,
        packed_bits=bits,
        tied=bool(_first(text, config, "tie_word_embeddings")),
        cache=_cache(text, _NUMBER_BYTES.get(dtype, 2), devices),
    )


def keeps_states(config: Config) -> bool:
    """Return whether a model has layers that keep a state instead of keys and values.

    Like vLLM's `is_hybrid`, by the kinds of layers where they are listed, else by keys for the
    sizes of states.
    """
    text = _text_part(config)
    if listed := text.get("layer_types") or text.get("layers_block_type"):
        return not _ATTENTION.issuperset(listed)
    own = any("mamba" in key or "ssm" in key for key in text)
    return own or str(text.get("model_type")) in _LINEAR_PATTERN


def _text_part(config: Config) -> Config:
    """Return the language part, with the defaults of its type."""
    text = config.get("text_config", config)
    return {**_DEFAULTS.get(str(text.get("model_type")), {}), **text}


def _cache(text: Config, number_bytes: int, devices: int) -> ModelMemory:
    """Return the KV cache on one device: the sum over layers that do not share that of another."""
    shared = _optional_number(text, "num_kv_shared_layers")
    kinds = _layer_kinds(text)
    kept = kinds[: len(kinds) - shared]
    full: list[int] = []
    windowed: list[int] = []
    for i, kind in enumerate(kept):
        if kind != _LINEAR:
            numbers = _numbers_per_token(text, i, kind, devices)
            (windowed if kind == _SLIDING else full).append(numbers)
    linear = kept.count(_LINEAR)
    return ModelMemory(
        weights_bytes=0,
        token_bytes=sum(full) * number_bytes,
        window_token_bytes=sum(windowed) * number_bytes,
        window=_window(text) if windowed else 0,
        state_bytes=linear * (_state(text, number_bytes) // devices) if linear else 0,
        number_bytes=number_bytes,
        layers=len(full),
        window_layers=len(windowed),
        state_layers=linear,
    )


def _layer_kinds(text: Config) -> Sequence[str]:
    count, kind = _layer_count(text), str(text.get("model_type"))
    if listed := text.get("layer_types"):
        return [str(name) for name in listed]
    if kind in _LINEAR_PATTERN:
        every = _optional_number(text, "full_attention_interval") or _LINEAR_PATTERN[kind]
        return [_LINEAR if (i + 1) % every else _FULL for i in range(count)]
    window = _optional_number(text, "sliding_window")
    if not window or text.get("use_sliding_window") is False:
        return [_FULL] * count
    if window >= _number(text, "max_position_embeddings"):
        return [_FULL] * count  # the window is never exceeded
    if pattern := text.get("sliding_window_pattern") or _SLIDING_PATTERN.get(kind):
        every = len(pattern) if isinstance(pattern, str) else int(pattern)  # "LLLG" is 4
        kinds = [_SLIDING if (i + 1) % every else _FULL for i in range(count)]
        return [*kinds[:-1], _FULL] if kind.startswith("gemma4") else kinds
    first = _optional_number(text, "max_window_layers") if text.get("use_sliding_window") else 0
    return [_SLIDING if i >= first else _FULL for i in range(count)]


def _numbers_per_token(text: Config, layer: int, kind: str, devices: int = 1) -> int:
    """Return how many numbers one layer keeps of one token on each device.

    Heads are divided over the devices, at least one each (vLLM's `get_num_kv_heads`); a latent
    vector, which all heads share, is on each device.
    """
    # Multi-head latent attention: one vector for all heads.
    if latent := _optional_number(text, "kv_lora_rank"):
        return latent + _optional_number(text, "qk_rope_head_dim")
    own = {**text, **_of_layer(text, layer), **(_of_full(text) if kind == _FULL else {})}
    heads = _optional_number(own, "num_key_value_heads") or _number(text, "num_attention_heads")
    width = _optional_number(own, "head_dim") or _number(text, "hidden_size") // _number(
        text, "num_attention_heads"
    )
    return 2 * max(1, heads // devices) * width


def _of_layer(text: Config, layer: int) -> Config:
    """Return the values in which one layer differs, which newer files list by its number."""
    listed = text.get("per_layer_config") or {}
    return next((own for number, own in listed.items() if int(number) == layer), {})


def _of_full(text: Config) -> Config:
    """Return the values in which layers with full attention differ, as in Gemma 4."""
    own: dict[str, Any] = {}
    if width := text.get("global_head_dim"):
        own["head_dim"] = width
    if heads := text.get("num_global_key_value_heads"):
        own["num_key_value_heads"] = heads
    return own


def _state(text: Config, number_bytes: int) -> int:
    """Return the bytes of the state of a linear attention layer: gated delta rule and convolution.

    The recurrent state is in single precision (https://arxiv.org/abs/2412.06464, and Qwen's
    `mamba_ssm_dtype`).
    """
    if "linear_num_value_heads" not in text:
        return _numbers_per_token(text, 0, _FULL) * number_bytes
    keys = _number(text, "linear_num_key_heads") * _number(text, "linear_key_head_dim")
    values = _number(text, "linear_num_value_heads") * _number(text, "linear_value_head_dim")
    convolved = (2 * keys + values) * (_optional_number(text, "linear_conv_kernel_dim") or 4)
    return values * _number(text, "linear_key_head_dim") * 4 + convolved * number_bytes


def _window(text: Config) -> int:
    return _optional_number(text, "sliding_window") or _number(text, "max_position_embeddings")


def _quantization(config: Config) -> tuple[str, int]:
    """Return how weights are quantized, and to how many bits."""
    text: Config = config.get("text_config") or {}
    packing = _first(config, text, "quantization_config") or {}
    method = str(packing.get("quant_method") or "")
    if not method:
        return "", 0
    bits = int(packing.get("bits") or _FIXED_BITS.get(method, 0) or _bits_of_groups(packing))
    if packing.get("load_in_4bit"):
        bits = 4
    return f"{method}, {bits} bit" if bits else method, bits


_FIXED_BITS = {"mxfp4": 4, "fp8": 8}


def _bits_of_groups(packing: Config) -> int:
    """Return the bits of the first group of weights in the format of compressed-tensors."""
    groups = packing.get("config_groups") or {}
    for group in groups.values():
        return int((group.get("weights") or {}).get("num_bits") or 0)
    return 0


def _first(a: Config, b: Config, *keys: str) -> Any:
    return next((part[key] for part in (a, b) for key in keys if part.get(key) is not None), None)


def _layer_count(text: Config) -> int:
    return _number(text, "num_hidden_layers", most=_MOST_LAYERS)


def _number(text: Config, key: str, most: int = _MOST) -> int:
    value = text.get(key)
    if type(value) is not int or not 1 <= value <= most:
        raise CardError(
            f"config.json must have {key}, a positive integer up to {most:,}, but has"
            f" {_short(value)}",
            hint=_AGAIN,
        )
    return value


def _optional_number(text: Config, key: str) -> int:
    """Return an optional number; 0 if it is missing."""
    value = text.get(key) or 0
    try:
        number = int(value)
    except (OverflowError, TypeError, ValueError):
        number = -1
    if not 0 <= number <= _MOST:
        raise CardError(
            f"{key} in config.json must be an integer from 0 to {_MOST:,}, or be left out, but is"
            f" {_short(value)}",
            hint=_AGAIN,
        )
    return number


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
