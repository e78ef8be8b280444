"""`localhpo doctor`: whether everything is in place, and what to do where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from localhpo.cli._help import Command

if TYPE_CHECKING:
    from localhpo.cli._checks import Check

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "bad": ("bad", "bold red")}


@click.command(
    "doctor",
    cls=Command,
    examples=(
        "localhpo doctor",
        "localhpo doctor --json",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Check that everything is in place.

    Python, packages, devices, the store, disk, models, prompts, and which models fit this machine,
    with the sum. The exit code is 0 where LocalHPO is usable, and 1 where something must be mended
    first.
    """
    import dataclasses

    from localhpo.cli import _checks, _output

    checks = _checks.all_checks()
    usable = all(check.state != "bad" for check in checks)
    if as_json:
        rows = [dataclasses.asdict(check) for check in checks]
        _output.print_json({"usable": usable, "checks": rows})
    else:
        _print(checks)
        click.echo("LocalHPO is usable." if usable else "LocalHPO is not usable as it is.")
    context.exit(0 if usable else 1)


def _print(checks: list[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    from localhpo.cli import _output

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for check in checks:
        grid.add_row(Text(*_MARKS[check.state]), check.name, check.finding)
        if check.hint:
            grid.add_row("", "", Text(f"-> {check.hint}", style="cyan"))
    _output.show(grid)
