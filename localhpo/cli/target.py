"""Finds the task or study that an argument of the command line names."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localhpo.study import Study
    from localhpo.task import Task


def find_task(target: str) -> Task:
    """Return the task of an argument: a file, a folder with a task.toml, or a ready task's name.

    Raises:
        TaskError: it does not describe a task.
        InputError: there is no such file and no such task.
    """
    from localhpo import tasks
    from localhpo.task import load_task

    return load_task(Path(target) if _is_path(target) else tasks.find(target))


def find_study(target: str | None, study: str) -> Study:
    """Return an existing study: of a task as `find_task` takes it, or by its name in the store.

    Args:
        target: A path, `<task>` or `<task>/<study>`; None for the only study there is.
        study: Its name among those of the task, where the target is no full name.

    Raises:
        StudyNotFoundError: there is none, or none was named and there are several.
    """
    from localhpo.study import Study

    if target is None:
        return Study.find()
    if _is_path(target):
        target = find_task(target).name
    return Study.find(target if "/" in target else f"{target}/{study}")


def open_study(target: str, study: str) -> Study:
    """Return a study to write to, new or existing: of a task, or by its name in the store.

    An existing study keeps the creator settings and the seed that `localhpo run` was given.

    Raises:
        InputError: there is no such task and no such study.
    """
    from localhpo.errors import InputError, StudyNotFoundError
    from localhpo.study import Study

    if not _is_path(target):
        try:
            return find_study(target, study)
        except StudyNotFoundError:
            if "/" in target:
                raise
        except InputError:
            pass  # not a valid name of a study: `find_task` raises the error to show
    task = find_task(target)
    with contextlib.suppress(StudyNotFoundError):
        stored = find_study(task.name, study).task
        task = dataclasses.replace(task, creator=stored.creator, seed=stored.seed)
    return Study.open(task, study)


def _is_path(target: str) -> bool:
    path = Path(target)
    return path.suffix == ".toml" or path.is_file() or (path / "task.toml").is_file()
