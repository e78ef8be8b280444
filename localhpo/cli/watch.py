"""`localhpo watch`: follow a study that another process runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, get_args

import click

from localhpo.cli._help import Command

if TYPE_CHECKING:
    from localhpo.scheduler.observer import Observer, Snapshot
    from localhpo.study import Study

_LOOK_S = 1.0
"""Between two looks at the store."""


@click.command(
    "watch",
    cls=Command,
    examples=("localhpo watch", "localhpo watch task.toml", "localhpo watch task.toml --json"),
)
@click.argument("task_or_study", required=False)
@click.option("--study", default="main", show_default=True, help="Name of the study of a task.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(task_or_study: str | None, study: str, as_json: bool) -> None:
    """Follow a study that another process runs, until that ends.

    Shows what `run` shows, and at the end the summary: with what trials and model took of the
    devices, and what was waited for. Ctrl-C ends the watching, not the study; the summary is then
    that of the moment. A study that nobody runs is summed up at once.
    """
    from localhpo.cli import _conclusion, _output, _target
    from localhpo.cli._views import summary_view
    from localhpo.cli.run import watching

    found = _target.find_study(task_or_study, study)
    try:
        with watching(found.key, quiet=False) as observers:
            _follow(found, observers)
    except KeyboardInterrupt:
        click.echo(f"{found.key} goes on", err=True)
    summary = _conclusion.summary_of(found)
    if as_json:
        _output.print_json(_conclusion.record_of(found, summary))
        return
    _output.show(summary_view(summary))


def _follow(study: Study, observers: list[Observer]) -> None:
    """Show the observers this run of the study, from its begin to its end."""
    from localhpo.scheduler.observer import EventKind
    from localhpo.store import Store, default_home

    store = Store(default_home())
    heard = max((i for i, event in enumerate(study.events) if event.kind == "begun"), default=0)
    goes_on = store.is_taken(study.key)
    while goes_on:
        goes_on = store.is_taken(study.key)  # asked first: what happens until its end is shown
        events = study.events
        for observer in observers:
            for event in events[heard:]:
                if event.kind in get_args(EventKind):
                    observer.on_event(event)
            observer.on_change(_snapshot(study))
        heard = len(events)
        time.sleep(_LOOK_S if goes_on else 0.0)


def _snapshot(study: Study) -> Snapshot:
    """Return the study as its store has it."""
    from localhpo.scheduler.budget import Spent, left
    from localhpo.scheduler.view import snapshot
    from localhpo.trial import State, counted

    now, trials = time.time(), study.trials
    spent = Spent.from_data([event.data for event in study.events])
    running_s = {
        trial.number: now - trial.started_at
        for trial in trials
        if trial.state is State.RUNNING and trial.started_at is not None
    }
    return snapshot(
        study.task, trials,
        elapsed_s=running_s, slots=max(1, len(running_s)), spent=spent,
        left=left(study.task.budget, counted(trials), spent), proposing=False, closing="",
    )  # fmt: skip
