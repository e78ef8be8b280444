"""`localhpo enqueue`: run a configuration of the user next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localhpo.cli.command import Command
from localhpo.cli.output import print_json
from localhpo.cli.target import open_study

if TYPE_CHECKING:
    from localhpo.space import Parameter, Space


@click.command(
    "enqueue",
    cls=Command,
    examples=(
        "localhpo enqueue task.toml --set lr=0.01 --set batch-size=64",
        "localhpo enqueue task.toml --config config.json",
    ),
)
@click.argument("task")
@click.option("--study", default="main", show_default=True, help="Name of the study of this task.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="One value; may be given several times.",
)
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file with one object of names and values.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the configuration as JSON.")
def command(
    task: str, study: str, assignments: tuple[str, ...], config: Path | None, as_json: bool
) -> None:
    """Enqueue a configuration: the study runs it next.

    The study may be running in another process; a study that is not running starts with it. TASK
    is a task file, a folder with a task.toml, the name of a ready task, or of a study as `localhpo
    trials` lists it. Parameters that are not set take their defaults, or the middle of their range.
    """
    opened = open_study(task, study)
    space = opened.task.space
    given = {**(_read(config) if config else {}), **_assigned(assignments, space)}
    complete = _completed(_tuned(given, opened.task.fixed), space)
    opened.enqueue(complete, create=False)  # `localhpo run` may choose another creator
    if as_json:
        print_json({"study": opened.key, "config": complete})
    else:
        click.echo(f"{opened.key} will run this next: {space.text(complete)}")


def _read(path: Path) -> dict[str, Any]:
    from localhpo.errors import InputError

    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise InputError(f"{path}: cannot be read as JSON: {exc}") from exc
    if not isinstance(config, dict):
        raise InputError(f"{path}: must hold one JSON object of names and values, got {config!r}")
    return config


def _assigned(assignments: tuple[str, ...], space: Space) -> dict[str, Any]:
    """Return the values of `name=value` texts, each as its parameter reads it."""
    from localhpo.errors import InputError

    given = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(
                f"--set must be NAME=VALUE, got {assignment!r}", hint="for instance --set lr=0.01"
            )
        given[name] = _value(text, space[name]) if name in space else text
    return given


def _tuned(given: dict[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without fixed values, which the file of a trial holds too."""
    from localhpo.errors import InputError

    for name, value in fixed.items():
        if name in given and given[name] not in (value, str(value)):
            raise InputError(
                f"{name} is fixed at {value!r}, by [fixed], and cannot be {given[name]!r}",
                hint="to tune it, move it to [space], and start a study with --study NEW",
            )
    return {name: value for name, value in given.items() if name not in fixed}


def _value(text: str, parameter: Parameter) -> Any:
    """Return the choice of that spelling, else the text read as JSON, else the text itself."""
    from localhpo.space import Categorical, Ordinal

    choices = parameter.values if isinstance(parameter, Categorical | Ordinal) else ()
    for value in choices:
        if text in (str(value), json.dumps(value)):
            return value
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _completed(given: dict[str, Any], space: Space) -> dict[str, Any]:
    """Return the configuration with every active parameter, on the grid.

    Raises:
        ConfigurationError: it is not in the space.
    """
    config = dict(given)
    for parameter in space:  # parents come before those that depend on them
        if parameter.name not in given and space.is_active(parameter.name, config):
            default = parameter.default
            config[parameter.name] = parameter.center if default is None else default
    return space.canonical(config)
