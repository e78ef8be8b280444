"""Views of ready tasks and the data that they need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from localhpo.analysis import formatting
from localhpo.analysis.records import goals_record
from localhpo.cli.output import facts_table, plain_table
from localhpo.data import VARIABLE, Data, find_data
from localhpo.errors import DataError
from localhpo.task import Task, with_data


def tasks_table(tasks: Iterable[Task]) -> Table:
    """Return the listing of the ready tasks."""
    headers = ("task", "metric", "direction", "parameters", "data")
    table = plain_table(*headers, right=("parameters",))
    for task in tasks:
        parameters = str(len(task.space))
        table.add_row(task.name, task.metric, task.direction, parameters, _state(task))
    return table


def task_view(task: Task) -> RenderableType:
    """Return a view of what is needed to run a ready task."""
    space = plain_table("parameter", "range", "only when", "description")
    for parameter, table in zip(task.space, task.space.to_table().values(), strict=True):
        when = (f"{k} is {' or '.join(map(str, v))}" for k, v in table.get("when", {}).items())
        domain = f"{parameter.domain}{', log' if table.get('log') else ''}"
        space.add_row(parameter.name, domain, ", ".join(when), parameter.help)
    for name, value in formatting.fixed_texts(task.fixed).items():
        space.add_row(formatting.printable(name), f"fixed at {value}")
    return Group(facts_table(_facts(task)), "", Text(task.background.strip()), "", space)


def _facts(task: Task) -> Iterator[tuple[str, str]]:
    yield "task", task.name
    yield "goal", formatting.goals_text(task)
    yield "install", _install(task)
    if task.data is not None:
        yield from _data_rows("data", task.data)
    yield "run", f"localhpo run {task.name}{' --data DIR' if task.data else ''}"


def task_record(task: Task) -> dict[str, Any]:
    """Return a ready task as JSON-able values."""
    return {
        "name": task.name,
        **goals_record(task),
        "trials": task.budget.trials,
        "background": task.background.strip(),
        "fixed": dict(task.fixed),
        "path": str(task.source),
        "install": _install(task),
        "data": None if task.data is None else _data_record(task.data),
    }


def _install(task: Task) -> str:
    return f"pip install 'localhpo[{'local' if task.data is None else 'tasks'}]'"


def _state(task: Task) -> str:
    if task.data is None:
        return "none needed"
    try:
        with_data(task)
    except DataError:
        return "missing"
    return "found"


def _data_rows(title: str, data: Data) -> Iterator[tuple[str, str]]:
    yield (
        title,
        f"{data.folder[0]}: {_folder_of(data) or f'not found (set {VARIABLE}, or --data DIR)'}",
    )
    for name, what in data.files.items():
        yield "", f"{name} ({what})"
    yield "", f"from {data.source}"
    yield "", f"license: {data.license}"
    if data.weights is not None:
        yield from _data_rows("weights", data.weights)
    for name, other in data.instead.items():
        yield from _data_rows(f"or, with {name} in the command", other)


def _data_record(data: Data) -> dict[str, Any]:
    folder = _folder_of(data)
    known = {**data.to_table(), "found": None if folder is None else str(folder)}
    if data.weights is not None:
        known["weights"] = _data_record(data.weights)
    known |= {"instead": {name: _data_record(other) for name, other in data.instead.items()}}
    return known


def _folder_of(data: Data) -> Path | None:
    try:
        return find_data(data, None)
    except DataError:
        return None
