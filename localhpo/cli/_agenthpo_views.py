"""What a terminal is shown of the paper's protocol."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from localhpo.bench.agenthpo import table
from localhpo.bench.agenthpo.results import Result, TaskResult
from localhpo.cli._views import plain_table


def result_view(result: Result, files: Iterable[Path]) -> RenderableType:
    """Return a table per task, what proposals cost, and where the files are."""
    parts: list[RenderableType] = []
    for task in result.tasks:
        name = Text(task.subject.name, "bold")
        parts += [Text.assemble(name, f"  {table.title(result, task)}"), _scores(result, task), ""]
    parts += [Text(note, "dim") for note in table.footnotes(result)]
    parts += ["", _costs(result), ""]
    parts += [Text(f"{path.suffix[1:]:5}{path}") for path in files]
    return Group(*parts)


def _scores(result: Result, task: TaskResult) -> Table:
    names = table.headers(result)
    made = plain_table(*names, right=names[1:])
    for column in made.columns[1:]:
        column.no_wrap = True
    for row in table.rows(result, task):
        last = Text(row.best[-1], "bold green" if row.is_best else "")
        aside = (row.ahead, row.p, row.test)
        style = "" if row.is_ours else "dim"
        made.add_row(row.who, *row.best[:-1], last, *aside, style=style)
    return made


def _costs(result: Result) -> Table:
    made = plain_table(*table.COST_HEADERS, right=table.COST_HEADERS[1:])
    for column in made.columns[1:]:
        column.no_wrap = True
    for cells in table.cost_rows(result):
        made.add_row(*cells)
    return made
