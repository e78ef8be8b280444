"""How trials and the model's server shared memory: from the events of a study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from localhpo.store.records import Event

_KIND = "sharing"
"""Kind of the events: a decision has `mode` in its data, a change of the server `act`."""
_OFFLOADS = ("sleep", "stop", "leave")


@dataclass(frozen=True, slots=True)
class MemorySharing:
    """Sums over a study."""

    decisions: int
    """How often the mode of sharing was decided, the first time included."""
    last_decision: str
    """The last decision, with its reason; empty where there was none."""
    offloads: int
    """How often the server freed memory: put to sleep, stopped, or left to other studies."""
    offload_s: float
    """Seconds that the offloads took."""
    freed_mb: float | None
    """Memory freed by the last offload, as measured; None where it could not be measured."""
    reloads: int
    """How often the model was brought back to answer."""
    reload_s: float
    """Seconds that the reloads took."""


def sum_memory_sharing(events: Iterable[Event]) -> MemorySharing | None:
    """Return how memory was shared; None where there was nothing to share."""
    sharing = [event for event in events if event.kind == _KIND]
    if not sharing:
        return None
    decisions = [event.message for event in sharing if "mode" in event.data]
    changes = [event for event in sharing if "act" in event.data]
    offloads = [event for event in changes if event.data["act"] in _OFFLOADS]
    reloads = [event for event in changes if event.data["act"] not in _OFFLOADS]
    return MemorySharing(
        decisions=len(decisions),
        last_decision=decisions[-1] if decisions else "",
        offloads=len(offloads),
        offload_s=_seconds(offloads),
        freed_mb=offloads[-1].data.get("freed_mb") if offloads else None,
        reloads=len(reloads),
        reload_s=_seconds(reloads),
    )


def _seconds(events: Sequence[Event]) -> float:
    return sum(float(event.data["seconds"]) for event in events)
