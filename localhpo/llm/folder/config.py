"""What config.json says: architecture, context, precision, and what the KV cache takes.

Every model type writes its layers in its own way, and newer versions of transformers write what
older ones left to the reader (`layer_types`). Each rule below is that of the type's configuration
class in transformers; tests compare the sums with what its caches really hold.

A kind of layer that is not known here counts as full attention, which keeps at least as much. So
does one that attends in chunks: vLLM keeps all of its tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localhpo.errors import CardError
from localhpo.llm.memory import ModelMemory

Config = Mapping[str, Any]

_FULL, _SLIDING, _LINEAR = "full_attention", "sliding_attention", "linear_attention"

_ATTENTION = {"attention", _FULL, _SLIDING, "chunked_attention"}

_NUMBER_BYTES = {"float32": 4, "float64": 8}
"""Of one number, where it is not two."""

_MOST, _MOST_LAYERS = 10**9, 10**5
"""Far above any model: what is more is no number of heads, tokens or layers."""
_TOLD = 60
"""Characters of a value that are told."""
_AGAIN = "save the model again with a newer transformers, which writes it"

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
"""Of so many layers the last one sees everything, where config.json does not list the layers."""
_LINEAR_PATTERN = {"qwen3_next": 4, "qwen3_5_text": 4, "qwen3_5_moe_text": 4}
"""The same with linear attention in place of windows."""

_LEFT_OUT: Mapping[str, Config] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "vocab_size": 262208,
    },
}
"""What published files of a type leave to the defaults of its class."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What config.json says of a model."""

    architecture: str
    """Its model type, such as `qwen3`."""
    context_length: int
    layers: int
    hidden_size: int
    vocab_size: int
    dtype: str
    """In which it computes, as torch names it; empty where it is not said."""
    quantization: str
    """Such as `gptq, 4 bit`; empty where weights are not packed."""
    packed_bits: int
    """Bits of a packed weight; 0 where weights are not packed, or it is not said."""
    tied: bool
    """Whether the embedding is the output layer too."""
    cache: ModelMemory
    """What the KV cache takes, without weights."""


def read_config(folder: Path) -> Config:
    """Return config.json of a model folder.

    Raises:
        CardError: there is none, or it is no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise CardError(f"{folder} is not a model folder: it holds no config.json") from exc
    except (OSError, ValueError) as exc:
        raise CardError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(config, dict):
        raise CardError(f"{path} must hold an object, but holds {config!r}")
    return config


def check_architecture(config: Config) -> None:
    """Refuse a model that does not continue texts.

    Raises:
        CardError: it is an encoder, an encoder with a decoder, or says nothing of what it is.
    """
    named = config.get("architectures")
    name = str(named[0]) if isinstance(named, list) and named else "(none)"
    has_text = isinstance(config.get("text_config"), dict)
    continues = name.endswith(("ForCausalLM", "LMHeadModel")) or (
        name.endswith("ForConditionalGeneration") and has_text
    )
    if config.get("is_encoder_decoder") or not continues or "model_type" not in config:
        raise CardError(
            "config.json must describe a model that continues a text (architectures:"
            f" ...ForCausalLM, and a model_type), but says architectures {name}",
            hint="bring a decoder, such as a Qwen, Llama, Gemma, Phi or gpt-oss",
        )


def parse_shape(config: Config, devices: int = 1) -> ModelShape:
    """Return what a config.json says of its model, of its part that handles text.

    Args:
        config: What it says.
        devices: Over which the model is spread, as vLLM does it: the KV cache is then that of one.

    Raises:
        CardError: it does not say something that must be known, or says it in no known way.
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
    """Return whether a model has layers that keep a state in place of keys and values.

    As vLLM's `is_hybrid` has it, from what such models write: the kinds of their layers where they
    list them, else the sizes of their states.
    """
    text = _text_part(config)
    if listed := text.get("layer_types") or text.get("layers_block_type"):
        return not _ATTENTION.issuperset(listed)
    own = any("mamba" in key or "ssm" in key for key in text)
    return own or str(text.get("model_type")) in _LINEAR_PATTERN


def _text_part(config: Config) -> Config:
    """Return the part that handles text, with what its type leaves out."""
    text = config.get("text_config", config)
    return {**_LEFT_OUT.get(str(text.get("model_type")), {}), **text}


