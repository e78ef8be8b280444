"""The part of a card that only fine-tuned models have: base, training data, evaluation.

    [tuned]
    base = "sprout"
    base_digest = "<digest of the base's files>"
    prompt_sha256 = "<of the templates that it was trained on>"
    method = "lora"                  # or "full": a model folder of its own
    status = "accepted"              # refused, undecided, forced, withdrawn
    reason = "a sentence"
    studies = ["water/main"]
    held_out = ["cover/main"]
    trials = 160
    made_at = 1790000000.0

    [evaluation]                     # losses, regrets, p

The model is refused with another base or with other templates: it was not trained for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from localhpo import assets
from localhpo.errors import CardError

Method = Literal["lora", "full"]
VersionStatus = Literal["accepted", "refused", "undecided", "forced", "withdrawn"]

IN_USE: frozenset[VersionStatus] = frozenset({"accepted", "forced"})
"""Statuses of models that studies may use: the evaluation or the user accepted them."""

ADAPTER_RANK = 16
"""Rank of adapters that are trained here; servers are started for it."""

RENAMED_KEYS: Mapping[str, str] = {"gate": "status", "why": "reason"}
"""Old key -> key: cards of earlier versions are still read."""

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "compact": ("compact.txt.j2",),
    "chat": ("system.md.j2", "propose.md.j2"),
}
"""Prompt style -> its templates in `prompts/`."""


@dataclass(frozen=True, slots=True)
class TuningRecord:
    """How a model was fine-tuned. Fields as in `card.toml`."""

    base: str
    """Name of the base in the model registry, or its folder."""
    base_digest: str
    prompt_sha256: str
    method: Method
    status: VersionStatus
    reason: str
    studies: tuple[str, ...]
    """Names of the studies that it was trained on."""
    held_out: tuple[str, ...]
    """Names of the studies that were kept aside for the evaluation."""
    trials: int
    """Number of trials that it was trained on."""
    made_at: float
    """Time of training, in seconds since the epoch (UTC)."""


def templates_sha256(style: str) -> str:
    """Return the hash of the templates of a prompt style."""
    folder = assets.folder("prompts")
    texts = [(folder / name).read_bytes() for name in TEMPLATES[style]]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def parse(table: Any, path: Path) -> TuningRecord:
    """Return the record in a TOML table.

    Raises:
        CardError: a key is missing, unknown, or has an invalid value.
    """
    names = [f.name for f in fields(TuningRecord)]
    if isinstance(table, dict):
        table = {RENAMED_KEYS.get(key, key): value for key, value in table.items()}
    if not isinstance(table, dict) or set(table) != set(names):
        raise CardError(f"{path}: [tuned] must hold {', '.join(names)}, but is {table!r}")
    kinds = {"trials": int, "made_at": int | float, "studies": list, "held_out": list}
    for name in names:
        if not isinstance(table[name], kinds.get(name, str)):
            raise CardError(f"{path}: [tuned] {name} cannot be {table[name]!r}")
    for name, allowed in (("method", get_args(Method)), ("status", get_args(VersionStatus))):
        if table[name] not in allowed:
            raise CardError(
                f"{path}: [tuned] {name} must be one of {', '.join(allowed)}, "
                f"but is {table[name]!r}"
            )
    lists = {name: tuple(table[name]) for name in ("studies", "held_out")}
    return TuningRecord(**{**table, **lists})
