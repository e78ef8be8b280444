"""Leaves families out of questions, to train a base model that never saw them."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from . import atomic_file


def copy_without(source: Path, target: Path, families: Collection[str]) -> int:
    """Copy the shards of a folder without some families; return the number of questions left.

    The other steps then build a model from `target` that never saw these families.
    """
    target.mkdir(parents=True, exist_ok=True)
    left = 0
    for path in sorted(source.glob("shard-*.jsonl")):
        lines = path.read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["source"].split("/")[0] not in families]
        atomic_file.write_atomically(target / path.name, "".join(f"{line}\n" for line in kept))
        left += len(kept)
    return left
