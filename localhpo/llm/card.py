"""What a model says of itself: the card, and its spelling in TOML.

    name = "sprout"
    version = "1"
    summary = "one line for a listing"
    license = "MIT"
    architecture = "llama"
    parameters = 9_500_000
    context_length = 2048
    prompt = "compact"               # which templates of prompts/ it is asked with, or "chat"
    not_good_at = ["families of models it never saw"]
    knows = ["learning_rate", "max_depth"]    # a small model: the names that it was trained on

    [files]                          # every file that is loaded
    "model.safetensors" = "<sha256>"

    [made]                           # how: script, data, tokens, seconds, device
    [measured]                       # numbers

Written by `localhpo models add`, for a model that a user brings:

    folder = "/data/Qwen3-8B"        # where the files lie, if not beside the card
    dtype = "bfloat16"
    quantization = ""                # such as "gptq, 4 bit"
    answer_prefix = ""               # what an answer begins with, where that ends its thinking

    [chat_template_kwargs]           # what its chat template is told, so that it does not think
    enable_thinking = false

    [memory]                         # `localhpo.llm.memory.Memory`

Written by `localhpo finetune`: `[tuned]` and `[gate]` (`localhpo.llm.tuning_record`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from localhpo.errors import CardError, did_you_mean
from localhpo.llm import tuning_record
from localhpo.llm.memory import ModelMemory
from localhpo.llm.tuning_record import TuningRecord

CARD = "card.toml"

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Card:
    """What a model says of itself. Fields as in `card.toml`."""

    name: str
    version: str
    summary: str
    license: str
    architecture: str
    parameters: int
    context_length: int
    """Tokens of prompt and answer together."""
    prompt: Literal["chat", "compact"]
    files: Mapping[str, str]
    """Path inside the folder -> sha256, of every file that is loaded."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """How: script, data, tokens, seconds, device."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    not_good_at: tuple[str, ...] = ()
    knows: tuple[str, ...] = ()
    """Names of hyperparameters that a small model was trained on."""
    folder: str = ""
    """Where the files lie, if not beside the card: a model that was registered in place."""
    dtype: str = ""
    """Of most weights, as torch names it."""
    quantization: str = ""
    """How the weights are packed, such as `gptq, 4 bit`; empty where they are not."""
    profile: str = ""
    """The profile of `profiles.toml` with whose figures its own agree."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """What the chat template is told beside the messages, so that the model does not think."""
    answer_prefix: str = ""
    """What its turn begins with before the answer: it ends a thought that the template opens."""
    memory: ModelMemory | None = None
    """What it needs on a device; None where nobody has worked it out."""
    tuned: TuningRecord | None = None
    """Where it comes from; None for a model that was not fine-tuned here."""
    gate: Mapping[str, Any] = field(default_factory=dict)
    """What the gate of a fine-tuned model measured."""

    @property
    def identity(self) -> str:
        """What a proposal records: the digest, behind that of the base where there is one."""
        return f"{self.tuned.base_digest}+{self.digest}" if self.tuned else self.digest

    @property
    def is_adapter(self) -> bool:
        """Whether its files change a base, and are no model alone."""
        return self.tuned is not None and self.tuned.method == "lora"

    @property
    def digest(self) -> str:
        """sha256 over the sorted lines `file sha256`: equal iff all files are."""
        return digest_files(self.files)


def digest_files(files: Mapping[str, str]) -> str:
    """Return the sha256 over the sorted lines `file sha256`."""
    from hashlib import sha256

    lines = "".join(f"{name} {sha}\n" for name, sha in sorted(files.items()))
    return sha256(lines.encode()).hexdigest()


def render_card(card: Card) -> str:
    """Return the text of `card.toml`; `parse` reads it back as an equal card."""
    lines = [f"{key} = {_toml(getattr(card, key))}" for key in _SCALARS]
    given = ((key, getattr(card, key)) for key in _OPTIONAL)
    lines += [f"{key} = {_toml(value)}" for key, value in given if value]
    lines += [f"{key} = {_toml(getattr(card, key))}" for key in _LISTS]
    tables = {key: getattr(card, key) for key in _TABLES}
    tables["memory"] = asdict(card.memory) if card.memory else {}
    tables["tuned"] = asdict(card.tuned) if card.tuned else {}
    for key, table in tables.items():
        if table or key in _ALWAYS:
            lines += ["", f"[{key}]", *(f"{_toml_key(k)} = {_toml(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def parse_card(table: Mapping[str, Any], path: Path) -> Card:
    """Return the card that a TOML table holds.

    Args:
        table: As read from the file.
        path: Of the file, for messages.

    Raises:
        CardError: a key is unknown, missing, or holds what it must not.
    """
    for key in table:
        if key not in _KEYS:
            raise CardError(f"{path}: unknown key {key!r}", hint=did_you_mean(key, _KEYS))
    values: dict[str, Any] = {key: _list(table, key, path) for key in _LISTS}
    values |= {key: _scalar(table, key, kind, path) for key, kind in _SCALARS.items()}
    values |= {key: _scalar(table, key, str, path) for key in _OPTIONAL if key in table}
    values |= {key: _table(table, key, holds, path) for key, holds in _TABLES.items()}
    if "memory" in table:
        values["memory"] = _memory(table["memory"], path)
    if "tuned" in table:
        values["tuned"] = tuning_record.parse(table["tuned"], path)
    if values["prompt"] not in ("chat", "compact"):
        raise CardError(f"{path}: prompt must be 'chat' or 'compact', but is {values['prompt']!r}")
    _check_files(values["files"], path)
    return Card(**values)


def _is_fact(value: object) -> bool:
    return isinstance(value, str | int | float)


_TABLES: Mapping[str, Callable[[Any], bool]] = {
    "files": lambda value: isinstance(value, str) and bool(_SHA256.fullmatch(value)),
    "made": _is_fact,
    "measured": _is_fact,
    "chat_template_kwargs": _is_fact,
    "gate": _is_fact,
}
_ALWAYS = ("files", "made", "measured")
"""Tables that are written even where they are empty."""
_SCALARS: Mapping[str, type] = {
    "name": str,
    "version": str,
    "summary": str,
    "license": str,
    "architecture": str,
    "parameters": int,
    "context_length": int,
    "prompt": str,
}
_LISTS = ("not_good_at", "knows")
_LINE = 100
"""Characters of a line of a list, where its items are shorter."""
_OPTIONAL = ("folder", "dtype", "quantization", "profile", "answer_prefix")
"""Strings that may be left out."""
_KEYS = tuple(f.name for f in fields(Card))


def _scalar(table: Mapping[str, Any], key: str, kind: type[str | int], path: Path) -> Any:
    if key not in table:
        raise CardError(f"{path}: key {key!r} is missing")
    value = table[key]
    # `type` and not isinstance: TOML's true is an int to Python.
    if type(value) is not kind or (isinstance(value, int) and value < 1):
        wanted = "a positive integer" if kind is int else "a string"
        raise CardError(f"{path}: {key} must be {wanted}, but is {value!r}")
    return value


def _table(
    table: Mapping[str, Any], key: str, holds: Callable[[Any], bool], path: Path
) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise CardError(f"{path}: [{key}] must be a table, but is {value!r}")
    for name, item in value.items():
        if not holds(item):
            wanted = "64 lower-case hex digits" if key == "files" else "a string or a number"
            raise CardError(f"{path}: [{key}] {name} must be {wanted}, but is {item!r}")
    return value


def _memory(value: Any, path: Path) -> ModelMemory:
    names = [f.name for f in fields(ModelMemory)]
    if not isinstance(value, dict) or set(value) != set(names):
        raise CardError(
            f"{path}: [memory] must hold {', '.join(names)}, but is {value!r}",
            hint="delete the card, and make it again: localhpo models add FOLDER",
        )
    for name, number in value.items():
        if type(number) is not int or number < 0:
            raise CardError(f"{path}: [memory] {name} must be an integer from 0, but is {number!r}")
    return ModelMemory(**value)


def _check_files(files: Mapping[str, str], path: Path) -> None:
    if not any(name.endswith(".safetensors") for name in files):
        raise CardError(f"{path}: [files] lists no *.safetensors")
    for name in files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CardError(f"{path}: [files] {name} must lie inside the model folder")


def _list(table: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise CardError(f"{path}: {key} must be a list of strings, but is {value!r}")
    return tuple(value)


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: object) -> str:
    """Spell a string, a number or a list of strings in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # TOML's basic strings take JSON's escapes, except that DEL must be escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    lines: list[str] = []
    for item in cast("tuple[str, ...]", value):
        said = f"{_toml(item)},"
        if lines and len(lines[-1]) + len(said) < _LINE:
            lines[-1] += f" {said}"
        else:
            lines.append(f"    {said}")
    return "\n".join(["[", *lines, "]"]) if lines else "[]"
