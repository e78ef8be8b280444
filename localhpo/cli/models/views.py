"""Views of models, of profiles (facts of published models), and of the memory they need."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from localhpo.analysis import formatting
from localhpo.analysis.records import to_jsonable
from localhpo.cli.output import facts_table, plain_table
from localhpo.llm.models import config, description, profiles, thinking
from localhpo.llm.models.card import RENAMED_KEYS, RENAMED_TUNED_KEYS, Card, card_record
from localhpo.llm.models.memory import PROPOSAL_TOKENS, MemoryEstimate, ModelMemory
from localhpo.llm.models.profiles import ModelProfile
from localhpo.llm.models.registry import ModelListing
from localhpo.llm.vllm import memory as server_memory

_STATE_STYLES = {"verified": "green", "no card": "yellow", "broken": "red"}
_MB = 2**20
"""Bytes of a megabyte, as for memory of devices and trials."""


def models_table(entries: Sequence[ModelListing]) -> Table:
    """Return the listing of the models on this machine."""
    table = plain_table(
        "model", "parameters", "size", "context", "prompt", "license", "files",
        right=("parameters", "size", "context"),
    )  # fmt: skip
    for entry in entries:
        table.add_row(*_cells(entry))
    return table


def profiles_table(found: Sequence[ModelProfile]) -> Table:
    """Return the listing of known models that are not on this machine."""
    kv = f"KV cache of {PROPOSAL_TOKENS:,} tokens"
    headers = ("profile", "parameters", "weights", kv, "context", "license", "published as")
    table = plain_table(*headers, right=("parameters", "weights", kv, "context"))
    table.columns[0].no_wrap = True  # the name that a user types
    for profile in found:
        table.add_row(
            profile.name,
            parameter_count(profile.parameters),
            memory_text(profile.memory.weights_bytes),
            memory_text(
                server_memory.estimate_memory(profile.memory, profile.shape.context_length).kv_bytes
            ),
            f"{profile.shape.context_length:,}",
            profile.license,
            profile.repository,
        )
    return table


def facts(record: dict[str, Any]) -> Table:
    """Return a record as a table, one fact a line."""
    shown = ((k, v) for k, v in record.items() if k not in RENAMED_KEYS)  # old keys: JSON alone
    return facts_table(line for key, value in shown for line in _lines(key, value))


def record(
    found: ModelListing | ModelProfile, *, full: bool = False, tokens: int = PROPOSAL_TOKENS
) -> dict[str, Any]:
    """Return a model or a profile as JSON-able values.

    Args:
        found: The model or profile.
        full: Whether to include its files, and how it was made.
        tokens: Tokens of prompt and answer, for which the KV cache of a server is computed.
    """
    if isinstance(found, ModelProfile):
        return _profile_record(found, tokens)
    known: dict[str, Any] = {
        "name": found.name,
        "state": found.state,
        "error": found.error,
        "path": str(found.path),
        "size_bytes": found.size_bytes,
    }
    if found.card is None:
        return known
    card: dict[str, Any] = to_jsonable(card_record(found.card))
    card["digest"] = found.card.digest
    card["memory"] = _memory_record(found.card.memory, found.card.context_length, tokens)
    left_out = ("name", "folder", *(() if full else ("files", "made")))
    return known | {key: value for key, value in card.items() if key not in left_out}


def notes(card: Card, folder: Path) -> Iterator[str]:
    """Yield notes on a model that was added.

    Args:
        card: The card of the model.
        folder: The folder of the model.
    """
    from localhpo.llm.transformers import support

    if card.license == description.UNKNOWN:
        yield "the license of the model is not given in its folder"
    if not thinking.read_chat_template(folder):
        yield "the model has no chat template: it is a base model, prompted with plain text"
    if card.quantization:
        yield f"its weights are quantized ({card.quantization}): vLLM runs them; transformers needs"
        yield "  the package that its documentation names for this quantization"
    if unknown := support.find_unsupported(config.read_config(folder)):
        yield f"the installed transformers does not support {', '.join(unknown)}: use the model"
        yield "  in a server that supports it"
    profile = profiles.find_profile(folder.name)
    if profile and profile.name == card.profile:
        yield f"the model agrees with the profile {profile.name}"
    elif profile:
        differences = "; ".join(profiles.find_differences(profile, config.read_config(folder)))
        yield f"the model differs from the profile {profile.name}: {differences}"


def memory_sum(needed: MemoryEstimate) -> str:
    """Return the memory of a model as a sum: `weights 15.6 GB + KV cache ... = 17.9 GB`."""
    parts = [
        f"{part.count:,} x {part.each_bytes:,} B{part.what and f' {part.what}'}"
        for part in needed.kv_parts
        if part.each_bytes
    ]
    return (
        f"weights {memory_text(needed.weights_bytes)} + KV cache {' + '.join(parts)}"
        f" = {memory_text(needed.kv_bytes)} + activations {memory_text(needed.work_bytes)}"
        f" = {memory_text(needed.total_bytes)}"
    )


def parameter_count(number: int) -> str:
    """Return a number of parameters: `8.19B`, `1.17M`."""
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= 0.9995 * limit:  # rounding to three digits reaches the unit
            return f"{number / limit:.3g}{unit}"
    return str(number)


def memory_text(size_bytes: int) -> str:
    """Return an amount of memory as text."""
    return formatting.memory(size_bytes / _MB)


def _cells(entry: ModelListing) -> tuple[Any, ...]:
    card = entry.card
    known = (
        ("-", "-", "-", "-")
        if card is None
        else (
            f"{card.context_length:,}",
            card.prompt,
            card.license,
            parameter_count(card.parameters),
        )
    )
    context, prompt, license_, parameters = known
    state = Text(entry.state, style=_STATE_STYLES[entry.state])
    if entry.error:
        state.append(f": {entry.error}", style="")
    return entry.name, parameters, memory_text(entry.size_bytes), context, prompt, license_, state


def _profile_record(profile: ModelProfile, tokens: int) -> dict[str, Any]:
    return {
        "name": profile.name,
        "state": "profile",
        "note": profile.note,
        "repository": profile.repository,
        "license": profile.license,
        "architecture": profile.shape.architecture,
        "parameters": profile.parameters,
        "context_length": profile.shape.context_length,
        "dtype": profile.shape.dtype,
        "quantization": profile.shape.quantization,
        "chat_template_kwargs": dict(profile.chat_template_kwargs),
        "answer_prefix": profile.answer_prefix,
        "memory": _memory_record(profile.memory, profile.shape.context_length, tokens),
    }


def _memory_record(memory: ModelMemory | None, context_length: int, tokens: int) -> dict[str, Any]:
    if memory is None:
        return {}
    needed = server_memory.estimate_memory(memory, context_length, tokens)
    return {
        **dataclasses.asdict(memory),
        "tokens": needed.tokens,
        "kv_bytes": needed.kv_bytes,
        "total_bytes": needed.total_bytes,
        "sum": memory_sum(needed),
    }


def _lines(key: str, value: Any) -> list[tuple[str, str]]:
    """Return the lines of one fact; a table or a list takes a line for each entry."""
    if key == "memory":
        value = value.get("sum", "")
    if isinstance(value, dict):
        old = RENAMED_TUNED_KEYS if key == "tuned" else ()
        items = [f"{name}: {item}" for name, item in value.items() if name not in old]
    elif isinstance(value, list):
        items = [str(item) for item in value]
    elif key == "answer_prefix" and value:
        items = [repr(value)]
    else:
        items = [str(value)] if value not in (None, "") else []
    title = key.replace("_", " ")
    return [(title if i == 0 else "", item) for i, item in enumerate(items)]
