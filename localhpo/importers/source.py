"""What a file of trials holds, before it is known whether it fits a space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from localhpo.objective import Constraint, Direction
    from localhpo.space import Space, Value

Ending = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class SourceTrial:
    """One trial of a file."""

    where: str
    """Where a user finds it: `line 7`, `trial 3`."""
    params: Mapping[str, Any]
    """Hyperparameter to value; inactive ones are missing."""
    ending: Ending
    metrics: Mapping[str, float]
    """Values of objectives and constrained metrics, by name; NaN where the file has it. A failed
    trial may have none."""
    steps: tuple[tuple[int, float], ...] = ()
    """(step, value) of the first objective during the trial."""


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A trial that is not imported, and why."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class TrialSource:
    """The trials of one file."""

    kind: str
    """In words: `Optuna study 'svm'`, `CSV`, ..."""
    name: str
    """Suggested name of the task."""
    metrics: tuple[str, ...]
    """Names of the objectives, as they are in `SourceTrial.metrics`."""
    directions: tuple[Direction, ...]
    """One for each objective; empty where the file does not say."""
    trials: tuple[SourceTrial, ...]
    constraints: tuple[Constraint, ...] = ()
    """Constraints that the file states."""
    skipped: tuple[SkippedRow, ...] = ()
    space: Space | None = None
    """As the file states it; None where it must be inferred from the values."""
    fixed: Mapping[str, Value] = field(default_factory=dict)
    """Hyperparameters with one value in all trials, beside a space that the file states."""
    notes: tuple[str, ...] = ()
    """What a user should know about how it was read."""
