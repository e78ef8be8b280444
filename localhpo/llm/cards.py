"""Model folders: what their card says, whether it is true, and where they are.

A model is a folder in Hugging Face layout. `card.toml` in it names every file with its sha256:

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

A user's own folder may come without a card: nothing is verified then, and its digest is
computed. Either way it holds no code and no pickle: weights are safetensors, and code that
comes with a model is never run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

from localhpo import resources
from localhpo.errors import CardError, InputError, did_you_mean

DEFAULT = "sprout"
"""The built-in model."""

CARD = "card.toml"

_RUNS = frozenset({".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".py"})
"""Suffixes of code and of pickles, which are code too. Never loaded, so never tolerated."""
_LOADED = frozenset({".jinja", ".json", ".model", ".safetensors", ".txt"})
"""Suffixes of what a model is loaded from; a card must vouch for each."""
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

    @property
    def digest(self) -> str:
        """sha256 over the sorted lines `file sha256`: equal iff all files are."""
        return _digest_of(self.files)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing of models."""

    name: str
    """What a user types to choose it."""
    path: Path
    card: Card | None
    size_bytes: int
    state: Literal["verified", "no card", "broken"]
    error: str = ""
    """Why it is broken."""


def load(folder: Path) -> Card:
    """Read `card.toml` of a model folder; `verify` says whether it is true.

    Raises:
        CardError: there is none, or it cannot be understood.
    """
    path = folder / CARD
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise CardError(f"{folder} holds no {CARD}") from exc
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise CardError(f"{path} cannot be read: {exc}") from exc
    return _parse(table, path)


def verify(folder: Path, card: Card) -> None:
    """Check that the folder holds exactly what its card vouches for.

    Raises:
        CardError: a file is missing, differs, is not in the card, or could be run.
    """
    refuse_code(folder)
    for name, expected in sorted(card.files.items()):
        path = folder / name
        if not path.is_file():
            raise CardError(
                f"{path} is missing, but {CARD} lists it", hint="copy the model folder again"
            )
        if (found := _file_sha256(path)) != expected:
            raise CardError(
                f"{path} is not the file that {CARD} lists: sha256 must be {expected}, is {found}",
                hint="copy the model folder again; a changed model needs a card of its own",
            )
    for name in _loaded_files(folder):
        if name not in card.files:
            raise CardError(
                f"{folder / name} is not listed in [files] of {CARD}",
                hint="add it to the card with its sha256, or remove it",
            )


def refuse_code(folder: Path) -> None:
    """Refuse a folder with a file that could be run when it is loaded.

    Raises:
        CardError: one is there.
    """
    for name in _names(folder):
        if Path(name).suffix.lower() in _RUNS:
            raise CardError(
                f"{folder / name} could run code when it is loaded; weights must be safetensors",
                hint="keep only *.safetensors, *.json and the tokenizer's files in a model folder",
            )


def fingerprint(folder: Path) -> str:
    """Return the digest of a folder without a card: the one that its card would give."""
    return _digest_of(hash_files(folder))


def hash_files(folder: Path) -> dict[str, str]:
    """Return name and sha256 of every file that is loaded: `Card.files` of a new card."""
    return {name: _file_sha256(folder / name) for name in _loaded_files(folder)}


def find(name_or_path: str) -> Path:
    """Return the folder of a model, by the name that `available` lists or by its path.

    Raises:
        InputError: there is none.
    """
    folders = _folders()
    for folder in folders:
        if folder.name == name_or_path:
            return folder
    path = Path(name_or_path).expanduser()
    if name_or_path and path.is_dir():
        return path
    names = sorted({folder.name for folder in folders})
    raise InputError(
        f"no model {name_or_path!r}: it must be one of {', '.join(names) or '(none installed)'},"
        f" or the path of a local model folder",
        hint=did_you_mean(name_or_path, names)
        or "LocalHPO downloads nothing: copy a model here, or set LOCALHPO_MODELS to the folder"
        " that holds your models",
    )


def available() -> list[tuple[Path, Card]]:
    """Return the models that come with this install and those below `$LOCALHPO_MODELS`.

    Folders whose card cannot be read are left out; `entries` shows them too.
    """
    found = []
    for folder in _folders():
        try:
            found.append((folder, load(folder)))
        except CardError:
            continue
    return found


def entries() -> list[Entry]:
    """Describe each model, verified or with the reason why not. Reads all their weights."""
    return [entry(folder) for folder in _folders()]


def entry(folder: Path) -> Entry:
    """Describe one model. Reads all its weights."""
    size = sum((folder / name).stat().st_size for name in _names(folder))
    card = None
    try:
        if not (folder / CARD).is_file():
            refuse_code(folder)
            return Entry(folder.name, folder, None, size, "no card")
        card = load(folder)
        verify(folder, card)
    except CardError as exc:
        return Entry(folder.name, folder, card, size, "broken", str(exc))
    return Entry(folder.name, folder, card, size, "verified")


def render(card: Card) -> str:
    """Return the text of `card.toml`; `load` reads it back as an equal card."""
    lines = []
    for key in _SCALARS:
        lines.append(f"{key} = {_toml(getattr(card, key))}")
    lines += [f"{key} = {_toml(getattr(card, key))}" for key in _LISTS]
    for key in _TABLES:
        lines += ["", f"[{key}]"]
        lines += [f"{_toml_key(name)} = {_toml(v)}" for name, v in getattr(card, key).items()]
    return "\n".join(lines) + "\n"


_TABLES: Mapping[str, Callable[[Any], bool]] = {
    "files": lambda value: isinstance(value, str) and bool(_SHA256.fullmatch(value)),
    "made": lambda value: isinstance(value, str | int | float),
    "measured": lambda value: isinstance(value, str | int | float),
}
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
_LINE = 100
"""Characters of a line of a list, where its items are shorter."""
_LISTS = ("not_good_at", "knows")
_KEYS = tuple(f.name for f in fields(Card))


def _parse(table: Mapping[str, Any], path: Path) -> Card:
    for key in table:
        if key not in _KEYS:
            raise CardError(f"{path}: unknown key {key!r}", hint=did_you_mean(key, _KEYS))
    values: dict[str, Any] = {key: _list(table, key, path) for key in _LISTS}
    values |= {key: _scalar(table, key, kind, path) for key, kind in _SCALARS.items()}
    values |= {key: _table(table, key, holds, path) for key, holds in _TABLES.items()}
    if values["prompt"] not in ("chat", "compact"):
        raise CardError(f"{path}: prompt must be 'chat' or 'compact', but is {values['prompt']!r}")
    _check_files(values["files"], path)
    return Card(**values)


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


def _folders() -> list[Path]:
    roots = []
    with contextlib.suppress(FileNotFoundError):  # an install may come without models
        roots.append(resources.folder("models"))
    if own := os.environ.get("LOCALHPO_MODELS"):
        roots.append(Path(own).expanduser())
    return [folder for root in roots for folder in _model_folders(root)]


def _model_folders(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        return
    for folder in sorted(root.iterdir()):
        if (folder / CARD).is_file() or (folder / "config.json").is_file():
            yield folder


def _names(folder: Path) -> list[str]:
    """Paths inside the folder of its files, without hidden ones."""
    names = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(
        name.as_posix() for name in names if not any(part[0] == "." for part in name.parts)
    )


def _loaded_files(folder: Path) -> list[str]:
    return [name for name in _names(folder) if Path(name).suffix.lower() in _LOADED]


def _file_sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - part of the cache's key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(files: Mapping[str, str]) -> str:
    lines = "".join(f"{name} {sha}\n" for name, sha in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


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
