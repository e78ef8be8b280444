"""Profiles of published models that users often add, from `profiles.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from localhpo.errors import CardError
from localhpo.llm.models import config
from localhpo.llm.models.config import Config, ModelShape
from localhpo.llm.models.memory import ModelMemory

_FILE = Path(__file__).with_name("profiles.toml")

_HALF = 2
"""Bytes per weight of these models, unless a profile says otherwise."""


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """A published model and what it needs, by its published files; not verified."""

    name: str
    repository: str
    """Repository in which it is published."""
    license: str
    parameters: int
    shape: ModelShape
    memory: ModelMemory
    chat_template_kwargs: Mapping[str, Any]
    """As in a card."""
    answer_prefix: str
    """As in a card."""
    note: str
    """Note for the user."""


@lru_cache(maxsize=1)
def read_profiles() -> Mapping[str, ModelProfile]:
    """Return profile name -> profile."""
    table = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return {name: _profile(name, entry) for name, entry in table.items()}


def find_profile(name: str) -> ModelProfile | None:
    """Return a profile by the name of a model's folder or repository; None if there is none."""
    return read_profiles().get(name.rstrip("/").rpartition("/")[2].lower())


def match_profile(name: str, table: Config) -> str:
    """Return the name of the profile that a model matches; empty if there is none.

    Args:
        name: Name of its folder.
        table: Its config.json.
    """
    profile = find_profile(name)
    return profile.name if profile and not find_differences(profile, table) else ""


def find_differences(profile: ModelProfile, table: Config) -> list[str]:
    """Return how a config.json differs from a profile, such as `layers: 36, not 40`."""
    try:
        found = config.parse_shape(table)
    except CardError as exc:
        return [str(exc)]
    expected = profile.shape
    pairs = [
        ("context length", found.context_length, expected.context_length),
        ("layers", found.layers, expected.layers),
        ("hidden size", found.hidden_size, expected.hidden_size),
        ("vocab size", found.vocab_size, expected.vocab_size),
    ]
    tokens = expected.context_length
    caches = found.cache.kv_bytes(tokens), expected.cache.kv_bytes(tokens)
    pairs.append((f"bytes of KV cache for {tokens:,} tokens", *caches))
    return [f"{what}: {own:,}, not {other:,}" for what, own, other in pairs if own != other]


def _profile(name: str, entry: Mapping[str, Any]) -> ModelProfile:
    shape = config.parse_shape(entry["config"])
    weights = entry.get("weights_bytes", _HALF * entry["parameters"])
    return ModelProfile(
        name=name,
        repository=entry["repository"],
        license=entry["license"],
        parameters=entry["parameters"],
        shape=shape,
        memory=replace(shape.cache, weights_bytes=weights),
        chat_template_kwargs=entry.get("chat_template_kwargs", {}),
        answer_prefix=entry.get("answer_prefix", ""),
        note=entry.get("note", ""),
    )
