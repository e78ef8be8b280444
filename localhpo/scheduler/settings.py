"""How the loop goes about it, and what makes it end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the loop goes about it."""

    poll_s: float = 0.05
    """Between two turns."""
    idle_s: float = 1.0
    """Between two looks at the inbox, flushes and snapshots while nothing happens."""
    farewell_s: float = 10.0
    """How long a run that is over waits for a proposal still being made; after that the
    Creator is left to itself, in its thread."""
    concurrent_proposals: bool = True
    """Whether the Creator thinks in a thread of its own; False for simulations."""
    refusals: int = 20
    """So many infeasible proposals, one after another, are an error."""
    hopeless_after: int = 3
    """So many first trials that fail in the same way end the run; 0 for never."""


@dataclass(frozen=True, slots=True)
class Closing:
    """No further trial is started."""

    reason: str
    since: float
    """On the monotonic clock."""
    error: Exception | None
    """Raised once the running trials have ended."""
