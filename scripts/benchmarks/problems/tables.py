"""Tables of evaluated configurations as problems: the value is that of the nearest row.

Distances are those of the unit cube (`Space.encode`). There are two kinds of tables: TaskSet's in
the data folder, and a user's CSV file, whose columns are the hyperparameters and the metric of the
task file beside it (the same name with `.toml`, or `task.toml`).
"""

from __future__ import annotations

import csv
import hashlib
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from localhpo.errors import ConfigurationError, InputError
from localhpo.objective import Objective
from localhpo.space import Categorical, Float, Int, Ordinal, Parameter, Space
from localhpo.task import Task, parse_task
from localhpo.trial import Config
from scripts.benchmarks.problems.dims import Array
from scripts.benchmarks.problems.problem import Problem

_ROWS_AT_ONCE = 256

_TASKSET_SPACE = Space(
    [
        Float("learning_rate", 1e-8, 10.0, log=True),
        Float("beta1", 1e-4, 1.0),
        Float("beta2", 1e-3, 1.0),
        Float("epsilon", 1e-10, 1e3, log=True),
        Float("l1", 1e-8, 10.0, log=True),
        Float("l2", 1e-8, 10.0, log=True),
        Float("linear_decay", 1e-7, 1e-4, log=True),
        Float("exponential_decay", 1e-6, 1e-3, log=True),
    ]
)
"""The smallest round bounds that contain all values of the tables."""

_DIVERGED = 2.0
"""Largest loss, in losses of an untrained network: without a limit losses reach 1e18."""


def taskset(path: Path) -> Problem:
    """Return a problem on one of TaskSet's tables."""
    table = np.load(path)
    names = _TASKSET_SPACE.names
    configs = [dict(zip(names, map(float, row), strict=True)) for row in table["hp"]]
    curves = table["valid_loss"]
    limit = _DIVERGED * float(np.nanmedian(curves[:, 0]))
    task = Task(
        name="rnn-imdb", command=(), objectives=(Objective("valid_loss", "minimize"),),
        space=_TASKSET_SPACE,
        background="A recurrent network that tells good film reviews from bad ones (IMDB), Adam.",
    )  # fmt: skip
    scores = np.minimum(curves[:, -1], limit)  # NaN stays: the run failed
    return _problem(f"taskset/{path.stem}", task, configs, scores, path)


def own(path: Path) -> Problem:
    """Return a problem on a user's CSV file.

    Raises:
        InputError: the file or its task cannot be used; the message says where and why.
    """
    task = _task_of(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise InputError(f"{path} must hold at least one evaluated configuration, got none")
    if task.metric not in rows[0]:
        raise InputError(
            f"{path} must have a column {task.metric!r}, the metric of its task; "
            f"got {', '.join(map(str, rows[0]))}"
        )
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(f"{path}:{line} must have as many cells as the first line")
    configs = [_config(task.space, row, f"{path}:{i}") for i, row in enumerate(rows, start=2)]
    scores = np.array([_number(row[task.metric]) for row in rows])
    if not np.isfinite(scores).any():
        raise InputError(f"{path} must have a number under {task.metric!r} in one line at least")
    return _problem(f"table/{path}", task, configs, scores, path)


def _problem(
    name: str, task: Task, configs: Sequence[Config], scores: Array, path: Path
) -> Problem:
    space = task.space
    points = np.array([_place(space, config) for config in configs])

    def evaluate_many(configs: Sequence[Config]) -> Array:
        folders = np.array([space.encode(config) for config in configs])
        nearest = [
            np.argmin(((part[:, None, :] - points) ** 2).sum(axis=2), axis=1)
            for part in np.split(folders, range(_ROWS_AT_ONCE, len(folders), _ROWS_AT_ONCE))
        ]
        return np.asarray(scores[np.concatenate(nearest)])

    return Problem(
        name=name, task=task, evaluate_many=evaluate_many,
        definition={"table": hashlib.sha256(path.read_bytes()).hexdigest()},
    )  # fmt: skip


def _place(space: Space, config: Config) -> Array:
    """Return a row as a point of the unit cube; values are rounded to the grid of the space."""
    return space.encode(space.canonical(config))


def _task_of(path: Path) -> Task:
    """Return the task of a user's table.

    Raises:
        InputError: there is no task file, or it cannot be used.
    """
    candidates = (path.with_suffix(".toml"), path.parent / "task.toml")
    source = next((path for path in candidates if path.is_file()), None)
    if source is None:
        raise InputError(
            f"a table needs its task beside it: neither {candidates[0]} nor {candidates[1]} exists",
            hint="write one with [task] name, metric, direction and [space]",
        )
    try:
        table = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{source} cannot be read: {error}") from error
    task = parse_task(table, folder=source.parent, where=str(source), source=source)
    return task.single_objective


def _config(space: Space, row: Mapping[str, Any], where: str) -> Config:
    """Return the configuration of a row; an empty cell is an inactive parameter.

    Raises:
        ConfigurationError: the configuration is not in the space.
    """
    cells = {name: row[name] for name in space.names if row.get(name) not in (None, "")}
    try:
        return space.canonical({name: _value(space[name], cell) for name, cell in cells.items()})
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}", hint=error.hint) from error


def _value(parameter: Parameter, cell: str) -> Any:
    """Return the value of a cell, as the parameter writes it."""
    if isinstance(parameter, Categorical | Ordinal):
        spellings = {str(value).lower(): value for value in parameter.values}
        return spellings.get(cell.lower(), cell)
    number = _number(cell)
    if isinstance(parameter, Int) and number.is_integer():
        return int(number)
    return number if math.isfinite(number) else cell


def _number(cell: str | None) -> float:
    """Return the number in a cell; NaN, for a failed trial, where it is not finite."""
    try:
        number = float(cell or "nan")
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
