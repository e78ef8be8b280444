"""Events about the model's server: how memory is shared, when it sleeps, stops and returns."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from localhpo.scheduler.sharing import SharingDecision, SharingStatistics

Transition = Literal["sleep", "stop", "leave", "wake", "start"]
"""What a server did.

Where other studies use it too, it is left (`leave`) instead of stopped, and `start` uses it again.
"""

_TRANSITION_TEXTS: Mapping[Transition, str] = {
    "sleep": "the model's server went to sleep to free memory for a trial",
    "stop": "the model's server was stopped to free memory for a trial",
    "leave": "this study left the model's server, which other studies use, to run a trial that "
    "does not fit beside it",
    "wake": "the model's server woke up to make proposals",
    "start": "the model's server started again to make proposals",
}


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """An event to publish; it becomes a `store.Event`."""

    kind: Literal["sharing", "note", "warning"]
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)


class ServerEventQueue:
    """Collects events; the worker adds to it while the loop takes from it."""

    def __init__(self) -> None:
        """Start empty."""
        self._events: deque[ServerEvent] = deque()

    def take(self) -> list[ServerEvent]:
        """Remove and return the events since the last call."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def warn(self, message: str) -> None:
        """Add a warning."""
        self._events.append(ServerEvent("warning", message))

    def add_decision(self, decision: SharingDecision, statistics: SharingStatistics) -> None:
        """Add how memory is shared from now on, why, and the statistics behind it."""
        data = {"mode": decision.mode, **dataclasses.asdict(statistics)}
        self._events.append(ServerEvent("sharing", f"{decision.mode}: {decision.reason}", data))

    def add_transition(
        self, what: Transition, seconds: float, before_mb: float | None, after_mb: float | None
    ) -> None:
        """Add what the server did, how long it took, and the memory measured before and after."""
        data: dict[str, Any] = {"act": what, "seconds": round(seconds, 3)}
        details = [f"{seconds:.1f} s"]
        if what in ("wake", "start"):
            if after_mb is not None:
                data["held_mb"] = round(after_mb, 1)
                details.append(f"it holds {after_mb:.0f} MB")
        elif what != "leave" and before_mb is not None and after_mb is not None:
            data |= {"freed_mb": round(before_mb - after_mb, 1), "held_mb": round(after_mb, 1)}
            details.append(f"it freed {before_mb - after_mb:.0f} of {before_mb:.0f} MB")
        message = f"{_TRANSITION_TEXTS[what]} ({', '.join(details)})"
        self._events.append(ServerEvent("sharing", message, data))