def _cache(text: Config, number_bytes: int, devices: int) -> ModelMemory:
    """Sum over the layers that keep something of their own, for one of so many devices."""
    shared = _whole(text, "num_kv_shared_layers")
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
        every = _whole(text, "full_attention_interval") or _LINEAR_PATTERN[kind]
        return [_LINEAR if (i + 1) % every else _FULL for i in range(count)]
    window = _whole(text, "sliding_window")
    if not window or text.get("use_sliding_window") is False:
        return [_FULL] * count
    if window >= _number(text, "max_position_embeddings"):
        return [_FULL] * count  # it never comes into effect
    if pattern := text.get("sliding_window_pattern") or _SLIDING_PATTERN.get(kind):
        every = len(pattern) if isinstance(pattern, str) else int(pattern)  # "LLLG" is 4
        kinds = [_SLIDING if (i + 1) % every else _FULL for i in range(count)]
        return [*kinds[:-1], _FULL] if kind.startswith("gemma4") else kinds
    first = _whole(text, "max_window_layers") if text.get("use_sliding_window") else 0
    return [_SLIDING if i >= first else _FULL for i in range(count)]


def _numbers_per_token(text: Config, layer: int, kind: str, devices: int = 1) -> int:
    """Return how many numbers one layer keeps of one token, on one of so many devices.

    Heads are shared out, and each device has one at least (vLLM's `get_num_kv_heads`); a latent
    vector, which is for all heads, is on each.
    """
    # Multi-head latent attention: one vector for all heads.
    if latent := _whole(text, "kv_lora_rank"):
        return latent + _whole(text, "qk_rope_head_dim")
    own = {**text, **_of_layer(text, layer), **(_of_full(text) if kind == _FULL else {})}
    heads = _whole(own, "num_key_value_heads") or _number(text, "num_attention_heads")
    width = _whole(own, "head_dim") or _number(text, "hidden_size") // _number(
        text, "num_attention_heads"
    )
    return 2 * max(1, heads // devices) * width


def _of_layer(text: Config, layer: int) -> Config:
    """Return where one layer differs, as newer files list it under its number."""
    listed = text.get("per_layer_config") or {}
    return next((own for number, own in listed.items() if int(number) == layer), {})


def _of_full(text: Config) -> Config:
    """Return where the layers that see everything differ: Gemma 4's have other heads."""
    own: dict[str, Any] = {}
    if width := text.get("global_head_dim"):
        own["head_dim"] = width
    if heads := text.get("num_global_key_value_heads"):
        own["num_key_value_heads"] = heads
    return own


def _state(text: Config, number_bytes: int) -> int:
    """Return the bytes of a layer with linear attention: a gated delta rule, and a convolution.

    Its recurrent state is in single precision (https://arxiv.org/abs/2412.06464, and Qwen's
    `mamba_ssm_dtype`).
    """
    if "linear_num_value_heads" not in text:
        return _numbers_per_token(text, 0, _FULL) * number_bytes
    keys = _number(text, "linear_num_key_heads") * _number(text, "linear_key_head_dim")
    values = _number(text, "linear_num_value_heads") * _number(text, "linear_value_head_dim")
    convolved = (2 * keys + values) * (_whole(text, "linear_conv_kernel_dim") or 4)
    return values * _number(text, "linear_key_head_dim") * 4 + convolved * number_bytes


def _window(text: Config) -> int:
    return _whole(text, "sliding_window") or _number(text, "max_position_embeddings")


def _quantization(config: Config) -> tuple[str, int]:
    """Return how weights are packed, and into how many bits."""
    text: Config = config.get("text_config") or {}
    said = _first(config, text, "quantization_config") or {}
    method = str(said.get("quant_method") or "")
    if not method:
        return "", 0
    bits = int(said.get("bits") or _FIXED_BITS.get(method, 0) or _bits_of_groups(said))
    if said.get("load_in_4bit"):
        bits = 4
    return f"{method}, {bits} bit" if bits else method, bits


_FIXED_BITS = {"mxfp4": 4, "fp8": 8}


def _bits_of_groups(said: Config) -> int:
    """Return the bits of the first group of weights, as compressed-tensors lists them."""
    groups = said.get("config_groups") or {}
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
            f"config.json must say {key}, a positive integer up to {most:,}, but says"
            f" {_short(value)}",
            hint=_AGAIN,
        )
    return value


def _whole(text: Config, key: str) -> int:
    """Return a number that may be left out: 0 then."""
    value = text.get(key) or 0
    try:
        number = int(value)
    except (OverflowError, TypeError, ValueError):
        number = -1
    if not 0 <= number <= _MOST:
        raise CardError(
            f"config.json must say {key} as an integer from 0 to {_MOST:,}, or leave it out, but"
            f" says {_short(value)}",
            hint=_AGAIN,
        )
    return number


def _short(value: object) -> str:
    told = repr(value)
    return told if len(told) <= _TOLD else f"{told[:_TOLD]}..."
