"""`localhpo report`: the results of a study as Markdown.

Also what other commands print of a study: its summary as JSON, and the commands of its best trials.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localhpo.cli.command import Command
from localhpo.cli.output import print_json, show
from localhpo.cli.target import find_study

if TYPE_CHECKING:
    from localhpo.analysis.summary import Summary
    from localhpo.study import Study
    from localhpo.trial import Trial

REPORT = "report.md"


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
    found = find_study(task_or_study, study)
    summary = summarize(found)
    if output is not None:
        save(output, report_text(found, summary))
        click.echo(f"wrote {output}", err=as_json)
    if as_json:
        print_json(study_record(found, summary))
    elif output is None:
        _show(report_text(found, summary))


def _show(markdown: str) -> None:
    """Render Markdown on a terminal; print it as it is elsewhere."""
    if not sys.stdout.isatty():
        click.echo(markdown, nl=False)
        return
    from rich.markdown import Markdown

    show(Markdown(markdown))


def summarize(study: Study) -> Summary:
    """Return the facts of a study as they stand."""
    from localhpo.analysis.summary import summarize_study
    from localhpo.scheduler.budget import SpentTime

    events = study.events
    elapsed_s = SpentTime.from_data([event.data for event in events]).wall_s or None
    return summarize_study(study.task, study.key, study.trials, elapsed_s=elapsed_s, events=events)


def study_record(study: Study, summary: Summary) -> dict[str, Any]:
    """Return the facts of a study as JSON, with the commands that run the best trials again."""
    from localhpo.analysis.records import summary_record

    best = summary.best_trial
    again = "" if best is None else rerun_command(study, best)
    return {**summary_record(summary), "rerun": again, "reruns": _reruns(study, summary)}


def report_text(study: Study, summary: Summary) -> str:
    """Return the report as Markdown."""
    from localhpo.analysis.report import render_report

    return render_report(summary, reruns=_reruns(study, summary))


def _reruns(study: Study, summary: Summary) -> dict[int, str]:
    """Return the command of each best trial by its number; empty where the task has no command."""
    if not study.task.command:
        return {}
    return {trial.number: rerun_command(study, trial) for trial in summary.best_trials}


def rerun_command(study: Study, trial: Trial) -> str:
    """Return the shell commands that run a trial again; empty where the task has no command."""
    from localhpo.executor.command import build_arguments
    from localhpo.executor.process import TrialFiles

    task = study.task
    if not task.command:
        return ""
    files = TrialFiles(study.folder / "trials" / str(trial.number))
    known = {
        "config": str(files.config),
        "trial.dir": str(files.folder),
        "trial.number": str(trial.number),
        "seed": str(trial.seed),
    }
    settings = {
        **task.env,
        "LOCALHPO_CONFIG": str(files.config),
        "LOCALHPO_SEED": str(trial.seed),
    }
    words = build_arguments(task.command, {**task.fixed, **trial.config}, task.names, known)
    lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    folder = shlex.quote(str(task.folder.absolute()))
    return f"cd {folder} &&\n" + " \\\n".join([*lines, *_wrapped(words)])


def _wrapped(words: Iterable[str], width: int = 80) -> list[str]:
    """Return an argument list as lines of a shell command, each about `width` characters long."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("   ")
        lines[-1] += f" {shlex.quote(word)}" if lines[-1] else shlex.quote(word)
    return lines


def write_report(study: Study, summary: Summary) -> Path:
    """Write the report into the folder of the study and return its path.

    Raises:
        StoreError: it cannot be written.
    """
    path = study.folder / REPORT
    save(path, report_text(study, summary))
    return path


def save(path: Path, text: str) -> None:
    """Write a file atomically.

    Raises:
        StoreError: it cannot be written.
    """
    from localhpo.errors import StoreError

    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as exc:
        aside.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {exc.strerror}") from exc
