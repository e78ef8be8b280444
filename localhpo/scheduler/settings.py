"""Settings of the loop, and the request to stop it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How often the loop does what, and when it gives up."""

    poll_s: float = 0.05
    """Between two turns."""
    idle_s: float = 1.0
    """Between two checks for enqueued trials, flushes and snapshots while nothing happens."""
    shutdown_timeout_s: float = 10.0
    """How long a run that is over waits for a proposal that is still being made; after that it
    leaves the Creator alone in its thread."""
    concurrent_proposals: bool = True
    """Whether the Creator has a thread of its own; False for simulations."""
    max_refusals: int = 20
    """Number of infeasible proposals in a row that ends the run with an error."""
    max_initial_failures: int = 3
    """Number of first trials that, failing all in the same way, end the run; 0 for never."""


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Why and since when no further trial is started."""

    reason: str
    since: float
    """On the monotonic clock."""
    error: Exception | None
    """Raised once the running trials have ended."""
