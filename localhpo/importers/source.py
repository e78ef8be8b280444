"""Reads a file of trials, whatever program wrote it, before it is known whether it fits a space."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from localhpo.errors import InputError

if TYPE_CHECKING:
    from localhpo.objective import Constraint, Direction
    from localhpo.space import Space, Value
    from localhpo.task import Task


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


_SCHEME = "sqlite:///"


def read_source(
    target: str,
    *,
    study: str | None = None,
    metrics: Sequence[str] = (),
    params: Collection[str] | None = None,
    task: Task | None = None,
) -> TrialSource:
    """Return the trials of a file, whatever program wrote it.

    Args:
        target: a path, or the URL of an SQLite file that Optuna wrote.
        study: name of the Optuna study, where there are several.
        metrics: objectives in order: columns of a table, or names for those of an Optuna study.
        params: columns that are hyperparameters in a table.
        task: its objectives, constraints and hyperparameters name the columns that are not named
            otherwise.

    Raises:
        InputError: the file cannot be read, or holds no trials or no such columns.
    """
    path = _path(target)
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    from localhpo.importers import optuna, tables

    if start.startswith(optuna.SQLITE):
        return optuna.read_sqlite(path, study, metrics)
    if start.startswith(b"{") and b'"op_code"' in start.partition(b"\n")[0]:
        return optuna.read_journal(path, study, metrics)
    constrained: Sequence[str] = ()
    if task is not None:
        metrics = metrics or [objective.name for objective in task.objectives]
        constrained = [constraint.name for constraint in task.constraints]
        params = task.names if params is None else params
    return tables.read_table(path, metrics=metrics, constrained=constrained, params=params)


def _path(target: str) -> Path:
    if target.startswith(_SCHEME):
        return Path(target.removeprefix(_SCHEME))
    if "://" in target:
        raise InputError(
            f"what is imported must be a file, or {_SCHEME}PATH; got {target!r}",
            hint="`optuna.copy_study` copies a study from a server to a file",
        )
    return Path(target)
