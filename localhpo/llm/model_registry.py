"""Model folders: whether they are what their card says, and where they are.

A model is a folder in Hugging Face layout, with a card (`localhpo.llm.card`) that names every
file with its sha256. Models that ship with LocalHPO have it inside. A model that a user brings
gets one on the user's shelf, `$LOCALHPO_MODELS` (`localhpo.llm.registration`): beside its files where
they lie there too, else in a folder that holds the card alone, which says where the files are.

A folder may come without a card: nothing is verified then, and its digest is computed. Either way
it holds no code and no pickle: weights are safetensors, and code that comes with a model is never
run.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localhpo import resources
from localhpo.errors import CardError, InputError, did_you_mean
from localhpo.llm.card import CARD, Card, digest_files, parse_card, render_card
from localhpo.llm.hashing import file_sha256
from localhpo.llm.tuning_record import templates_sha256

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

_RUNS = frozenset({".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".py"})
"""Suffixes of code and of pickles, which are code too. Never loaded, so never tolerated."""
_LOADED = frozenset({".gz", ".jinja", ".json", ".model", ".safetensors", ".txt"})
"""Suffixes of what a model is loaded from; a card must vouch for each."""


@dataclass(frozen=True, slots=True)
class ModelListing:
    """One line of a listing of models."""

    name: str
    """What a user types to choose it."""
    path: Path
    """Of its files."""
    card: Card | None
    size_bytes: int
    state: Literal["verified", "no card", "broken"]
    error: str = ""
    """Why it is broken."""
    hint: str = ""
    """What to do then."""


def read_card(folder: Path) -> Card:
    """Read the card of a model folder, in it or on the shelf; `verify` says whether it is true.

    Raises:
        CardError: there is none, or it cannot be understood.
    """
    place = _place_of(folder)
    if place is None:
        raise CardError(f"{folder} holds no {CARD}", hint=f"make one: localhpo models add {folder}")
    return _read(place / CARD)


def read_verified_card(folder: Path) -> Card | None:
    """Return the verified card of a folder; None for one without a card, which holds no code.

    Raises:
        CardError: there is no such folder, or it is not what its card says.
    """
    if not folder.is_dir():
        raise CardError(
            f"there is no model folder {folder}",
            hint="a model that was registered in place must stay there, or be added again",
        )
    if _place_of(folder) is None:
        refuse_code(folder)
        return None
    card = read_card(folder)
    verify_files(folder, card)
    return card


def find_base_folder(folder: Path, card: Card | None) -> Path:
    """Return the folder that the weights are loaded from: the base's for an adapter.

    Raises:
        CardError: a fine-tuned model whose base or prompt is not the one that it was trained on.
    """
    if card is None or card.tuned is None:
        return folder
    if templates_sha256(card.prompt) != card.tuned.prompt_sha256:
        raise CardError(
            f"model {card.name} was trained on other prompts than this version of LocalHPO has",
            hint="train it again: localhpo finetune",
        )
    if not card.is_adapter:
        return folder
    try:
        base = find_model(card.tuned.base)
    except InputError as exc:
        raise CardError(
            f"model {card.name} needs its base {card.tuned.base}, which is not here",
            hint="add it: localhpo models add",
        ) from exc
    theirs = read_verified_card(base)
    digest = theirs.digest if theirs else compute_digest(base)
    if digest != card.tuned.base_digest:
        raise CardError(
            f"model {card.name} was trained on a base of digest {card.tuned.base_digest}, but "
            f"{card.tuned.base} is {digest} here",
            hint="put that base back, or train again: localhpo finetune",
        )
    return base


def verify_files(folder: Path, card: Card) -> None:
    """Check that the folder holds exactly what its card vouches for.

    Raises:
        CardError: a file is missing, differs, is not in the card, or could be run.
    """
    refuse_code(folder)
    for difference in find_differences(folder, card):
        raise difference


def find_differences(folder: Path, card: Card, *, again: bool = False) -> Iterator[CardError]:
    """Yield how a folder differs from its card.

    Args:
        folder: Of the model's files.
        card: What they should be.
        again: Read every file, also one that was read before and seems unchanged.
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
                hint="copy the model folder again; a changed model needs a card of its own",
            )
    for name in list_loaded_files(folder):
        if name not in card.files:
            yield CardError(
                f"{folder / name} is not listed in [files] of {CARD}",
                hint="add it to the card with its sha256, or remove it",
            )


