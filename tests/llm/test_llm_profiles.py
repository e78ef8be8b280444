"""The figures of profiles match the architectures that they name."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from localhpo.llm.models import profiles, thinking

TABLE = tomllib.loads(Path(profiles.__file__).with_suffix(".toml").read_text())
PACKED_SHARE = 17 / 32
"""Bytes per weight in MXFP4: half a byte, and a scale per 32 weights."""


def parameters(config: dict[str, Any]) -> dict[str, int]:
    """Return the number of elements of each weight, without allocating it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    given = {k: v for k, v in config.items() if k != "quantization_config"}
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(AutoConfig.for_model(**given))
    unique = {id(p): (name, p.numel()) for name, p in network.named_parameters()}
    return dict(unique.values())


@pytest.mark.parametrize("name", TABLE)
def test_profiles_have_the_parameters_of_the_network(name: str) -> None:
    entry, profile = TABLE[name], profiles.read_profiles()[name]
    counted = parameters(entry["config"])
    vision = entry.get("vision_parameters", 0)
    assert sum(counted.values()) + vision == profile.parameters
    if profile.shape.quantization == "mxfp4, 4 bit":
        experts = sum(n for w, n in counted.items() if w.endswith(("gate_up_proj", "down_proj")))
        held = PACKED_SHARE * experts + 2 * (profile.parameters - experts)
        assert profile.memory.weights_bytes == held
    else:
        assert profile.memory.weights_bytes == 2 * profile.parameters


def test_known_sizes_of_the_kv_cache() -> None:
    """KiB per token, as published or computed by hand from model cards."""
    known = {"llama-3.1-8b-instruct": 128, "qwen3-8b": 144, "qwen3-30b-a3b": 96, "phi-4": 200}
    found = profiles.read_profiles()
    for name, kib in known.items():
        assert found[name].memory.kv_bytes(1000) == 1000 * kib * 1024
    # 10 of 62 layers see everything, 52 a window of 1,024: 2 x 16 heads x 128 x 2 bytes each.
    gemma = found["gemma-3-27b-it"].memory
    assert gemma.kv_bytes(8192) == (10 * 8192 + 52 * 1024) * 8192


def test_a_profile_is_found_by_folder_or_repository_name() -> None:
    for name in ("qwen3-8b", "Qwen3-8B", "Qwen/Qwen3-8B", "/data/Qwen3-8B/"):
        profile = profiles.find_profile(name)
        assert profile is not None and profile.repository == "Qwen/Qwen3-8B"
    assert profiles.find_profile("qwen3-9b") is None
    for name, entry in TABLE.items():
        assert entry["repository"].rpartition("/")[2].lower() == name


def test_differences_from_a_profile_are_listed() -> None:
    config = dict(TABLE["qwen3-8b"]["config"])
    assert profiles.match_profile("Qwen3-8B", config) == "qwen3-8b"
    assert profiles.match_profile("my-model", config) == ""
    other = config | {"num_hidden_layers": 40}
    assert profiles.match_profile("Qwen3-8B", other) == ""
    told = profiles.find_differences(profiles.read_profiles()["qwen3-8b"], other)
    assert told[0] == "layers: 40, not 36"
    assert (
        "must have hidden_size"
        in profiles.find_differences(
            profiles.read_profiles()["qwen3-8b"],
            {k: v for k, v in config.items() if k != "hidden_size"},
        )[0]
    )


def test_answer_prefixes_match_the_chat_templates() -> None:
    thoughtful = {p.answer_prefix for p in profiles.read_profiles().values() if p.answer_prefix}
    opened = "{{ '<think>\\n' }}", "{% if true %}<|start|>assistant{% endif %}"
    assert thoughtful == {thinking.find_switch(template).answer_prefix for template in opened}
