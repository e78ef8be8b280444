"""Checks LoRA adapters for a running server, and stores them by their digest.

vLLM caches prompts by the name of the adapter: if other weights were loaded under the same name, it
would use the cache of the old ones. So the name and the folder of each version contain its digest.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from localhpo.errors import CardError
from localhpo.llm.models import registry as model_registry

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A version of an adapter."""

    name: str
    """Name in the server."""
    folder: Path
    digest: str
    known_parameters: frozenset[str] = frozenset()
    """Names of the hyperparameters that it was trained on, by its card."""


def store_adapter(folder: Path, store: Path, *, max_rank: int) -> Adapter:
    """Check an adapter in the format of peft, and copy it into the folder of its version.

    Args:
        folder: Folder with `adapter_config.json` and `adapter_model.safetensors`.
        store: Folder of all versions.
        max_rank: Highest rank that the server accepts.

    Raises:
        CardError: the folder is no adapter, differs from its card, holds code, or the rank is too
            high.
    """
    if not (folder / WEIGHTS).is_file():
        raise CardError(f"{folder} is not a LoRA adapter: it has no {WEIGHTS}")
    card = model_registry.read_verified_card(folder)
    rank = _rank(folder / CONFIG)
    if rank > max_rank:
        raise CardError(
            f"the adapter in {folder} has rank {rank}; the server accepts up to {max_rank}",
            hint=f"start the server with Settings(adapter_rank={rank})",
        )
    digest = model_registry.compute_digest(folder)
    target = store / digest[:16]
    if not target.is_dir():
        partial = store / f"{digest[:16]}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(folder / name, partial / name)
        partial.rename(target)
    known_parameters = frozenset(card.known_parameters) if card else frozenset()
    return Adapter(f"adapter@{digest[:12]}", target, digest, known_parameters)


def _rank(path: Path) -> int:
    try:
        rank = json.loads(path.read_text(encoding="utf-8"))["r"]
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise CardError(f"{path} does not have the rank of the adapter: {exc!r}") from exc
    if not isinstance(rank, int):
        raise CardError(f"{path}: r must be an integer, but is {rank!r}")
    return rank
