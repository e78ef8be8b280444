"""Printing to standard output and standard error, and the tables that commands share."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_UNBOUNDED = 10_000
"""Columns of a file or pipe: nothing is wrapped or cut, for `grep` and `awk`."""


def console(*, stderr: bool = False) -> Console:
    """Return a console for tables and styled text; NO_COLOR and COLUMNS apply."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    wide = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(stderr=stderr, highlight=False, markup=False, width=_UNBOUNDED if wide else None)


def show(renderable: RenderableType) -> None:
    """Print a table or styled text; in a file or pipe, without trailing spaces."""
    screen = console()
    if screen.is_terminal:
        screen.print(renderable)
        return
    with screen.capture() as drawn:
        screen.print(renderable)
    for line in drawn.get().splitlines():
        click.echo(line.rstrip())


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def plain_table(*headers: str, right: Sequence[str] = ()) -> Table:
    """Return a table without frames; the columns named in `right` hold numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    return table


def facts_table(facts: Iterable[tuple[str, RenderableType]]) -> Table:
    """Return a table of names and values, one fact a line."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value)
    return table
