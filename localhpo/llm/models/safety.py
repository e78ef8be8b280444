"""Refuses unsafe model folders: with pickles, code, or links that lead out of the folder."""

from __future__ import annotations

import json
from pathlib import Path

from localhpo.errors import CardError
from localhpo.llm.models import registry as model_registry

_CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json")


def check_folder(folder: Path) -> None:
    """Refuse a folder that could run code when it is loaded, or give access to other files.

    Raises:
        CardError: the folder is unsafe.
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
                f"{path} is a link to {path.resolve()}, outside the model folder",
                hint="copy the folder with `cp -rL FOLDER COPY`, and add the copy",
            )


def _refuse_auto_map(path: Path) -> None:
    """Refuse a configuration that needs code of its repository."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # missing or not JSON: reported where the file is needed
    if isinstance(table, dict) and table.get("auto_map"):
        raise CardError(
            f"{path} needs code from its repository (auto_map: {table['auto_map']}), which is"
            " never run",
            hint="if transformers supports the architecture itself, delete auto_map and the *.py"
            " files; else choose another model",
        )
