"""Printing to standard output and standard error."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

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
