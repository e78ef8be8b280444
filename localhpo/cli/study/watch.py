"""`localhpo watch`: follow a study that another process runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, get_args

import click

from localhpo.cli.command import Command
from localhpo.cli.output import print_json, show
from localhpo.cli.study.report import study_record, summarize
from localhpo.cli.study.run import show_progress
from localhpo.cli.target import find_study

if TYPE_CHECKING:
    from localhpo.scheduler.events import Observer, Snapshot
    from localhpo.study import Study

_POLL_S = 1.0
"""Seconds between two reads of the store."""


@click.command(
    "watch",
    cls=Command,
    examples=("localhpo watch", "localhpo watch task.toml", "localhpo watch task.toml --json"),
)
@click.argument("task_or_study", required=False)
@click.option("--study", default="main", show_default=True, help="Name of the study of a task.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(task_or_study: str | None, study: str, as_json: bool) -> None:
    """Follow a study that another process runs, until it ends.

    Shows what `run` shows, and the summary at the end. Ctrl-C stops watching, not the study, and
    shows the summary so far. For a study that is not running, the summary is shown at once.
    """
    from localhpo.cli.study.views import summary_view

    found = find_study(task_or_study, study)
    try:
        with show_progress(found.key, quiet=False) as observers:
            _follow(found, observers)
    except KeyboardInterrupt:
        click.echo(f"stopped watching; {found.key} continues", err=True)
    summary = summarize(found)
    if as_json:
        print_json(study_record(found, summary))
    else:
        show(summary_view(summary))


def _follow(study: Study, observers: list[Observer]) -> None:
    """Pass the events and states of this run of the study to the observers, until it ends."""
    from localhpo.scheduler.events import EventKind
    from localhpo.store import Store, default_home

    store = Store(default_home())
    seen = max((i for i, event in enumerate(study.events) if event.kind == "begun"), default=0)
    goes_on = store.is_taken(study.key)
    while goes_on:
        goes_on = store.is_taken(study.key)  # before the events, so that the last ones are shown
        events = study.events
        for observer in observers:
            for event in events[seen:]:
                if event.kind in get_args(EventKind):
                    observer.on_event(event)
            observer.on_change(_snapshot(study))
        seen = len(events)
        time.sleep(_POLL_S if goes_on else 0.0)


def _snapshot(study: Study) -> Snapshot:
    """Return a snapshot of the study from the store."""
    from localhpo.scheduler.budget import SpentTime, remaining_budget
    from localhpo.scheduler.events import make_snapshot
    from localhpo.trial import State, count_budgeted

    now, trials = time.time(), study.trials
    spent = SpentTime.from_data([event.data for event in study.events])
    running_s = {
        trial.number: now - trial.started_at
        for trial in trials
        if trial.state is State.RUNNING and trial.started_at is not None
    }
    return make_snapshot(
        study.task, trials,
        elapsed_s=running_s, slots=max(1, len(running_s)), spent=spent, proposing=False,
        remaining=remaining_budget(study.task.budget, count_budgeted(trials), spent),
        stop_reason="",
    )  # fmt: skip
