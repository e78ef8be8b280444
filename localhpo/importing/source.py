"""What a file holds, before it is known whether it fits a space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from localhpo.space import Space, Value
    from localhpo.trial import Direction

Ending = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class Row:
    """One trial as the file has it."""

    where: str
    """`line 7`, `trial 3`: how a user finds it."""
    values: Mapping[str, Any]
    """Hyperparameter to value; what was not set is missing."""
    ending: Ending
    score: float | None
    """May be NaN: that is what the file says."""
    steps: tuple[tuple[int, float], ...] = ()
    """(step, value) of the metric on the way."""


@dataclass(frozen=True, slots=True)
class Left:
    """What is not taken, and why."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """The trials of one file."""

    kind: str
    """In words: `Optuna study 'svm'`, `CSV`, ..."""
    name: str
    """What the study may be called."""
    metric: str
    direction: Direction | None
    """None where the file does not say."""
    rows: tuple[Row, ...]
    left: tuple[Left, ...] = ()
    space: Space | None = None
    """As the file states it; None where it must be read off the values."""
    fixed: Mapping[str, Value] = field(default_factory=dict)
    """Beside a space that the file states: hyperparameters with one value in all trials."""
    notes: tuple[str, ...] = ()
    """What a user should know about how it was read."""
