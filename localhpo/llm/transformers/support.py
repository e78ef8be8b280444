"""Checks whether the installed version of transformers supports a model, without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localhpo.llm import offline


def find_unsupported(config: Mapping[str, Any]) -> list[str]:
    """Return the model type and architectures of a config.json that transformers does not support.

    Empty if transformers is not installed or cannot be imported.
    """
    try:
        with offline.imported_offline():
            import transformers
    except (ImportError, OSError, RuntimeError):
        return []  # RuntimeError: compiled code of incompatible builds
    kind, classes = str(config.get("model_type")), dir(transformers)
    found = [] if kind in transformers.CONFIG_MAPPING else [f"model_type {kind}"]
    named = config.get("architectures") or ()
    return found + [f"architecture {name}" for name in named if name not in classes]
