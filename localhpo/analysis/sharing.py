"""How trials and the model's server shared memory: from the events of a study. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from localhpo.store.records import Event

_RESTS = ("sleep", "stop", "leave")


@dataclass(frozen=True, slots=True)
class Sharing:
    """Sums over a study."""

    decisions: int
    """How often the way of sharing was decided anew, the first time included."""
    last: str
    """The last decision, with its reason; empty where there was none."""
    rests: int
    """How often the server made room: asleep, stopped, or left to other studies."""
    rest_s: float
    """That this took."""
    freed_mb: float | None
    """By the last rest, as measured; None where nobody can tell."""
    wakes: int
    """How often it was brought back, to be asked."""
    wake_s: float
    """That this took."""


def sharing(events: Iterable[Event]) -> Sharing | None:
    """Return how memory was shared; None where nothing was to be shared."""
    told = [event for event in events if event.kind == "sharing"]
    if not told:
        return None
    decisions = [event.message for event in told if "mode" in event.data]
    acts = [event for event in told if "act" in event.data]
    rests = [event for event in acts if event.data["act"] in _RESTS]
    wakes = [event for event in acts if event.data["act"] not in _RESTS]
    return Sharing(
        decisions=len(decisions),
        last=decisions[-1] if decisions else "",
        rests=len(rests),
        rest_s=_seconds(rests),
        freed_mb=rests[-1].data.get("freed_mb") if rests else None,
        wakes=len(wakes),
        wake_s=_seconds(wakes),
    )


def _seconds(events: Sequence[Event]) -> float:
    return sum(float(event.data["seconds"]) for event in events)
