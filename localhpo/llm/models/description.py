"""Describes the model of a folder without loading it: its config, tokenizer and license."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localhpo.errors import CardError
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models import thinking
from localhpo.llm.models.card import Card
from localhpo.llm.models.thinking import ThinkingSwitch
from localhpo.llm.protocol import Model

META_DATA = "lessons.json.gz"
"""Name of the file of meta-data (`localhpo.transfer.source_tasks`) in a model's folder."""


def describe_model(
    folder: Path, card: Card | None, context_length: int, deterministic: bool
) -> Model:
    """Return the description of a model, from its card if it has one."""
    switch = _switch(folder, card)
    return Model(
        name=card.name if card else folder.resolve().name,
        digest=card.identity if card else model_registry.compute_digest(folder),
        context_length=context_length,
        prompt=card.prompt if card else "chat",
        deterministic=deterministic,
        known_parameters=frozenset(card.known_parameters) if card else frozenset(),
        meta_data=meta_data if (meta_data := folder / META_DATA).is_file() else None,
        chat_template_kwargs=switch.chat_template_kwargs,
        answer_prefix=switch.answer_prefix,
    )


def _switch(folder: Path, card: Card | None) -> ThinkingSwitch:
    """Return how reasoning is switched off: by the card, else by the chat template."""
    if card and (card.chat_template_kwargs or card.answer_prefix):
        return ThinkingSwitch(card.chat_template_kwargs, card.answer_prefix)
    return thinking.find_switch(thinking.read_chat_template(folder))


def read_text_config(folder: Path) -> Mapping[str, Any]:
    """Return the language part of `config.json`.

    Raises:
        CardError: there is no such file, or it cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise CardError(f"{folder} is not a model folder: it has no config.json")
    table = _table(folder / "config.json")
    text: Mapping[str, Any] = table.get("text_config", table)
    return text


def control_tokens(folder: Path) -> list[str]:
    """Return the spellings of control tokens, such as those that end a turn.

    Raises:
        CardError: a file of the tokenizer cannot be read.
    """
    added = _table(folder / "tokenizer.json").get("added_tokens", [])
    named = _table(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    both = [*added, *named.values()]
    return sorted({token["content"] for token in both if token.get("special")})


def has_chat_template(folder: Path) -> bool:
    """Return whether the tokenizer has a chat template.

    Raises:
        CardError: `tokenizer_config.json` cannot be read.
    """
    own = _table(folder / "tokenizer_config.json").get("chat_template")
    return bool(own) or (folder / "chat_template.jinja").is_file()


def _table(path: Path) -> Mapping[str, Any]:
    """Return a JSON object; an empty one if there is no such file."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise CardError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(table, dict):
        raise CardError(f"{path} must hold a JSON object")
    return table


UNKNOWN = "unknown"

_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "cc-by-nc-4.0": "CC-BY-NC-4.0"}
"""Hugging Face's name of a license -> its SPDX name, where they differ."""

_TEXTS = (
    (re.compile(r"Apache License\s+Version 2\.0"), "Apache-2.0"),
    (re.compile(r"MIT License|Permission is hereby granted, free of charge"), "MIT"),
    (re.compile(r"LLAMA ([\d.]+) COMMUNITY LICENSE"), r"llama\1"),
    (re.compile(r"Gemma Terms of Use", re.IGNORECASE), "gemma"),
)
"""Patterns that identify the text of a license."""

_KEY = re.compile(r"^(license|license_name):[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)

_MOST = 20_000
"""Number of characters read from a file: titles and front matter come first."""


def read_license(folder: Path) -> str:
    """Return the license of a model folder; `UNKNOWN` if it has none."""
    return _from_readme(folder) or _from_text(folder) or UNKNOWN


def _from_readme(folder: Path) -> str:
    head = re.match(r"---\s*\n(.*?)\n---", _head(folder / "README.md"), re.DOTALL)
    if head is None:
        return ""
    fields: dict[str, str] = dict(_KEY.findall(head[1]))
    license = fields.get("license", "")
    if license == "other":
        return fields.get("license_name", "")
    return _SPDX.get(license, license)


def _from_text(folder: Path) -> str:
    for path in sorted(folder.glob("*")):
        if path.stem.upper() in ("LICENSE", "LICENCE", "COPYING") and path.is_file():
            text = _head(path)
            for pattern, name in _TEXTS:
                if found := pattern.search(text):
                    return found.expand(name)
    return ""


def _head(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST)
    except OSError:
        return ""
