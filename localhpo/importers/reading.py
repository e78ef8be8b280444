"""Finds the reader of a file by its content."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from localhpo.errors import InputError
from localhpo.importers.source import TrialSource

if TYPE_CHECKING:
    from localhpo.task import Task

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
