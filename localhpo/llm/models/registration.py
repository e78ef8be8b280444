"""Adds a user's model to the model registry: checks its folder and writes its card.

Everything on the card comes from the folder's own files: config.json, the headers of the weights,
the chat template, the README. A folder that holds code, is incomplete, or has weights of another
architecture than config.json says is refused. Its files stay where they are unless a copy is asked
for: models have tens of gigabytes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from localhpo.errors import CardError, InputError
from localhpo.llm.models import config, profiles, safety, thinking, weights
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models.card import CARD, Card, render_card
from localhpo.llm.models.config import ModelShape
from localhpo.llm.models.description import read_license
from localhpo.llm.models.hashing import file_sha256
from localhpo.llm.models.memory import ModelMemory
from localhpo.llm.models.weights import WeightsSummary

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FAST = "tokenizer.json"
_TOKENIZERS = (_FAST, "tokenizer.model", "vocab.json", "tekken.json")
_COPY_AGAIN = "copy the model folder again; a download may have been cut off"
_LAYOUT = " in Hugging Face layout, with safetensors weights"
_GGUF = (
    "a GGUF file can be served by llama.cpp: llama-server -m FILE, then localhpo run TASK"
    " --backend openai --url http://127.0.0.1:8080/v1"
)

OnFile = Callable[[Path], None]
"""Called with each file before it is read, which can take minutes."""


def register_model(
    path: Path, name: str = "", *, copy: bool = False, on_file: OnFile | None = None
) -> Card:
    """Check a model folder, add it to the model registry, and return its card.

    Args:
        path: The folder, in Hugging Face layout.
        name: Name of the model; that of the folder by default.
        copy: Copy the files to the registry; else they are used where they are.
        on_file: Called with each file before it is read.

    Raises:
        InputError: the name is invalid or taken, or there is no such folder.
        CardError: the folder is unsafe, incomplete, or no usable model; or the registry cannot be
            written.
    """
    _check_folder(path)
    folder = path.resolve()
    name = name or folder.name
    _check_name(name, folder)
    card = build_card(folder, name, on_file)
    target = model_registry.registry_folder() / name
    try:
        if copy and target != folder:
            _copy(folder, target, card)
        elif target != folder:
            card = replace(card, folder=str(folder))
        target.mkdir(parents=True, exist_ok=True)
        (target / CARD).write_text(render_card(card), encoding="utf-8")
    except OSError as exc:
        raise CardError(
            f"the model registry cannot be written: {exc}",
            hint="set LOCALHPO_MODELS to a folder that you can write to",
        ) from exc
    return card


def build_card(folder: Path, name: str, on_file: OnFile | None = None) -> Card:
    """Return the card of a folder, without writing it.

    Raises:
        CardError: the folder is unsafe, incomplete, or no usable model.
    """
    safety.check_folder(folder)
    table = config.read_config(folder)
    config.check_architecture(table)
    shape, found, memory = measure_model(folder)
    _check_tokenizer(folder)
    switch = thinking.find_switch(thinking.read_chat_template(folder))
    return Card(
        name=name,
        version="1",
        summary=f"{shape.architecture}, added from {folder.name}",
        license=read_license(folder),
        architecture=shape.architecture,
        parameters=found.parameters,
        context_length=shape.context_length,
        prompt="chat",
        files=_hashes(folder, on_file),
        dtype=shape.dtype,
        quantization=shape.quantization,
        profile=profiles.match_profile(folder.name, table),
        chat_template_kwargs=switch.chat_template_kwargs,
        answer_prefix=switch.answer_prefix,
        memory=memory,
    )


def measure_model(folder: Path, devices: int = 1) -> tuple[ModelShape, WeightsSummary, ModelMemory]:
    """Return shape, weights and memory of a model, from config.json and the weights' headers.

    Args:
        folder: Folder of the model.
        devices: Number of devices that it is split over; the memory is that of each.

    Raises:
        CardError: the folder is incomplete, or its weights are those of another model.
    """
    table = config.read_config(folder)
    shape = config.parse_shape(table, devices)
    found = weights.summarize_weights(weights.read_headers(folder), shape)
    if not shape.dtype:
        shape = config.parse_shape({**table, "dtype": found.dtype}, devices)
    return shape, found, replace(shape.cache, weights_bytes=found.size_bytes // devices)


def _check_folder(path: Path) -> None:
    if path.is_file():
        hint = _GGUF if path.suffix.lower() == ".gguf" else "give the folder that holds it"
        raise InputError(f"a model must be a folder{_LAYOUT}, but {path} is a file", hint=hint)
    if not path.is_dir():
        raise InputError(f"there is no model folder {path}")
    if not (path / "config.json").is_file() and (found := sorted(path.glob("*.gguf"))):
        raise InputError(
            f"a model must be a folder{_LAYOUT}, but {path} holds {found[0].name}", hint=_GGUF
        )


def _check_tokenizer(folder: Path) -> None:
    found = [folder / name for name in _TOKENIZERS if (folder / name).is_file()]
    if not found:
        raise CardError(
            f"{folder} has no tokenizer: none of {', '.join(_TOKENIZERS)}", hint=_COPY_AGAIN
        )
    for path in found:
        if not path.stat().st_size:
            raise CardError(f"{path} is empty", hint=_COPY_AGAIN)
        if path.suffix == ".json":
            _check_table(path, "model" if path.name == _FAST else "")


def _check_table(path: Path, key: str) -> None:
    """Refuse a file that holds no JSON object, or one without the key."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise CardError(f"{path} cannot be read: {exc}", hint=_COPY_AGAIN) from exc
    if not isinstance(table, dict) or (key and not isinstance(table.get(key), dict)):
        what = f"an object with {key}" if key else "an object"
        raise CardError(f"{path} is not a tokenizer file: it must hold {what}", hint=_COPY_AGAIN)


def _check_name(name: str, folder: Path) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"a model's name must be letters, digits, '.', '_' and '-', but is {name!r}",
            hint="choose one with --name",
        )
    for target in model_registry.card_folders():
        if target.name == name and model_registry.find_model(name).resolve() != folder:
            raise InputError(
                f"a model {name!r} exists already, in {model_registry.find_model(name)}",
                hint=f"choose another name with --name, or delete {target} first",
            )


def _hashes(folder: Path, on_file: OnFile | None) -> dict[str, str]:
    hashes = {}
    for file in model_registry.list_loaded_files(folder):
        if on_file:
            on_file(folder / file)
        hashes[file] = file_sha256(folder / file)
    return hashes


def _copy(folder: Path, target: Path, card: Card) -> None:
    """Copy the files of the card; an interrupted copy is removed."""
    needed = sum((folder / file).stat().st_size for file in card.files)
    target.parent.mkdir(parents=True, exist_ok=True)
    if needed > (free := shutil.disk_usage(target.parent).free):
        raise CardError(
            f"{target.parent} has {free / 1e9:.1f} GB free, the copy needs {needed / 1e9:.1f} GB",
            hint="leave out --copy to use the model where it is",
        )
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for file in card.files:
            (unfinished / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, unfinished / file)
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
