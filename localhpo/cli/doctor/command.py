"""`localhpo doctor`: checks the installation and says what to do about problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from localhpo.cli import output
from localhpo.cli.command import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localhpo.cli.doctor.checks import Check

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "bad": ("bad", "bold red")}


@click.command(
    "doctor",
    cls=Command,
    examples=(
        "localhpo doctor",
        "localhpo doctor --json",
    ),
)
@click.option("--verbose", "-v", is_flag=True, help="Show how the memory of models is computed.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@click.pass_context
def command(context: click.Context, verbose: bool, as_json: bool) -> None:
    """Check that LocalHPO can run on this machine.

    Python, packages, CPUs and GPUs, the store, disk, models, prompts, and which models fit into
    memory. The exit code is 0 if LocalHPO is usable, and 1 if something must be fixed first.
    """
    import dataclasses

    from localhpo.cli.doctor.checks import all_checks

    checks = all_checks()
    usable = all(check.state != "bad" for check in checks)
    if as_json:
        rows = [dataclasses.asdict(check) for check in checks]
        output.print_json({"usable": usable, "checks": rows})
    else:
        _print(checks, verbose)
        click.echo(
            "LocalHPO is usable." if usable else "LocalHPO is not usable: see the lines marked bad."
        )
    context.exit(0 if usable else 1)


def _print(checks: list[Check], verbose: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for check in checks if verbose else _summarized(checks):
        grid.add_row(Text(*_MARKS[check.state]), check.name, check.finding)
        if check.hint:
            grid.add_row("", "", Text(f"-> {check.hint}", style="cyan"))
        if check.detail and verbose:
            grid.add_row("", "", Text(check.detail, style="dim"))
    output.show(grid)


def _summarized(checks: list[Check]) -> Iterator[Check]:
    """Yield the checks, with two lines in place of a line for each known model."""
    from dataclasses import replace

    others = [check for check in checks if check.known_model]
    for check in checks:
        if not check.known_model:
            yield check
        elif check is others[0]:
            texts = {True: "would fit if you add them: ", False: "too large for this machine: "}
            for fits, text in texts.items():
                names = [other.known_model for other in others if other.fits is fits]
                if names:
                    finding = text + ", ".join(names)
                    yield replace(check, name="other models", finding=finding, detail="")
