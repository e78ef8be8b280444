"""What the card of a fine-tuned model says beside the rest: its base, its data, and the gate.

    [tuned]
    base = "sprout"
    base_digest = "<digest of the base's files>"
    prompt_sha256 = "<of the templates that it was trained on>"
    method = "lora"                  # or "full": a model folder of its own
    gate = "accepted"                # refused, undecided, forced, withdrawn
    why = "in words"
    studies = ["water/main"]
    held_out = ["cover/main"]
    trials = 160
    made_at = 1790000000.0

    [gate]                           # numbers

A base or templates that are not those refuse to load: the weights would answer another question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from localhpo import resources
from localhpo.errors import CardError

Method = Literal["lora", "full"]
Gate = Literal["accepted", "refused", "undecided", "forced", "withdrawn"]

IN_USE: frozenset[Gate] = frozenset({"accepted", "forced"})
"""What the gate, or the user, let through."""

ADAPTER_RANK = 16
"""Of the adapters that are trained here; a server is started for it."""

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "compact": ("compact.txt.j2",),
    "chat": ("system.md.j2", "propose.md.j2"),
}
"""Which files of `prompts/` a model is asked with."""


@dataclass(frozen=True, slots=True)
class TuningRecord:
    """Where a fine-tuned model comes from. Fields as in `card.toml`."""

    base: str
    """Name of the base on the shelf, or its folder."""
    base_digest: str
    prompt_sha256: str
    method: Method
    gate: Gate
    why: str
    studies: tuple[str, ...]
    """That it was trained on."""
    held_out: tuple[str, ...]
    """Whose tasks the gate tested it on."""
    trials: int
    """Of them."""
    made_at: float
    """Seconds since the epoch (UTC)."""


def templates_sha256(style: str) -> str:
    """Return the hash of the templates that a model is asked with."""
    folder = resources.folder("prompts")
    texts = [(folder / name).read_bytes() for name in TEMPLATES[style]]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def parse(table: Any, path: Path) -> TuningRecord:
    """Return what a TOML table says.

    Raises:
        CardError: a key is missing or unknown, or holds what it must not.
    """
    names = [f.name for f in fields(TuningRecord)]
    if not isinstance(table, dict) or set(table) != set(names):
        raise CardError(f"{path}: [tuned] must hold {', '.join(names)}, but is {table!r}")
    kinds = {"trials": int, "made_at": int | float, "studies": list, "held_out": list}
    for name in names:
        if not isinstance(table[name], kinds.get(name, str)):
            raise CardError(f"{path}: [tuned] {name} cannot be {table[name]!r}")
    for name, allowed in (("method", get_args(Method)), ("gate", get_args(Gate))):
        if table[name] not in allowed:
            raise CardError(
                f"{path}: [tuned] {name} must be one of {', '.join(allowed)}, "
                f"but is {table[name]!r}"
            )
    lists = {name: tuple(table[name]) for name in ("studies", "held_out")}
    return TuningRecord(**{**table, **lists})
