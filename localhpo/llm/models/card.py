"""The card of a model, which describes it, and its spelling in TOML.

    name = "sprout"
    version = "1"
    summary = "one line for a listing"
    license = "MIT"
    architecture = "llama"
    parameters = 9_500_000
    context_length = 2048
    prompt = "compact"               # prompt templates: "compact" or "chat"
    limitations = ["kinds of models that it was not trained on"]
    known_parameters = ["learning_rate"]      # small models: hyperparameters it was trained on

    [files]                          # every file that is loaded
    "model.safetensors" = "<sha256>"

    [made]                           # how it was trained: script, data, tokens, seconds, device
    [measured]                       # benchmark results

Written by `localhpo models add`, for a model of the user:

    folder = "/data/Qwen3-8B"        # folder of the files, if not that of the card
    dtype = "bfloat16"
    quantization = ""                # such as "gptq, 4 bit"
    answer_prefix = ""               # start of each answer, where that skips the reasoning

    [chat_template_kwargs]           # arguments of its chat template that switch reasoning off
    enable_thinking = false

    [memory]                         # `localhpo.llm.models.memory.ModelMemory`

Written by `localhpo finetune`:

    [tuned]
    base = "sprout"
    base_digest = "<digest of the base's files>"
    prompt_sha256 = "<of the templates that it was trained on>"
    method = "lora"                  # or "full": a model folder of its own
    status = "accepted"              # refused, undecided, forced, withdrawn
    reason = "a sentence"
    studies = ["water/main"]
    held_out = ["cover/main"]
    trials = 160
    made_at = 1790000000.0

    [evaluation]                     # losses, regrets, p

A fine-tuned model is refused with another base or other templates: it was not trained for them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

from localhpo import assets
from localhpo.errors import CardError, did_you_mean
from localhpo.llm.models.memory import ModelMemory

CARD = "card.toml"

RENAMED_KEYS: Mapping[str, str] = {
    "not_good_at": "limitations",
    "knows": "known_parameters",
    "gate": "evaluation",
}
"""Old key -> key: cards of earlier versions are still read."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Card:
    """Description of a model. Fields as in `card.toml`."""

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
    """How it was trained: script, data, tokens, seconds, device."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Benchmark results."""
    limitations: tuple[str, ...] = ()
    known_parameters: tuple[str, ...] = ()
    """Names of the hyperparameters that a small model was trained on."""
    folder: str = ""
    """Folder of the files, if not that of the card: a model that was added without a copy."""
    dtype: str = ""
    """Type of most weights, as torch names it."""
    quantization: str = ""
    """How the weights are packed, such as `gptq, 4 bit`; empty where they are not."""
    profile: str = ""
    """Name of the matching profile in `profiles.toml`, if any."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the chat template that switch reasoning off."""
    answer_prefix: str = ""
    """Start of each answer: closes a reasoning block that the template opens."""
    memory: ModelMemory | None = None
    """Memory that it needs on a device; None where it is not known."""
    tuned: TuningRecord | None = None
    """How it was fine-tuned here; None for every other model."""
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    """What the evaluation of a fine-tuned model measured."""

    @property
    def identity(self) -> str:
        """Digest that proposals record; a fine-tuned model has that of its base in front."""
        return f"{self.tuned.base_digest}+{self.digest}" if self.tuned else self.digest

    @property
    def is_adapter(self) -> bool:
        """Whether it is a LoRA adapter, which needs its base."""
        return self.tuned is not None and self.tuned.method == "lora"

    @property
    def digest(self) -> str:
        """sha256 over the sorted lines `file sha256`: equal if and only if all files are."""
        return digest_files(self.files)


def digest_files(files: Mapping[str, str]) -> str:
    """Return the sha256 over the sorted lines `file sha256`."""
    from hashlib import sha256

    lines = "".join(f"{name} {sha}\n" for name, sha in sorted(files.items()))
    return sha256(lines.encode()).hexdigest()


