"""Adapter of attributes that torch and transformers have for some models only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


def find_context_length(config: PretrainedConfig) -> int | None:
    """Return the context length in tokens; None if the configuration does not have it."""
    length = getattr(config, "max_position_embeddings", None)
    return length if isinstance(length, int) else None


def has_rotary_positions(config: PretrainedConfig) -> bool:
    """Return whether positions are rotary embeddings, without ALiBi."""
    has_rotary = bool(getattr(config, "rope_parameters", None))
    return has_rotary and not getattr(config, "alibi", False)


def find_dtype(name: str) -> torch.dtype:
    """Return the torch dtype of that name; float32 if there is none."""
    import torch

    found: torch.dtype = getattr(torch, name, torch.float32)
    return found
