"""Reads the headers of weight files, without loading the weights.

A safetensors file begins with the length of its header (8 bytes, little-endian) and the header in
JSON: type, shape and offsets of each tensor (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localhpo.errors import CardError
from localhpo.llm.models.config import ModelShape

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_LONGEST_HEADER = 100_000_000
"""Largest header in bytes, as in safetensors itself."""

_DTYPES = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "U8": "uint8",
    "I8": "int8",
    "I32": "int32",
    "U32": "uint32",
}
_BITS = {"I8": 8, "U8": 8, "I32": 32, "U32": 32}
"""Bits of the integers that hold quantized weights."""

_QUANTIZATION_TENSOR = re.compile(
    r"(scale|scales|scale_inv|_scale_2|zeros|qzeros|zero_point|g_idx|weight_shape|absmax|quant_map"
    r"|quant_state[\w.]*|biases|k_scale|v_scale)$"
)
"""Names of tensors that describe the quantization of others; they are not parameters."""

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_OTHER_PARTS = re.compile(r"vision|visual|audio|\bmtp\b|multi_modal")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte)\.weight$")


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """Header of one tensor."""

    dtype: str
    """Type, as safetensors names it."""
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class WeightsSummary:
    """Totals of the weights of a model."""

    parameters: int
    """Number of parameters, before quantization; of a mixture of experts those of all experts."""
    size_bytes: int
    dtype: str
    """Type of most of the weights, as torch names it."""


def read_headers(folder: Path) -> dict[str, TensorHeader]:
    """Return tensor name -> header.

    Raises:
        CardError: a file is missing, truncated, or no safetensors file.
    """
    tensors: dict[str, TensorHeader] = {}
    for name in _files(folder):
        tensors |= _header(folder / name)
    for name, file in _index(folder).items():
        if name not in tensors:
            raise CardError(
                f"{folder / file} lacks the tensor {name}, which {INDEX} lists",
                hint="copy the model folder again",
            )
    return tensors


def size_bytes(folder: Path) -> int:
    """Return the size of the weights that are loaded from a folder, in bytes.

    A folder may hold the same weights again in another layout, which does not count.
    """
    with contextlib.suppress(CardError):  # without a valid index, all files are loaded
        return sum(tensor.size_bytes for tensor in read_headers(folder).values())
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def summarize_weights(tensors: Mapping[str, TensorHeader], shape: ModelShape) -> WeightsSummary:
    """Return the totals of the weights, after a check that they match config.json.

    Raises:
        CardError: they belong to another architecture.
    """
    own = {name: t for name, t in tensors.items() if not _is_copy(name, tensors, shape)}
    _check_match(own, shape)
    sizes: Counter[str] = Counter()
    for tensor in own.values():
        sizes[tensor.dtype] += tensor.size_bytes
    most = sizes.most_common(1)[0][0]
    return WeightsSummary(
        parameters=sum(_parameters(name, tensor, shape) for name, tensor in own.items()),
        size_bytes=sum(sizes.values()),
        dtype=_DTYPES.get(most, most.lower()),
    )


def _files(folder: Path) -> Sequence[str]:
    if index := _index(folder):
        missing = sorted(name for name in set(index.values()) if not (folder / name).is_file())
        if missing:
            raise CardError(
                f"{folder} lacks {len(missing)} of the files of weights that {INDEX} lists:"
                f" {', '.join(missing)}",
                hint="copy the model folder again; a download may have been cut off",
            )
        return sorted(set(index.values()))
    if not (folder / SINGLE).is_file():
        raise CardError(
            f"{folder} holds no weights: neither {SINGLE} nor {INDEX}",
            hint="a model folder is complete, in Hugging Face layout, with safetensors weights",
        )
    return [SINGLE]


def _index(folder: Path) -> Mapping[str, str]:
    """Return tensor name -> file of a model in several files; empty for a single file."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = {str(name): str(file) for name, file in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CardError(f"{path} is not an index of weights: {exc}") from exc
    for file in names.values():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise CardError(f"{path} must name *.safetensors beside it, but names {file!r}")
    return names


def _header(path: Path) -> dict[str, TensorHeader]:
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, _LONGEST_HEADER):
                raise ValueError(f"its header would be {length:,} bytes long")
            listed: dict[str, Any] = json.loads(file.read(length))
        listed.pop("__metadata__", None)
        tensors = {name: _tensor(entry) for name, entry in listed.items()}
        end = max((entry["data_offsets"][1] for entry in listed.values()), default=0)
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CardError(
            f"{path} is not a complete safetensors file: {exc}", hint="copy the model folder again"
        ) from exc
    if size != 8 + length + end:
        raise CardError(
            f"{path} must have {8 + length + end:,} bytes by its header, but has {size:,}",
            hint="copy the model folder again; a download may have been cut off",
        )
    return tensors


def _tensor(entry: Mapping[str, Any]) -> TensorHeader:
    begin, end = entry["data_offsets"]
    return TensorHeader(str(entry["dtype"]), tuple(map(int, entry["shape"])), end - begin)


def _is_copy(name: str, tensors: Mapping[str, TensorHeader], shape: ModelShape) -> bool:
    """Return whether a tensor is an output layer that the model ties to its embedding."""
    return shape.tied and name.endswith("lm_head.weight") and any(map(_EMBEDDING.search, tensors))


def _parameters(name: str, tensor: TensorHeader, shape: ModelShape) -> int:
    if shape.quantization and _QUANTIZATION_TENSOR.search(name):
        return 0
    numbers = math.prod(tensor.shape)
    held = _BITS.get(tensor.dtype)
    return numbers * held // shape.packed_bits if held and shape.packed_bits else numbers


def _check_match(tensors: Mapping[str, TensorHeader], shape: ModelShape) -> None:
    wanted = (shape.vocab_size, shape.hidden_size)
    language = {name: t for name, t in tensors.items() if not _OTHER_PARTS.search(name)}
    plain = {name: t for name, t in language.items() if t.dtype not in _BITS}
    for name in filter(_EMBEDDING.search, plain):
        if plain[name].shape != wanted:
            raise CardError(
                f"the weights belong to another model than config.json: it has {wanted[0]} tokens"
                f" of width {wanted[1]}, {name} has shape {plain[name].shape}",
                hint="copy config.json and the weights from the same place",
            )
    layers = [int(found[1]) for name in language if (found := _LAYER.search(name))]
    if layers and max(layers) + 1 < shape.layers:
        raise CardError(
            f"the weights belong to another model than config.json: it has {shape.layers} layers,"
            f" they have {max(layers) + 1}",
            hint="copy config.json and the weights from the same place",
        )
