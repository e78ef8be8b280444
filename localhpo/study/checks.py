"""What is checked before a study starts or goes on: its task, its script, its settings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from localhpo.creator import CREATORS
from localhpo.errors import ConfigurationError, InputError, StudyChangedError, TaskError
from localhpo.executor import check_command, check_program
from localhpo.llm import BACKENDS
from localhpo.objective import Constraint, Objective
from localhpo.plugins import Registry
from localhpo.scheduler.pruning import PRUNERS
from localhpo.space import Space
from localhpo.space.base import EXPLAINING
from localhpo.space.values import show_value
from localhpo.task import Task, parse_task, to_table, with_data
from localhpo.trial import Config, Trial


def check_task(task: Task, *, has_creator: bool = False) -> None:
    """Hold a task, which may have been made in Python, to what a task file is held to.

    Args:
        task: the task.
        has_creator: whether a Creator was given, so that the one that the task names is not used.

    Raises:
        TaskError: a field is out of its range, the command does not fit the space, or there is no
            creator, backend or pruner of a name.
        PluginError: a name is that of a plug-in which cannot be imported.
    """
    parse_task(to_table(task), folder=task.folder, where=str(task.source or "task"))
    with naming_file(task):
        if not has_creator:
            _check_name(CREATORS, task.creator.name, "[creator] name")
            _check_name(BACKENDS, task.creator.backend, "[creator] backend")
        _check_name(PRUNERS, task.pruner.name, "[pruner] name")
        if task.command:
            check_command(task.command, task.names)


def check_script(task: Task) -> None:
    """Check the command of a task, and that the program that it starts exists.

    Raises:
        TaskError: the command cannot be run.
    """
    with naming_file(task):
        check_command(task.command, task.names)
        check_program(task.command, task.folder, task.env.get("PATH", os.environ.get("PATH")))


def check_ready(task: Task) -> None:
    """Check that trials of a task can start: its script, and its data where trials run here.

    Raises:
        TaskError: the script cannot be run.
        DataError: the data do not exist. On the nodes of a cluster they are not checked.
    """
    check_script(task)
    if task.resources.executor == "process":
        with_data(task)


@contextlib.contextmanager
def naming_file(task: Task) -> Iterator[None]:
    """Let an error about a task say which file it is about.

    Raises:
        TaskError: one was raised within.
    """
    try:
        yield
    except TaskError as error:
        if task.source is None:
            raise
        raise TaskError(f"{task.source} {error}", hint=error.hint) from error


def check_same(key: str, before: Task, now: Task) -> None:
    """Refuse to go on with a study under other settings; the budget may change.

    Raises:
        StudyChangedError: names what changed.
    """
    changes = list(_changes(before, now))
    if changes:
        raise StudyChangedError(
            f"study {key} was started with other settings: {'; '.join(changes)}"
        )


def _changes(before: Task, now: Task) -> Iterator[str]:
    if before.space.signature() != now.space.signature():
        yield from _space_changes(before.space, now.space)
    for what, old, new in (
        ("fixed", dict(before.fixed), dict(now.fixed)),
        ("objectives", _describe(before.objectives), _describe(now.objectives)),
        ("constraints", _describe(before.constraints), _describe(now.constraints)),
        ("value", before.value, now.value),
        ("command", list(before.command), list(now.command)),
        ("creator", before.creator.name, now.creator.name),
        ("backend", before.creator.backend, now.creator.backend),
        ("model", before.creator.model, now.creator.model),
        ("transfer", before.creator.transfer, now.creator.transfer),
        ("seed", before.seed, now.seed),
    ):
        if old != new:
            yield f"{what} was {old!r}, is {new!r}"


def _describe(goals: Sequence[Objective | Constraint]) -> str:
    return ", ".join(goal.describe() for goal in goals) or "none"


def _space_changes(before: Space, now: Space) -> Iterator[str]:
    old, new = _meaning(before), _meaning(now)
    for name in sorted(old.keys() - new.keys()):
        yield f"space no longer has {name!r}"
    for name in sorted(new.keys() - old.keys()):
        yield f"space also has {name!r}"
    for name in sorted(old.keys() & new.keys()):
        if old[name] != new[name]:
            yield f"space {name!r} was {old[name]}, is {new[name]}"
    if old == new:
        yield "space has its parameters in another order"


def _meaning(space: Space) -> dict[str, Any]:
    """Return the table of a space without keys that only explain it."""
    return {
        name: {key: value for key, value in row.items() if key not in EXPLAINING}
        for name, row in space.to_table().items()
    }


def new_config(space: Space, config: Mapping[str, Any], trials: Sequence[Trial]) -> Config:
    """Return a user's configuration on the grid.

    Raises:
        ConfigurationError: it is not in the space, or it is that of a trial.
    """
    if not isinstance(config, Mapping):
        raise ConfigurationError(
            f"a configuration must map names to values; got {show_value(config)}"
        )
    config = space.canonical(config)
    for trial in trials:
        if space.key(trial.config) == space.key(config):
            raise ConfigurationError(
                f"a configuration must be new; {space.text(config)} is trial {trial.number} "
                f"({trial.state})"
            )
    return config


def _check_name(registry: Registry[Any], name: str, key: str) -> None:
    try:
        registry.check(name)
    except InputError as error:
        raise TaskError(f"{key}: {error}", hint=error.hint) from error
