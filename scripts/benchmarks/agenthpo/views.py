"""Views of the AgentHPO experiment for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from localhpo.cli.output import plain_table
from scripts.benchmarks.agenthpo import table
from scripts.benchmarks.agenthpo.results import ExperimentResult, TaskResult

_BETWEEN = 3
"""Largest number of spaces between two columns of a table."""


def result_view(result: ExperimentResult, files: Iterable[Path], width: int) -> RenderableType:
    """Return a table for each task, the cost of proposals, and the paths of the files."""
    parts: list[RenderableType] = []
    for task in result.tasks:
        name = Text(task.subject.name, "bold")
        parts += [Text.assemble(name, f"  {table.title(result, task)}")]
        parts += [_values(result, task, width), ""]
    parts += [Text(note, "dim") for note in table.footnotes(result)]
    parts += ["", _table(table.COST_HEADERS, table.cost_rows(result)), ""]
    parts += [Text(f"{path.suffix[1:]:5}{path}") for path in files]
    return Group(*parts)


def _values(result: ExperimentResult, task: TaskResult, width: int) -> Table:
    names = table.headers(result)
    rows = list(table.make_rows(result, task))
    if _width([names, *(row.cells for row in rows)]) > width:
        rows = list(table.make_rows(result, task, brief=True))
    made = _table(names, [])
    for row in rows:
        cells = [Text(cell) for cell in row.cells]
        if row.is_best:
            cells[len(row.best)].stylize("bold green")  # the last column of the values
        made.add_row(*cells, style="" if row.is_ours else "dim")
    return made


def _width(lines: Iterable[Sequence[str]]) -> int:
    columns = list(zip(*lines, strict=True))
    return sum(max(map(len, column)) for column in columns) + _BETWEEN * (len(columns) - 1)


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    made = plain_table(*headers, right=headers[1:])
    for column in made.columns:
        column.no_wrap = True
    for cells in rows:
        made.add_row(*cells)
    return made
