"""LoRA adapters for a running server: checked, and stored under what they hold.

vLLM keeps what it has read of a prompt by the name of the adapter. One that is loaded again, from
the same path and with other weights, is answered from the old one's memory. So each version has a
name and a folder of its own, both made of its digest.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from localhpo.errors import CardError
from localhpo.llm import model_registry

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Adapter:
    """One version of an adapter."""

    name: str
    """What a server calls it."""
    folder: Path
    digest: str
    knows: frozenset[str] = frozenset()
    """Names of hyperparameters that it was trained on, where its card tells."""


def shelve(folder: Path, shelf: Path, *, max_rank: int) -> Adapter:
    """Check an adapter as peft writes it, and copy it to where its version stays as it is.

    Args:
        folder: With `adapter_config.json` and `adapter_model.safetensors`.
        shelf: Below which each version has its folder.
        max_rank: That the server takes.

    Raises:
        CardError: it is no adapter, not what its card says, could run code, or its rank is higher.
    """
    if not (folder / WEIGHTS).is_file():
        raise CardError(f"{folder} is no LoRA adapter: it holds no {WEIGHTS}")
    card = model_registry.read_verified_card(folder)
    rank = _rank(folder / CONFIG)
    if rank > max_rank:
        raise CardError(
            f"the adapter in {folder} has rank {rank}; the server takes up to {max_rank}",
            hint=f"start the server with Settings(adapter_rank={rank})",
        )
    digest = model_registry.compute_digest(folder)
    place = shelf / digest[:16]
    if not place.is_dir():
        draft = shelf / f"{digest[:16]}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700, parents=True)
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(folder / name, draft / name)
        draft.rename(place)
    knows = frozenset(card.knows) if card else frozenset()
    return Adapter(f"adapter@{digest[:12]}", place, digest, knows)


def _rank(path: Path) -> int:
    try:
        rank = json.loads(path.read_text(encoding="utf-8"))["r"]
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise CardError(f"{path} does not say the rank of the adapter: {exc!r}") from exc
    if not isinstance(rank, int):
        raise CardError(f"{path}: r must be a whole number, but is {rank!r}")
    return rank
