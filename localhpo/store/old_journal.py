"""The journal of LocalHPO 0.1.0: `spool.jsonl`, format 1, which has no checksums.

Its lines are translated to those of today while they are read, so that nobody else knows the
old names. `conversion` replaces the file when its study goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localhpo.trial import Origin

FILE = "spool.jsonl"
FORMAT = 1


def translate(kind: str, body: Any) -> Any:
    """Return the body of a line of format 1 as the present version writes it."""
    return _translate_trial(body) if kind == "trial" else body


def _translate_trial(changes: Mapping[str, Any]) -> dict[str, Any]:
    new = dict(changes)
    if "score" in new:
        score = new.pop("score")
        new["values"] = [] if score is None else [score]
    if "proposal" in new:
        origin = Origin.parse(new["proposal"]["origin"])
        new["proposal"] = {**new["proposal"], "origin": str(origin)}
    if "usage" in new:
        usage = dict(new["usage"])
        if "gpu_utilisation" in usage:
            usage["gpu_utilization"] = usage.pop("gpu_utilisation")
        new["usage"] = usage
    return new
