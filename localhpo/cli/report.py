"""`localhpo report`: what came out of a study."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from localhpo.cli._help import Command


@click.command(
    "report",
    cls=Command,
    examples=(
        "localhpo report",
        "localhpo report task.toml --output report.md",
        "localhpo report task.toml --json",
    ),
)
@click.argument("task_or_study", required=False)
@click.option("--study", default="main", show_default=True, help="Name of the study of a task.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False),
    help="Write the Markdown to this file.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(task_or_study: str | None, study: str, output: Path | None, as_json: bool) -> None:
    """Report on a study, in Markdown.

    The best configuration, the way there, failures, cost, and all trials; drawn for reading on
    a terminal. The study may be running meanwhile; without a name it is the only one there is.
    """
    from localhpo.cli import _conclusion, _output, _target

    found = _target.find_study(task_or_study, study)
    summary = _conclusion.summary_of(found)
    if output is not None:
        _conclusion.save(output, _conclusion.report_of(found, summary))
        click.echo(f"{output} written", err=as_json)
    if as_json:
        _output.print_json(_conclusion.record_of(found, summary))
    elif output is None:
        _show(_conclusion.report_of(found, summary))


def _show(markdown: str) -> None:
    """Draw Markdown on a terminal; elsewhere it stays as it is."""
    if not sys.stdout.isatty():
        click.echo(markdown, nl=False)
        return
    from rich.markdown import Markdown

    from localhpo.cli import _output

    _output.show(Markdown(markdown))