def refuse_code(folder: Path) -> None:
    """Refuse a folder with a file that could be run when it is loaded.

    Raises:
        CardError: one is there.
    """
    for name in list_files(folder):
        if Path(name).suffix.lower() in _RUNS:
            raise CardError(
                f"{folder / name} could run code when it is loaded; weights must be safetensors",
                hint="keep only *.safetensors, *.json and the tokenizer's files in a model folder",
            )


def compute_digest(folder: Path) -> str:
    """Return the digest of a folder without a card: the one that its card would give."""
    return digest_files(hash_files(folder))


def hash_files(folder: Path) -> dict[str, str]:
    """Return name and sha256 of every file that is loaded: `Card.files` of a new card."""
    return {name: file_sha256(folder / name) for name in list_loaded_files(folder)}


def find_model(name_or_path: str) -> Path:
    """Return the folder of a model's files, by the name that `entries` lists or by its path.

    Raises:
        InputError: there is none.
    """
    found = card_folders()
    for place in found:
        if place.name == name_or_path:
            return _folder_of(place)
    path = Path(name_or_path).expanduser()
    if name_or_path and path.is_dir():
        return _folder_of(path)
    known = sorted({place.name for place in found})
    raise InputError(
        f"no model {name_or_path!r}: it must be one of {', '.join(known) or '(none installed)'},"
        f" or the path of a local model folder",
        hint=did_you_mean(name_or_path, known)
        or "LocalHPO downloads nothing: copy a model here, then `localhpo models add FOLDER`",
    )


def read_cards() -> list[tuple[Path, Card]]:
    """Return the models that come with this install and those on the shelf: files, and card.

    Folders whose card cannot be read are left out; `entries` shows them too.
    """
    found = []
    for place in card_folders():
        with contextlib.suppress(CardError):
            found.append((_folder_of(place), _read(place / CARD)))
    return found


def list_models() -> list[ModelListing]:
    """Describe each model, verified or with the reason why not. Reads weights not seen before."""
    return [inspect_model(_folder_of(place), name=place.name) for place in card_folders()]


def inspect_model(folder: Path, *, name: str = "") -> ModelListing:
    """Describe one model. Reads its weights, where they were not seen before."""
    place = _place_of(folder)
    name = name or (place or folder).name
    if not folder.is_dir():
        return ModelListing(name, folder, None, 0, "broken", f"there is no folder {folder}")
    size = sum((folder / file).stat().st_size for file in list_files(folder))
    card = None
    try:
        if place is None:
            refuse_code(folder)
            return ModelListing(name, folder, None, size, "no card")
        card = read_card(folder)
        verify_files(folder, card)
    except CardError as exc:
        return ModelListing(name, folder, card, size, "broken", str(exc), exc.hint)
    return ModelListing(name, folder, card, size, "verified")


def registry_folder() -> Path:
    """Return the folder of the user's own models, which need not exist."""
    if own := os.environ.get("LOCALHPO_MODELS"):
        return Path(own).expanduser()
    root = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(root).expanduser() / "localhpo" / "models"


def card_folders() -> list[Path]:
    """Return the folder of each model's card, or of a model without one: shipped, then shelf."""
    roots = [registry_folder()]
    with contextlib.suppress(FileNotFoundError):  # an install may come without models
        roots.insert(0, resources.folder("models"))
    return [folder for root in roots for folder in _model_folders(root)]


def list_files(folder: Path) -> list[str]:
    """Return the paths inside a folder of its files, without hidden ones."""
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(
        name.as_posix() for name in found if not any(part[0] == "." for part in name.parts)
    )


def list_loaded_files(folder: Path) -> list[str]:
    """Return the paths inside a folder of the files that a model is loaded from."""
    return [name for name in list_files(folder) if Path(name).suffix.lower() in _LOADED]


def _read(path: Path) -> Card:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise CardError(f"{path.parent} holds no {CARD}") from exc
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise CardError(f"{path} cannot be read: {exc}") from exc
    return parse_card(table, path)


def _place_of(folder: Path) -> Path | None:
    """Return where the card of a model folder lies: in it, or on the shelf."""
    if (folder / CARD).is_file():
        return folder
    for place in _model_folders(registry_folder()):
        if _folder_of(place) != place and _folder_of(place) == folder.resolve():
            return place
    return None


def _folder_of(place: Path) -> Path:
    """Return where the files of a card lie."""
    try:
        elsewhere = _read(place / CARD).folder
    except CardError:
        return place
    return Path(elsewhere) if elsewhere else place


def _model_folders(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        return
    for folder in sorted(root.iterdir()):
        if (folder / CARD).is_file() or (folder / "config.json").is_file():
            yield folder
