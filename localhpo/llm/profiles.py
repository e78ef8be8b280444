"""Models that a user is likely to bring, from `profiles.toml`, which says what its keys mean."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from localhpo.errors import CardError
from localhpo.llm.folder import config
from localhpo.llm.folder.config import Config, ModelShape
from localhpo.llm.memory import ModelMemory

_FILE = Path(__file__).with_name("profiles.toml")

_HALF = 2
"""Bytes of a weight as these models are published, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """A published model, as far as its files say what it needs. Unverified: none was seen here."""

    name: str
    repository: str
    """Where it is published."""
    license: str
    parameters: int
    shape: ModelShape
    memory: ModelMemory
    chat_template_kwargs: Mapping[str, Any]
    """As on a card."""
    answer_prefix: str
    """As on a card."""
    note: str
    """What else one should know."""


@lru_cache(maxsize=1)
def read_profiles() -> Mapping[str, ModelProfile]:
    """Return every profile by name."""
    table = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return {name: _profile(name, entry) for name, entry in table.items()}


def find_profile(name: str) -> ModelProfile | None:
    """Return the profile of a model, by the name of its folder or of its repository."""
    return read_profiles().get(name.rstrip("/").rpartition("/")[2].lower())


def match_profile(name: str, said: Config) -> str:
    """Return the name of the profile of that name, if a config.json agrees with it; else nothing.

    Args:
        name: Of the folder.
        said: Its config.json.
    """
    profile = find_profile(name)
    return profile.name if profile and not find_differences(profile, said) else ""


def find_differences(profile: ModelProfile, said: Config) -> list[str]:
    """Return where a config.json differs from a profile, such as `layers: 36, not 40`."""
    try:
        found = config.parse_shape(said)
    except CardError as exc:
        return [str(exc)]
    pairs: list[tuple[str, int, int]] = [
        (key.replace("_", " "), getattr(found, key), getattr(profile.shape, key))
        for key in ("context_length", "layers", "hidden_size", "vocab_size")
    ]
    tokens = profile.shape.context_length
    own_cache, its_cache = found.cache.kv_bytes(tokens), profile.shape.cache.kv_bytes(tokens)
    pairs.append((f"bytes of KV cache for {tokens:,} tokens", own_cache, its_cache))
    return [f"{what}: {own:,}, not {its:,}" for what, own, its in pairs if own != its]


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
