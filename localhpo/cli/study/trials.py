"""`localhpo trials`: list studies, and the trials of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from localhpo.cli.command import Command
from localhpo.cli.output import console, plain_table, print_json, show
from localhpo.cli.target import find_study

if TYPE_CHECKING:
    from localhpo.store import StudyRecord
    from localhpo.study import Study
    from localhpo.trial import Trial

_UNREADABLE: dict[str, Any] = dict.fromkeys(
    ("metric", "direction", "objectives", "constraints", "counted", "budget", "best",
     "best_trials", "changed_at")
)  # fmt: skip
"""The keys of a study in the list that are null where it cannot be read."""


class Order(click.Choice):  # type: ignore[type-arg]  # generic since click 8.2
    """Order of the trials. `score` is the name of `value` in version 0.1.0."""

    def __init__(self) -> None:
        super().__init__(["number", "value"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the order of a text."""
        order: str = super().convert("value" if value == "score" else value, param, ctx)
        return order


@click.command(
    "trials",
    cls=Command,
    examples=(
        "localhpo trials",
        "localhpo trials task.toml --sort value",
        "localhpo trials task.toml --failed",
        "localhpo trials task.toml --json",
    ),
)
@click.argument("task_or_study", required=False)
@click.option("--study", default="main", show_default=True, help="Name of the study of a task.")
@click.option(
    "--failed", is_flag=True, help="List the trials that failed or were refused, and why."
)
@click.option(
    "--sort", type=Order(), default="number", show_default=True,
    help="Order of the trials; value: the best first.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print all trials with every field as JSON.")
def command(task_or_study: str | None, study: str, failed: bool, sort: str, as_json: bool) -> None:
    """List the trials of a study, or the studies.

    TASK_OR_STUDY is a task file, the name of a task, or a study as the list shows it
    (task/study). Without it: the trials of the only study, or the list of several. `*` marks the
    best trial, or with several objectives the trials of the Pareto front. The study may be running.
    """
    from localhpo.store import Store, default_home

    if task_or_study is None and len(records := Store(default_home()).studies()) != 1:
        _print_studies(records, as_json)
        return
    found = find_study(task_or_study, study)
    _print_trials(found, _selected(found, failed, sort), failed, as_json)


def _selected(study: Study, failed: bool, sort: str) -> list[Trial]:
    from localhpo.analysis.summary import failure_of, sorted_by_value

    trials = [trial for trial in study.trials if not failed or failure_of(trial)]
    return sorted_by_value(trials, study.task.objectives) if sort == "value" else trials


def _print_trials(study: Study, trials: list[Trial], failed: bool, as_json: bool) -> None:
    from localhpo.analysis.records import trial_record
    from localhpo.cli.study import views

    if as_json:
        print_json([trial_record(trial, full=True) for trial in trials])
        return
    if not trials:
        click.echo(f"{study.key} has no {'failed ' if failed else ''}trials")
        return
    if failed:
        show(views.failures_table(trials))
        return
    best = {trial.number for trial in study.best_trials if trial.feasible}
    show(views.trials_table(study.task, trials, best, console().width))


def _print_studies(records: list[StudyRecord], as_json: bool) -> None:
    from localhpo.analysis import formatting
    from localhpo.store import default_home

    rows = [_study_row(record) for record in records]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo(f"there are no studies in {default_home()} yet: `localhpo run TASK` starts one")
        return
    table = plain_table("study", "trials", "metric", "best", "last change", right=("best",))
    for row in rows:
        if row["error"] is not None:
            table.add_row(row["study"], "cannot be read", "-", "-", _when(row["created_at"]))
            click.echo(f"note: study {row['study']} cannot be read: {row['error']}", err=True)
            continue
        is_beyond = row["budget"] is None or row["budget"] < row["counted"]
        trials = str(row["counted"]) if is_beyond else f"{row['counted']} of {row['budget']}"
        best = formatting.value(row["best"]) if len(row["objectives"]) == 1 else _front_size(row)
        metrics = ", ".join(formatting.printable(one["name"]) for one in row["objectives"])
        table.add_row(row["study"], trials, metrics, best, _when(row["changed_at"]))
    show(table)


def _front_size(row: dict[str, Any]) -> str:
    from localhpo.analysis.formatting import count

    return count(len(row["best_trials"]), "trial") if row["best_trials"] else "-"


def _study_row(record: StudyRecord) -> dict[str, Any]:
    """Return what the list says of a study; of a damaged one, why it cannot be read."""
    from localhpo.analysis.records import goals_record
    from localhpo.errors import LocalHPOError, StoreVersionError
    from localhpo.study import Study
    from localhpo.trial import count_budgeted

    try:
        study = Study.find(record.name)
        trials = study.trials
    except StoreVersionError:
        raise
    except LocalHPOError as error:  # damage, or settings that this version refuses
        return {**_UNREADABLE, "study": record.name, "created_at": record.created_at,
                "error": str(error)}  # fmt: skip
    best = [trial for trial in study.best_trials if trial.feasible]
    moments = [t.finished_at or t.started_at or t.queued_at for t in trials]
    return {
        "study": record.name,
        **goals_record(study.task),
        "counted": count_budgeted(trials),
        "budget": study.task.budget.trials,
        "best": best[0].value if best and len(study.task.objectives) == 1 else None,
        "best_trials": [{"number": trial.number, "values": trial.values} for trial in best],
        "created_at": record.created_at,
        "changed_at": max(moments, default=record.created_at),
        "error": None,
    }


def _when(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
