"""Model registry: finds the models on this machine, and verifies them against their cards.

A model is a folder in Hugging Face layout with a card (`localhpo.llm.models.card`) that lists every
file with its sha256. Models that ship with LocalHPO have their card inside. The card of a user's
model is in the user's model registry, the folder `$LOCALHPO_MODELS` (`registration`): beside the
files if they are there too, else in a folder of its own that names the folder of the files.

A folder without a card is not verified, and its digest is computed. No model folder may hold code
or pickles: weights are safetensors, and code that comes with a model is never run.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localhpo import assets
from localhpo.errors import CardError, InputError, did_you_mean
from localhpo.llm.models.card import (
    CARD,
    Card,
    digest_files,
    parse_card,
    render_card,
    templates_sha256,
)
from localhpo.llm.models.hashing import file_sha256

__all__ = [
    "CARD",
    "DEFAULT",
    "Card",
    "ModelListing",
    "card_folders",
    "compute_digest",
    "find_base_folder",
    "find_differences",
    "find_model",
    "hash_files",
    "inspect_model",
    "list_files",
    "list_loaded_files",
    "list_models",
    "read_card",
    "read_cards",
    "read_verified_card",
    "refuse_code",
    "registry_folder",
    "render_card",
    "verify_files",
]

DEFAULT = "sprout"
"""The built-in model."""

_CODE_SUFFIXES = frozenset(
    {".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".py"}
)
"""Suffixes of code and of pickles, which are code too. Never loaded, so never tolerated."""
_LOADED_SUFFIXES = frozenset({".gz", ".jinja", ".json", ".model", ".safetensors", ".txt"})
"""Suffixes of files that a model is loaded from; a card must list each."""


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A model in the listing of models."""

    name: str
    """Name by which a user selects it."""
    path: Path
    """Folder of its files."""
    card: Card | None
    size_bytes: int
    state: Literal["verified", "no card", "broken"]
    error: str = ""
    """Why it is broken; empty if it is not."""
    hint: str = ""
    """What to do about it."""


def read_card(folder: Path) -> Card:
    """Read the card of a model folder, from the folder or the registry. It is not verified.

    Raises:
        CardError: there is no card, or it cannot be read.
    """
    card_folder = _card_folder_of(folder)
    if card_folder is None:
        raise CardError(f"{folder} has no {CARD}", hint=f"write one: localhpo models add {folder}")
    return _read(card_folder / CARD)


def read_verified_card(folder: Path) -> Card | None:
    """Return the verified card of a folder; None for a folder without a card, which has no code.

    Raises:
        CardError: there is no such folder, it holds code, or it differs from its card.
    """
    if not folder.is_dir():
        raise CardError(
            f"there is no model folder {folder}",
            hint="if the model was added without --copy and moved since, add it again",
        )
    if _card_folder_of(folder) is None:
        refuse_code(folder)
        return None
    card = read_card(folder)
    verify_files(folder, card)
    return card


def find_base_folder(folder: Path, card: Card | None) -> Path:
    """Return the folder of the weights: that of the base for an adapter.

    Raises:
        CardError: a fine-tuned model was trained on another base or other prompts.
    """
    if card is None or card.tuned is None:
        return folder
    if templates_sha256(card.prompt) != card.tuned.prompt_sha256:
        raise CardError(
            f"model {card.name} was trained on the prompts of another version of LocalHPO",
            hint="train a new one: localhpo finetune",
        )
    if not card.is_adapter:
        return folder
    try:
        base = find_model(card.tuned.base)
    except InputError as exc:
        raise CardError(
            f"model {card.name} needs its base {card.tuned.base}, which is not on this machine",
            hint="add it: localhpo models add",
        ) from exc
    base_card = read_verified_card(base)
    digest = base_card.digest if base_card else compute_digest(base)
    if digest != card.tuned.base_digest:
        raise CardError(
            f"model {card.name} was trained on a base of digest {card.tuned.base_digest}, but "
            f"{card.tuned.base} is {digest} here",
            hint="restore that base, or train a new model: localhpo finetune",
        )
    return base


def verify_files(folder: Path, card: Card) -> None:
    """Check that the folder holds exactly the files of its card.

    Raises:
        CardError: a file is missing, differs, is not in the card, or is code.
    """
    refuse_code(folder)
    for difference in find_differences(folder, card):
        raise difference


def find_differences(folder: Path, card: Card, *, again: bool = False) -> Iterator[CardError]:
    """Yield each difference between a folder and its card.

    Args:
        folder: Folder of the model's files.
        card: Card of the model.
        again: Read every file, even those whose hashes are cached.
    """
    for name, expected in sorted(card.files.items()):
        path = folder / name
        if not path.is_file():
            yield CardError(
                f"{path} is missing, but {CARD} lists it", hint="copy the model folder again"
            )
        elif (found := file_sha256(path, again=again)) != expected:
            yield CardError(
                f"{path} is not the file that {CARD} lists: sha256 must be {expected}, is {found}",
                hint="copy the model folder again; a changed model needs a new card",
            )
    for name in list_loaded_files(folder):
        if name not in card.files:
            yield CardError(
                f"{folder / name} is not listed in [files] of {CARD}",
                hint="add it to the card with its sha256, or remove it",
            )


