"""Refuses what a model folder must not hold: pickles, code, and links that lead out of it."""

from __future__ import annotations

import json
from pathlib import Path

from localhpo.errors import CardError
from localhpo.llm import model_registry

_CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json")


def check_folder(folder: Path) -> None:
    """Refuse a folder that could make whoever loads it run code, or read files of others.

    Raises:
        CardError: it could.
    """
    _refuse_links(folder)
    model_registry.refuse_code(folder)
    for name in _CONFIGS:
        _refuse_auto_map(folder / name)


def _refuse_links(folder: Path) -> None:
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise CardError(
                f"{path} is a link to {path.resolve()}, out of the model folder",
                hint="copy what the links lead to, as `cp -rL FOLDER COPY` does, and add the copy",
            )


def _refuse_auto_map(path: Path) -> None:
    """Refuse a configuration that asks for code of its repository to be run."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # not there, or no JSON: whoever needs it says so
    if isinstance(said, dict) and said.get("auto_map"):
        raise CardError(
            f"{path} asks for code of its own repository (auto_map: {said['auto_map']}), which is"
            " never run",
            hint="where transformers knows the architecture by itself, delete auto_map and the *.py"
            " files; else choose another model",
        )
