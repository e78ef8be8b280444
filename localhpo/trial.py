"""A trial: one configuration, its run, and the results.

All types here are immutable; `Trial.to` returns the trial in another state, which
`TRANSITIONS` must allow. Times are seconds since the epoch (UTC); durations end in `_s`,
memory in `_mb`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from localhpo.errors import InputError, LocalHPOError

Value = bool | int | float | str
"""The value of one hyperparameter."""

Config = Mapping[str, Value]
"""A configuration: the active hyperparameters, in the order of their declaration."""


class State(StrEnum):
    """State of a trial. See `TRANSITIONS` for the states that may follow."""

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


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a proposal comes from: what it rests on, and the optimizer that made it.

    As text: the engine, then the sources, joined by `+`: `llm`, `bo+llm+transfer`, `tpe`.
    """

    source: str | None = None
    """`llm`, `meta` (past data sets of a model), `transfer` (the owner's past studies), `default`,
    `user`, `external`, or several joined by `+`; None for an engine that had only the trials."""
    engine: str | None = None
    """`bo`, `tpe`, `random`, ... (a plug-in brings its own name); None where none took part."""

    def __str__(self) -> str:
        return "+".join(filter(None, (self.engine, self.source)))

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Return the origin that a text spells, in the spelling of version 0.1.0 too."""
        parts = [
            _SPELLED_IN_0_1.get(part, part) for part in text.removeprefix("engine:").split("+")
        ]
        engines = [part for part in parts if part not in _SOURCES]
        sources = [part for part in _SOURCES if part in parts]
        return cls("+".join(sources) or None, "+".join(engines) or None)

    def uses(self, source: str) -> bool:
        """Return whether the proposal rests on a source."""
        return self.source is not None and source in self.source.split("+")


_SOURCES = ("llm", "meta", "transfer", "default", "user", "external")
_SPELLED_IN_0_1 = {"model": "llm", "experience": "transfer", "added": "external"}

LLM = Origin("llm")
META = Origin("meta")
TRANSFER = Origin("transfer")
DEFAULT = Origin("default")
USER = Origin("user")
"""Origin of a configuration that the user enqueued."""
EXTERNAL = Origin("external")
"""Origin of a trial that was run elsewhere; it does not count against the budget."""


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
    """The cluster lost the machine; an interrupted trial with this cause runs again."""
    BY_USER = "told"
    """The user reported the failure (`Study.tell`)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Cause of a failed trial, and the end of its output."""

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
    """As the script reported it; may be NaN or infinite."""
    time: float
    """When, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Time, memory and energy that a trial used."""

    wall_s: float = 0.0
    cpu_s: float | None = None
    peak_memory_mb: float | None = None
    """Peak of the polled sum of resident memory of its process group."""
    peak_gpu_memory_mb: float | None = None
    """Peak on the device where it used most."""
    gpu_s: float | None = None
    """Wall clock times the GPUs held; None for a trial that holds none."""
    gpu_utilization: float | None = None
    """Mean share of time in which its devices computed, 0 to 1."""
    energy_j: float | None = None
    """Energy of its devices; shared devices count in equal parts."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration with its origin, its reasons and what it cost."""

    config: Config
    """Canonical (`Space.canonical`): on the grid, active parameters only, in order."""
    origin: Origin
    rationale: str = ""
    rationale_by: Literal["", "model", "computed"] = ""
    """Whether a model wrote the rationale, or it was computed from the evidence."""
    evidence: tuple[int, ...] = ()
    """Numbers of the trials that the rationale rests on; they exist."""
    details: Mapping[str, float] = field(default_factory=dict)
    """Numbers behind the rationale, by name: `prior_weight`, `prior_probability`, ..."""
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
    """State that the engine needs for its next proposal (JSON; only the engine reads it)."""
    note: str = ""
    """Remark for the user, e.g. why an engine replaced the model."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration, run once."""

    number: int
    """Position in the study, from 0."""
    state: State
    proposal: Proposal
    values: tuple[float, ...] = ()
    """One for each objective of the task, in order: finite, and only where the state is complete
    or pruned."""
    violations: tuple[float, ...] = ()
    """One for each constraint of the task, in order and in the units of its metric: 0 or below
    where it holds, NaN where the metric is unknown (of a pruned trial)."""
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

    @property
    def value(self) -> float | None:
        """The value of the one objective; None where there is none.

        Raises:
            InputError: there are several objectives.
        """
        if len(self.values) > 1:
            raise InputError(
                f"trial {self.number} has {len(self.values)} values, one for each objective",
                hint="read `values`",
            )
        return self.values[0] if self.values else None

    @property
    def feasible(self) -> bool | None:
        """Whether every constraint holds; None where that is unknown."""
        if not self.values or any(map(math.isnan, self.violations)):
            return None
        return all(violation <= 0.0 for violation in self.violations)

    def to(self, state: State, **changes: Any) -> Trial:
        """Return the trial in its next state.

        Raises:
            LocalHPOError: `TRANSITIONS` does not allow it.
        """
        if state not in TRANSITIONS[self.state]:
            raise LocalHPOError(f"trial {self.number} is {self.state} and cannot become {state}")
        return dataclasses.replace(self, state=state, **changes)

    def with_(self, **changes: Any) -> Trial:
        """Return a copy with other fields. In a study, only `to` changes the state."""
        return dataclasses.replace(self, **changes)


def values_of(measurements: Iterable[Measurement], name: str) -> list[tuple[int, float]]:
    """Return (step, value) of one metric in the order in which they were reported."""
    return [(m.step, m.value) for m in measurements if m.name == name]


def count_budgeted(trials: Sequence[Trial]) -> int:
    """Return how many of the trials count against the budget."""
    return sum(t.state in COUNTED and not t.proposal.origin.uses("external") for t in trials)