def refuse_code(folder: Path) -> None:
    """Refuse a folder that holds code or pickles.

    Raises:
        CardError: there is such a file.
    """
    for name in list_files(folder):
        if Path(name).suffix.lower() in _CODE_SUFFIXES:
            raise CardError(
                f"{folder / name} could run code when it is loaded; weights must be safetensors",
                hint="keep only *.safetensors, *.json and the tokenizer's files in a model folder",
            )


def compute_digest(folder: Path) -> str:
    """Return the digest of a folder without a card: the one that its card would have."""
    return digest_files(hash_files(folder))


def hash_files(folder: Path) -> dict[str, str]:
    """Return path -> sha256 of every file that a model is loaded from, as in `Card.files`."""
    return {name: file_sha256(folder / name) for name in list_loaded_files(folder)}


def find_model(name_or_path: str) -> Path:
    """Return the folder of a model's files, by its name or path.

    Raises:
        InputError: there is no such model.
    """
    found = card_folders()
    for card_folder in found:
        if card_folder.name == name_or_path:
            return _files_folder_of(card_folder)
    path = Path(name_or_path).expanduser()
    if name_or_path and path.is_dir():
        return _files_folder_of(path)
    known = sorted({card_folder.name for card_folder in found})
    raise InputError(
        f"no model {name_or_path!r}: it must be one of {', '.join(known) or '(none installed)'},"
        f" or the path of a model folder",
        hint=did_you_mean(name_or_path, known)
        or "LocalHPO downloads nothing: copy the model here, then: localhpo models add FOLDER",
    )


def read_cards() -> list[tuple[Path, Card]]:
    """Return folder and card of each model, those that ship first.

    Folders whose card cannot be read are left out; `list_models` shows them.
    """
    found = []
    for card_folder in card_folders():
        with contextlib.suppress(CardError):
            found.append((_files_folder_of(card_folder), _read(card_folder / CARD)))
    return found


def list_models() -> list[ModelListing]:
    """Return each model, verified or with an error. Reads weights whose hashes are not cached."""
    return [
        inspect_model(_files_folder_of(card_folder), name=card_folder.name)
        for card_folder in card_folders()
    ]


def inspect_model(folder: Path, *, name: str = "") -> ModelListing:
    """Return one model for a listing. Reads its weights unless their hashes are cached."""
    card_folder = _card_folder_of(folder)
    name = name or (card_folder or folder).name
    if not folder.is_dir():
        return ModelListing(name, folder, None, 0, "broken", f"there is no folder {folder}")
    size = sum((folder / file).stat().st_size for file in list_files(folder))
    card = None
    try:
        if card_folder is None:
            refuse_code(folder)
            return ModelListing(name, folder, None, size, "no card")
        card = read_card(folder)
        verify_files(folder, card)
    except CardError as exc:
        return ModelListing(name, folder, card, size, "broken", str(exc), exc.hint)
    return ModelListing(name, folder, card, size, "verified")


def registry_folder() -> Path:
    """Return the folder of the user's model registry, which need not exist."""
    if own := os.environ.get("LOCALHPO_MODELS"):
        return Path(own).expanduser()
    root = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(root).expanduser() / "localhpo" / "models"


def card_folders() -> list[Path]:
    """Return the folder of each card, or of a model without one; those that ship first."""
    roots = [registry_folder()]
    with contextlib.suppress(FileNotFoundError):  # an installation may have no models
        roots.insert(0, assets.folder("models"))
    return [folder for root in roots for folder in _model_folders(root)]


def list_files(folder: Path) -> list[str]:
    """Return the relative paths of the files in a folder, without hidden ones."""
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(
        name.as_posix() for name in found if not any(part[0] == "." for part in name.parts)
    )


def list_loaded_files(folder: Path) -> list[str]:
    """Return the relative paths of the files that a model is loaded from."""
    return [name for name in list_files(folder) if Path(name).suffix.lower() in _LOADED_SUFFIXES]


def _read(path: Path) -> Card:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise CardError(f"{path.parent} holds no {CARD}") from exc
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise CardError(f"{path} cannot be read: {exc}") from exc
    return parse_card(table, path)


def _card_folder_of(folder: Path) -> Path | None:
    """Return the folder of a model folder's card: itself, or one in the registry."""
    if (folder / CARD).is_file():
        return folder
    for card_folder in _model_folders(registry_folder()):
        if (
            _files_folder_of(card_folder) != card_folder
            and _files_folder_of(card_folder) == folder.resolve()
        ):
            return card_folder
    return None


def _files_folder_of(card_folder: Path) -> Path:
    """Return the folder of a card's files."""
    try:
        elsewhere = _read(card_folder / CARD).folder
    except CardError:
        return card_folder
    return Path(elsewhere) if elsewhere else card_folder


def _model_folders(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        return
    for folder in sorted(root.iterdir()):
        if (folder / CARD).is_file() or (folder / "config.json").is_file():
            yield folder
