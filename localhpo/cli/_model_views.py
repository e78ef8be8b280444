"""How models, profiles and the memory that they need are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from localhpo.analysis import wording
from localhpo.analysis.records import jsonable
from localhpo.cli import _views
from localhpo.llm import profiles, served
from localhpo.llm.card import Card
from localhpo.llm.cards import Entry
from localhpo.llm.folder import config, license, thinking
from localhpo.llm.memory import PROPOSAL_TOKENS, Memory, Need
from localhpo.llm.profiles import Profile

_STATE_STYLES = {"verified": "green", "no card": "yellow", "broken": "red"}
_MB = 2**20
"""As memory of devices and of trials is counted."""


def models_table(entries: Sequence[Entry]) -> Table:
    """Return the listing of the models on this machine."""
    table = _views.plain_table(
        "model", "parameters", "size", "context", "prompt", "license", "files",
        right=("parameters", "size", "context"),
    )  # fmt: skip
    for entry in entries:
        table.add_row(*_cells(entry))
    return table


def profiles_table(found: Sequence[Profile]) -> Table:
    """Return the listing of models that are not here."""
    kv = f"KV at {PROPOSAL_TOKENS:,}"
    headers = ("profile", "parameters", "weights", kv, "context", "license", "published as")
    table = _views.plain_table(*headers, right=("parameters", "weights", kv, "context"))
    for profile in found:
        table.add_row(
            profile.name,
            amount(profile.parameters),
            size(profile.memory.weights_bytes),
            size(served.need(profile.memory, profile.shape.context_length).kv_bytes),
            f"{profile.shape.context_length:,}",
            profile.license,
            profile.repository,
        )
    return table


def facts(record: dict[str, Any]) -> Table:
    """Return every fact of a record, one a line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in record.items():
        for title, line in _lines(key, value):
            grid.add_row(title, line)
    return grid


def record(
    found: Entry | Profile, *, full: bool = False, tokens: int = PROPOSAL_TOKENS
) -> dict[str, Any]:
    """Return what is known of a model or a profile, for JSON and for `facts`.

    Args:
        found: Which.
        full: With the files, and how it was made.
        tokens: Of prompt and answer, for which a server's KV cache is worked out.
    """
    if isinstance(found, Profile):
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
    card: dict[str, Any] = jsonable(dataclasses.asdict(found.card))
    card["digest"] = found.card.digest
    card["memory"] = _memory_record(found.card.memory, found.card.context_length, tokens)
    left_out = ("name", "folder", *(() if full else ("files", "made")))
    return known | {key: value for key, value in card.items() if key not in left_out}


def notes(card: Card, folder: Path) -> Iterator[str]:
    """Yield what whoever adds a model should know of its card.

    Args:
        card: As it was made.
        folder: From which.
    """
    from localhpo.llm.transformers import known

    if card.license == license.UNKNOWN:
        yield "the folder does not say under which license the model comes"
    if not thinking.template_of(folder):
        yield "it has no chat template: a base model, which continues the prompt as plain text"
    if card.quantization:
        yield f"its weights are packed ({card.quantization}): vLLM runs them, or transformers with"
        yield "  the package that its documentation names for this kind"
    if unknown := known.unknown(config.read(folder)):
        yield f"transformers, as installed here, does not know {', '.join(unknown)}: the model does"
        yield "  not run in process, and in a server only where that one knows it"
    profile = profiles.named(folder.name)
    if profile and profile.name == card.profile:
        yield f"it agrees with the profile {profile.name}"
    elif profile:
        told = "; ".join(profiles.differences(profile, config.read(folder)))
        yield f"it is not what the profile {profile.name} says: {told}"


def arithmetic(needed: Need) -> str:
    """Return the sum of what a model takes: `weights 15.6 GB + KV cache ... = 17.9 GB`."""
    parts = [
        f"{part.count:,} x {part.each_bytes:,} B{part.what and f' {part.what}'}"
        for part in needed.kv_parts
        if part.each_bytes
    ]
    return (
        f"weights {size(needed.weights_bytes)} + KV cache {' + '.join(parts)}"
        f" = {size(needed.kv_bytes)} + work {size(needed.work_bytes)} = {size(needed.total_bytes)}"
    )


def amount(number: int) -> str:
    """Return a number of parameters: `8.19B`, `1.17M`."""
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= 0.9995 * limit:  # three digits would round it up to the next unit
            return f"{number / limit:.3g}{unit}"
    return str(number)


def size(size_bytes: int) -> str:
    """Return an amount of memory, in the unit of devices."""
    return wording.memory(size_bytes / _MB)


def _cells(entry: Entry) -> tuple[Any, ...]:
    card = entry.card
    known = (
        ("-", "-", "-", "-")
        if card is None
        else (f"{card.context_length:,}", card.prompt, card.license, amount(card.parameters))
    )
    context, prompt, license_, parameters = known
    state = Text(entry.state, style=_STATE_STYLES[entry.state])
    if entry.error:
        state.append(f": {entry.error}", style="")
    return entry.name, parameters, size(entry.size_bytes), context, prompt, license_, state


def _profile_record(profile: Profile, tokens: int) -> dict[str, Any]:
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


def _memory_record(memory: Memory | None, context_length: int, tokens: int) -> dict[str, Any]:
    if memory is None:
        return {}
    needed = served.need(memory, context_length, tokens)
    return {
        **dataclasses.asdict(memory),
        "tokens": needed.tokens,
        "kv_bytes": needed.kv_bytes,
        "total_bytes": needed.total_bytes,
        "sum": arithmetic(needed),
    }


def _lines(key: str, value: Any) -> list[tuple[str, str]]:
    """Return the lines that show one fact: a table or a list takes one line for each entry."""
    if key == "memory":
        value = value.get("sum", "")
    if isinstance(value, dict):
        items = [f"{name}: {item}" for name, item in value.items()]
    elif isinstance(value, list):
        items = [str(item) for item in value]
    elif key == "answer_prefix" and value:
        items = [repr(value)]
    else:
        items = [str(value)] if value not in (None, "") else []
    title = key.replace("_", " ")
    return [(title if i == 0 else "", item) for i, item in enumerate(items)]