def render_card(card: Card) -> str:
    """Return the text of `card.toml`; `parse` reads it back as an equal card."""
    values = asdict(card)
    lines = [f"{key} = {_toml(values[key])}" for key in _SCALARS]
    lines += [f"{key} = {_toml(values[key])}" for key in _OPTIONAL if values[key]]
    lines += [f"{key} = {_toml(values[key])}" for key in _LISTS]
    for key in (*_TABLES, "memory", "tuned"):
        table = values[key] or {}
        if table or key in _ALWAYS:
            lines += ["", f"[{key}]", *(f"{_toml_key(k)} = {_toml(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def card_record(card: Card) -> dict[str, Any]:
    """Return a card as a table for JSON, which also has the keys of earlier versions."""
    record = asdict(card)
    if card.tuned is not None:
        tuned = record["tuned"]
        tuned |= {old: tuned[new] for old, new in RENAMED_TUNED_KEYS.items()}
    return record | {old: record[new] for old, new in RENAMED_KEYS.items()}


def parse_card(table: Mapping[str, Any], path: Path) -> Card:
    """Return the card in a TOML table.

    Args:
        table: The table, as read from the file.
        path: Path of the file, for messages.

    Raises:
        CardError: a key is unknown, missing, or has an invalid value.
    """
    table = {RENAMED_KEYS.get(key, key): value for key, value in table.items()}
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
        values["tuned"] = _parse_tuned(table["tuned"], path)
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
    "evaluation": _is_fact,
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
_LISTS = ("limitations", "known_parameters")
_LINE = 100
"""Length of the lines of a list, where its items are shorter."""
_OPTIONAL = ("folder", "dtype", "quantization", "profile", "answer_prefix")
"""Strings that may be left out."""
_KEYS = tuple(f.name for f in fields(Card))


def _scalar(table: Mapping[str, Any], key: str, kind: type[str | int], path: Path) -> Any:
    if key not in table:
        raise CardError(f"{path}: key {key!r} is missing")
    value = table[key]
    # `type` and not isinstance: TOML's true is an int to Python.
    if type(value) is not kind or (isinstance(value, int) and value < 1):
        expected = "a positive integer" if kind is int else "a string"
        raise CardError(f"{path}: {key} must be {expected}, but is {value!r}")
    return value


def _table(
    table: Mapping[str, Any], key: str, holds: Callable[[Any], bool], path: Path
) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise CardError(f"{path}: [{key}] must be a table, but is {value!r}")
    for name, item in value.items():
        if not holds(item):
            expected = "64 lower-case hex digits" if key == "files" else "a string or a number"
            raise CardError(f"{path}: [{key}] {name} must be {expected}, but is {item!r}")
    return value


def _memory(value: Any, path: Path) -> ModelMemory:
    names = [f.name for f in fields(ModelMemory)]
    if not isinstance(value, dict) or set(value) != set(names):
        raise CardError(
            f"{path}: [memory] must hold {', '.join(names)}, but is {value!r}",
            hint="delete the card and write a new one: localhpo models add FOLDER",
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
    """Return a string, a number or a list of strings in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # TOML's basic strings take JSON's escapes, except that DEL must be escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    lines: list[str] = []
    for item in cast("tuple[str, ...]", value):
        spelled = f"{_toml(item)},"
        if lines and len(lines[-1]) + len(spelled) < _LINE:
            lines[-1] += f" {spelled}"
        else:
            lines.append(f"    {spelled}")
    return "\n".join(["[", *lines, "]"]) if lines else "[]"


Method = Literal["lora", "full"]
VersionStatus = Literal["accepted", "refused", "undecided", "forced", "withdrawn"]

IN_USE: frozenset[VersionStatus] = frozenset({"accepted", "forced"})
"""Statuses of models that studies may use: the evaluation or the user accepted them."""

ADAPTER_RANK = 16
"""Rank of adapters that are trained here; servers are started for it."""

RENAMED_TUNED_KEYS: Mapping[str, str] = {"gate": "status", "why": "reason"}
"""Old key of `[tuned]` -> key."""

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "compact": ("compact.txt.j2",),
    "chat": ("system.md.j2", "propose.md.j2"),
}
"""Prompt style -> its templates in `prompts/`."""


@dataclass(frozen=True, slots=True)
class TuningRecord:
    """How a model was fine-tuned. Fields as in `card.toml`."""

    base: str
    """Name of the base in the model registry, or its folder."""
    base_digest: str
    prompt_sha256: str
    method: Method
    status: VersionStatus
    reason: str
    studies: tuple[str, ...]
    """Names of the studies that it was trained on."""
    held_out: tuple[str, ...]
    """Names of the studies that were kept aside for the evaluation."""
    trials: int
    """Number of trials that it was trained on."""
    made_at: float
    """Time of training, in seconds since the epoch (UTC)."""


def templates_sha256(style: str) -> str:
    """Return the hash of the templates of a prompt style."""
    folder = assets.folder("prompts")
    texts = [(folder / name).read_bytes() for name in TEMPLATES[style]]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _parse_tuned(table: Any, path: Path) -> TuningRecord:
    """Return the record in a TOML table.

    Raises:
        CardError: a key is missing, unknown, or has an invalid value.
    """
    names = [f.name for f in fields(TuningRecord)]
    if isinstance(table, dict):
        table = {RENAMED_TUNED_KEYS.get(key, key): value for key, value in table.items()}
    if not isinstance(table, dict) or set(table) != set(names):
        raise CardError(f"{path}: [tuned] must hold {', '.join(names)}, but is {table!r}")
    kinds = {"trials": int, "made_at": int | float, "studies": list, "held_out": list}
    for name in names:
        if not isinstance(table[name], kinds.get(name, str)):
            raise CardError(f"{path}: [tuned] {name} cannot be {table[name]!r}")
    for name, allowed in (("method", get_args(Method)), ("status", get_args(VersionStatus))):
        if table[name] not in allowed:
            raise CardError(
                f"{path}: [tuned] {name} must be one of {', '.join(allowed)}, "
                f"but is {table[name]!r}"
            )
    lists = {name: tuple(table[name]) for name in ("studies", "held_out")}
    return TuningRecord(**{**table, **lists})
