"""Where the data of a task are: what `run` tells its trials, and `tasks` the user."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from localhpo import data
from localhpo.errors import DataError

if TYPE_CHECKING:
    from localhpo.task import Task


def with_data(task: Task, given: Path | None) -> Task:
    """Return the task whose trials find the data where the user says: the folder of `--data`.

    Raises:
        DataError: the task says what it reads, and that is not there.
    """
    place = _place(task, given)
    found(task, given)
    if place is None:
        return task
    # Trials run in a folder of their own: a relative path would mean another one there.
    return dataclasses.replace(task, env={**task.env, data.VARIABLE: str(place.absolute())})


def found(task: Task, given: Path | None = None) -> list[Path]:
    """Return the folders with the data of a task and the weights of its model.

    Raises:
        DataError: some are not there.
    """
    if task.data is None:
        return []
    wanted = task.data.chosen(task.command)
    parts = [wanted] if wanted.weights is None else [wanted, wanted.weights]
    return [data.find(part, _place(task, given)) for part in parts]


def is_there(task: Task) -> bool:
    """Return whether everything that a task reads is on this machine."""
    try:
        found(task)
    except DataError:
        return False
    return True


def _place(task: Task, given: Path | None) -> Path | None:
    said = task.env.get(data.VARIABLE) or os.environ.get(data.VARIABLE)
    return given or (Path(said) if said else None)
