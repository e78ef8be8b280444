"""Questions without some families: what a base that never saw them is trained on."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from . import whole


def leave_out(source: Path, target: Path, families: Collection[str]) -> int:
    """Copy the shards of one folder to another without some families; return what is left.

    A model that never saw these families is then made as ever, from `target`.
    """
    target.mkdir(parents=True, exist_ok=True)
    left = 0
    for path in sorted(source.glob("shard-*.jsonl")):
        lines = path.read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["source"].split("/")[0] not in families]
        whole.write(target / path.name, "".join(f"{line}\n" for line in kept))
        left += len(kept)
    return left
