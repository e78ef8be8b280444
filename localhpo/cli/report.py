"""`localhpo report`: the results of a study as Markdown."""

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

    The best configuration (with several objectives the Pareto front), progress, failures, cost,
    and all trials. TASK_OR_STUDY may be left out where there is only one study. The study may be
    running.
    """
    from localhpo.cli import _output, _study_output, _target

    found = _target.find_study(task_or_study, study)
    summary = _study_output.summary_of(found)
    if output is not None:
        _study_output.save(output, _study_output.report_of(found, summary))
        click.echo(f"wrote {output}", err=as_json)
    if as_json:
        _output.print_json(_study_output.record_of(found, summary))
    elif output is None:
        _show(_study_output.report_of(found, summary))


def _show(markdown: str) -> None:
    """Render Markdown on a terminal; print it as it is elsewhere."""
    if not sys.stdout.isatty():
        click.echo(markdown, nl=False)
        return
    from rich.markdown import Markdown

    from localhpo.cli import _output

    _output.show(Markdown(markdown))
