"""`localhpo import`: trials that other programs kept, as a study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localhpo.cli._help import Command

if TYPE_CHECKING:
    from localhpo.executor.protocol import Outcome
    from localhpo.importing import Plan, Row, Source
    from localhpo.store import Store
    from localhpo.study.adding import Told
    from localhpo.task import Task
    from localhpo.trial import Config

_LISTED = 20
"""Rows that are left, as far as they are listed; `--json` has them all."""


@click.command(
    "import",
    cls=Command,
    examples=(
        "localhpo import trials.csv --metric val_loss --direction minimize --dry-run",
        "localhpo import trials.csv --task task.toml",
    ),
)
@click.argument("file")
@click.option("--task", "task_file", help="What was tuned: a task file gives space and metric.")
@click.option("--study", default="imported", show_default=True, help="Name of the new study.")
@click.option("--name", help="Of the task, where there is no task file.")
@click.option("--metric", help="Column of the score, in a table.")
@click.option(
    "--direction", type=click.Choice(["minimize", "maximize"]), help="Where the file is silent."
)
@click.option("--params", help="Columns that are hyperparameters, separated by commas.")
@click.option("--background", default="", help="What was tuned, in plain words.")
@click.option("--optuna-study", help="Which study of an Optuna storage.")
@click.option("--dry-run", is_flag=True, help="Only say what would be taken and left, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(file: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Import the trials of other programs as a study.

    They then count as experience (`localhpo run TASK --experience retrieve`).

    FILE is an Optuna storage (SQLite or journal), an export of a W&B sweep (CSV), or a CSV,
    JSON or JSON Lines file of trials. The hyperparameters' ranges come from the task file, from
    the storage, or are those of the values seen; what has one value in all trials is fixed.
    Importing a file again takes only what is new.
    """
    from localhpo.store import Store, default_home
    from localhpo.study.adding import add_trials

    store = Store(default_home())
    source, key, task, plan = _prepared(store, file, options)
    if not dry_run and plan.taken:
        told = [_told(one.row, one.config, task, file) for one in plan.taken]
        message = f"{len(told)} trials imported from {Path(file).name} ({source.kind})"
        add_trials(store, key, task, told, message, {"file": file, "kind": source.kind})
    if as_json:
        _print_json(key, task, source, plan, dry_run)
    else:
        _print(key, task, source, plan, dry_run)


def _prepared(store: Store, file: str, options: dict[str, Any]) -> tuple[Source, str, Task, Plan]:
    """Return what was read, the study it belongs to, its task, and what would be done."""
    from localhpo.cli._target import find_task
    from localhpo.errors import StudyNotFoundError
    from localhpo.importing import plan, read
    from localhpo.store import study_name
    from localhpo.study.session import task_of

    given = find_task(options["task_file"]) if options["task_file"] else None
    source = _read(read, file, given, options)
    name = given.name if given else options["name"] or _task_name(source.name)
    key = study_name(name, options["study"])
    try:
        known: Task | None = task_of(store.study(key))
        trials = store.trials(key)
    except StudyNotFoundError:
        known, trials = None, []
    held = given or known
    if held is None:
        planned = plan(source, None, trials)
    else:
        planned = plan(source, held.space, trials, held.fixed)
    task = _task(name, source, planned, options, held)
    if known is not None:
        from localhpo.study.identity import check_same

        check_same(key, known, task)
    return source, key, task, planned


def _read(read: Any, file: str, given: Task | None, options: dict[str, Any]) -> Source:
    metric = options["metric"] or (given.metric if given else None)
    params = options["params"].split(",") if options["params"] else None
    if params is None and given is not None:
        params = list(given.names)
    source: Source = read(file, study=options["optuna_study"], metric=metric, params=params)
    return source


def _task_name(name: str) -> str:
    """Return a name that a task can have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100] or "imported"


def _task(
    name: str, source: Source, planned: Plan, options: dict[str, Any], held: Task | None
) -> Task:
    """Return the task of the study: the one that is given or known, or what the file says.

    Raises:
        InputError: nobody says whether the metric is made small or large.
    """
    from localhpo.errors import InputError
    from localhpo.task import Task

    if held is not None:
        return held
    direction = options["direction"] or source.direction
    if direction is None:
        raise InputError(
            f"the file does not say whether {source.metric} is made small or large",
            hint="--direction minimize, or --direction maximize",
        )
    return Task(
        name=name,
        command=(),
        metric=options["metric"] or source.metric,
        direction=direction,
        space=planned.space,
        background=options["background"],
        fixed=planned.fixed,
        folder=Path.cwd(),
    )


def _told(row: Row, config: Config, task: Task, file: str) -> Told:
    from localhpo.study.adding import Told
    from localhpo.trial import Measurement

    steps = tuple(Measurement(step, task.metric, value, 0.0) for step, value in row.steps)
    return Told(config, _outcome(row, task), steps, note=f"{row.where} of {Path(file).name}")


def _outcome(row: Row, task: Task) -> Outcome:
    from localhpo.executor.protocol import Outcome
    from localhpo.study.told import outcome
    from localhpo.trial import State, Usage

    if row.ending == "failed":
        return outcome(task.metric, None, "it failed where it was run", False)
    if row.score is None:  # stopped before its first report
        return Outcome(State.PRUNED, None, None, Usage(), summary="")
    return outcome(task.metric, row.score, None, row.ending == "pruned")


def _print_json(key: str, task: Task, source: Source, plan: Plan, dry_run: bool) -> None:
    from localhpo.cli import _output

    _output.print_json(
        {
            "study": key,
            "kind": source.kind,
            "metric": task.metric,
            "direction": task.direction,
            "space": plan.space.to_table(),
            "fixed": dict(plan.fixed),
            "dry_run": dry_run,
            "taken": len(plan.taken),
            "known": plan.known,
            "left": [{"where": left.where, "reason": left.reason} for left in plan.left],
            "notes": list(plan.notes),
        }
    )


def _print(key: str, task: Task, source: Source, plan: Plan, dry_run: bool) -> None:
    from localhpo.analysis import wording

    click.echo(f"{source.kind}: {task.direction} {task.metric}")
    for parameter in plan.space:
        condition = plan.space.condition_text(parameter.name)
        when = f", when {condition}" if condition else ""
        log = ", log" if getattr(parameter, "log", False) else ""
        click.echo(f"  {parameter.name}: {parameter.domain}{log}{when}")
    for name, value in wording.fixed(plan.fixed).items():
        click.echo(f"  {name}: fixed at {value}")
    for note in plan.notes:
        click.echo(f"note: {note}")
    for left in plan.left[:_LISTED]:
        click.echo(f"left: {left.where}: {left.reason}")
    if len(plan.left) > _LISTED:
        click.echo(f"left: {len(plan.left) - _LISTED} more; --json lists them all")
    endings = [one.row.ending for one in plan.taken]
    counts = ", ".join(f"{endings.count(e)} {e}" for e in dict.fromkeys(endings))
    verb = "would be taken" if dry_run else "taken"
    said = f"{len(endings)} {verb}" + (f" ({counts})" if counts else "")
    click.echo(f"{key}: {said}, {plan.known} known already, {len(plan.left)} left")
