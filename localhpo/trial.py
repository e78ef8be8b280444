"""What a trial is: one configuration, run once, and everything known about it.

All types here are frozen values; a trial changes by making the next one (`Trial.to`), and
only along `TRANSITIONS`. Times are seconds since the epoch (UTC); durations end in `_s`,
memory in `_mb`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from localhpo.errors import LocalHPOError

Value = bool | int | float | str
"""The value of one hyperparameter."""

Config = Mapping[str, Value]
"""A configuration: the active hyperparameters, in the order of their declaration."""

Direction = Literal["minimize", "maximize"]
Objective = Literal["last", "best"]


class State(StrEnum):
    """Where a trial stands. See `TRANSITIONS` for what may follow."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    INTERRUPTED = "interrupted"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.INFEASIBLE, State.INTERRUPTED}),
    State.RUNNING: frozenset({State.COMPLETE, State.PRUNED, State.FAILED, State.INTERRUPTED}),
    # An interrupted trial runs again, under its own number.
    State.INTERRUPTED: frozenset({State.QUEUED, State.RUNNING}),
    State.COMPLETE: frozenset(),
    State.PRUNED: frozenset(),
    State.FAILED: frozenset(),
    State.INFEASIBLE: frozenset(),
}

COUNTED = frozenset({State.COMPLETE, State.PRUNED, State.FAILED})
"""States that count against `[budget] trials`."""

ADDED = "added"
"""Origin of a trial that was run elsewhere and told; it costs this study nothing."""


class Cause(StrEnum):
    """Why a trial failed."""

    OUT_OF_MEMORY_HOST = "out of host memory"
    OUT_OF_MEMORY_DEVICE = "out of device memory"
    TIMEOUT = "timeout"
    NOT_FINITE = "non-finite metric"
    NOTHING_REPORTED = "nothing reported"
    EXIT_CODE = "exit code"
    SIGNAL = "signal"
    COULD_NOT_START = "could not start"
    NODE_LOST = "node lost"
    """So was the machine that it ran on; an interrupted trial with this cause runs again."""
    TOLD = "told"
    """The user said so, by hand."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial failed, and what it said last."""

    cause: Cause
    message: str
    """One sentence for a person: what happened and, where known, what to do."""
    stderr_tail: str = ""
    """Last lines of the trial's standard error."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value that a script reported."""

    step: int
    name: str
    value: float
    """May be NaN or infinite: that is what the script said."""
    time: float
    """When, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a trial used."""

    wall_s: float = 0.0
    cpu_s: float | None = None
    peak_memory_mb: float | None = None
    """Peak of the polled sum of resident memory of its process group."""
    peak_gpu_memory_mb: float | None = None
    """Of the device where it took most."""
    gpu_s: float | None = None
    """Wall clock times the GPUs held; None for a trial that holds none."""
    gpu_utilization: float | None = None
    """Mean share of time in which its devices computed, 0 to 1."""
    energy_j: float | None = None
    """Of its devices; shared ones in equal parts."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration with its origin, its reasons and what it cost."""

    config: Config
    """Canonical (`Space.canonical`): on the grid, active parameters only, in order."""
    origin: str
    """`model`, `engine:tpe`, `default`, `user`, `added`, ...; never a guess."""
    rationale: str = ""
    rationale_by: Literal["", "model", "computed"] = ""
    """Whether a model said it, or it was computed from the evidence."""
    evidence: tuple[int, ...] = ()
    """Numbers of the trials that the rationale rests on; they exist."""
    tries: int = 1
    """Configurations drawn until this one was new."""
    seed: int | None = None
    """Sampling seed of the model, or of the engine, for this proposal."""
    model_digest: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    prompt: str | None = None
    prompt_sha256: str | None = None
    answer: str | None = None
    """The raw completion."""
    engine_state: Mapping[str, Any] = field(default_factory=dict)
    """What the engine must be given back to go on (JSON; opaque to all others)."""
    note: str = ""
    """What a reader of the record must know, e.g. why an engine stood in for the model."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration, run once."""

    number: int
    """Position in the study, from 0."""
    state: State
    proposal: Proposal
    score: float | None = None
    """The objective: finite, and only where the state is complete or pruned."""
    measurements: tuple[Measurement, ...] = ()
    failure: Failure | None = None
    usage: Usage = Usage()
    summary: str = ""
    """The Executor's write-up of the run: the curve and what it shows."""
    seed: int = 0
    """Seed given to the script."""
    restarts: int = 0
    """How often it was interrupted and run again."""
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    queued_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def config(self) -> Config:
        """The configuration of its proposal."""
        return self.proposal.config

    def to(self, state: State, **changes: Any) -> Trial:
        """Return the trial in its next state.

        Raises:
            LocalHPOError: the step is not in `TRANSITIONS`.
        """
        if state not in TRANSITIONS[self.state]:
            raise LocalHPOError(f"trial {self.number} is {self.state} and cannot become {state}")
        return dataclasses.replace(self, state=state, **changes)

    def with_(self, **changes: Any) -> Trial:
        """Return a copy with other fields; the state stays."""
        changes.pop("state", None)
        return dataclasses.replace(self, **changes)


def values_of(measurements: Iterable[Measurement], name: str) -> list[tuple[int, float]]:
    """Return (step, value) of one metric in the order of report."""
    return [(m.step, m.value) for m in measurements if m.name == name]


def score_of(
    measurements: Iterable[Measurement], metric: str, direction: Direction, objective: Objective
) -> float | None:
    """Return the score of a run: its last finite value, or its best.

    None where no finite value of `metric` was reported.
    """
    finite = [v for _, v in values_of(measurements, metric) if math.isfinite(v)]
    if not finite:
        return None
    if objective == "last":
        return finite[-1]
    return min(finite) if direction == "minimize" else max(finite)


def is_better(a: float, b: float, direction: Direction) -> bool:
    """Return whether score `a` is strictly better than score `b`."""
    return a < b if direction == "minimize" else a > b


def best_trial(trials: Iterable[Trial], direction: Direction) -> Trial | None:
    """Return the complete trial with the best score; of equal ones the earliest."""
    scored = [t for t in trials if t.state is State.COMPLETE and t.score is not None]
    sign = 1.0 if direction == "minimize" else -1.0
    return min(scored, key=lambda t: (sign * (t.score or 0.0), t.number), default=None)


def counted(trials: Sequence[Trial]) -> int:
    """Return how many of the trials count against the budget."""
    return sum(t.state in COUNTED and t.proposal.origin != ADDED for t in trials)
