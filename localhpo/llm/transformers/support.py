"""What the transformers that is installed knows of models, without loading any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localhpo.llm import offline


def find_unsupported(config: Mapping[str, Any]) -> list[str]:
    """Return what a config.json names that transformers does not know: model type, architectures.

    Nothing where transformers is not there, or cannot be imported: then nobody can tell.
    """
    try:
        with offline.imported_offline():
            import transformers
    except (ImportError, OSError, RuntimeError):
        return []  # compiled code of one build beside that of another ends so too
    kind, classes = str(config.get("model_type")), dir(transformers)
    found = [] if kind in transformers.CONFIG_MAPPING else [f"model_type {kind}"]
    named = config.get("architectures") or ()
    return found + [f"architecture {name}" for name in named if name not in classes]
