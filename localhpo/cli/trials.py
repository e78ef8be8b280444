"""`localhpo trials`: list studies, and the trials of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from localhpo.cli._help import Command

if TYPE_CHECKING:
    from localhpo.store import StudyRecord
    from localhpo.study import Study
    from localhpo.trial import Trial


@click.command(
    "trials",
    cls=Command,
    examples=(
        "localhpo trials",
        "localhpo trials task.toml --sort score",
        "localhpo trials task.toml --failed",
        "localhpo trials task.toml --json",
    ),
)
@click.argument("task_or_study", required=False)
@click.option("--study", default="main", show_default=True, help="Name of the study of a task.")
@click.option("--failed", is_flag=True, help="Only those that failed or could not run, and why.")
@click.option(
    "--sort", type=click.Choice(["number", "score"]), default="number", show_default=True,
    help="In which order.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print full records as JSON.")
def command(task_or_study: str | None, study: str, failed: bool, sort: str, as_json: bool) -> None:
    """List the trials of a study, or the studies.

    A study is named by its task file, its task's name, or as the list of studies names it.
    Without a name: the trials of the only study, or the list where there are several. A study
    may be running meanwhile.
    """
    from localhpo.cli import _target

    if task_or_study is None and len(records := _studies()) != 1:
        _print_studies(records, as_json)
        return
    found = _target.find_study(task_or_study, study)
    _print_trials(found, _selected(found, failed, sort), failed, as_json)


def _studies() -> list[StudyRecord]:
    from localhpo.store import Store, default_home

    return Store(default_home()).studies()


def _selected(study: Study, failed: bool, sort: str) -> list[Trial]:
    from localhpo.analysis import refusals
    from localhpo.analysis.progress import by_score

    trials = [trial for trial in study.trials if not failed or refusals.cause(trial)]
    return by_score(trials, study.task.direction) if sort == "score" else trials


def _print_trials(study: Study, trials: list[Trial], failed: bool, as_json: bool) -> None:
    from localhpo.analysis.records import trial_record
    from localhpo.cli import _output, _views

    if as_json:
        _output.print_json([trial_record(trial, full=True) for trial in trials])
        return
    if not trials:
        click.echo(f"{study.key} has no {'failed ' if failed else ''}trials")
        return
    if failed:
        table = _views.failures_table(trials)
    else:
        width = _output.console().width
        table = _views.trials_table(study.task, trials, study.best, width)
    _output.show(table)


def _print_studies(records: list[StudyRecord], as_json: bool) -> None:
    from localhpo.analysis import wording
    from localhpo.cli import _output, _views
    from localhpo.store import default_home

    rows = [_study_row(record) for record in records]
    if as_json:
        _output.print_json(rows)
        return
    if not rows:
        click.echo(f"no studies in {default_home()} yet: `localhpo run TASK` makes one")
        return
    table = _views.plain_table("study", "trials", "metric", "best", "last change", right=("best",))
    for row in rows:
        is_beyond = row["budget"] is None or row["budget"] < row["counted"]
        trials = str(row["counted"]) if is_beyond else f"{row['counted']} of {row['budget']}"
        best = wording.score(row["best"])
        table.add_row(row["study"], trials, row["metric"], best, _when(row["changed_at"]))
    _output.show(table)


def _study_row(record: StudyRecord) -> dict[str, Any]:
    from localhpo.study import Study
    from localhpo.trial import counted

    study = Study.find(record.name)
    best, trials = study.best, study.trials
    moments = [t.finished_at or t.started_at or t.queued_at for t in trials]
    return {
        "study": record.name,
        "metric": study.task.metric,
        "direction": study.task.direction,
        "counted": counted(trials),
        "budget": study.task.budget.trials,
        "best": None if best is None else best.score,
        "created_at": record.created_at,
        "changed_at": max(moments, default=record.created_at),
    }


def _when(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
