"""`localhpo import`: turn trials of other programs into a study."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localhpo.cli.command import Command
from localhpo.cli.output import print_json
from localhpo.cli.target import find_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localhpo.executor.protocol import Outcome
    from localhpo.importers import AcceptedTrial, ImportPlan, TrialSource
    from localhpo.objective import Direction
    from localhpo.store import Store
    from localhpo.study.external_trials import ExternalTrial
    from localhpo.task import Task

_LISTED = 20
"""Skipped rows that are listed; `--json` has all of them."""
_DIRECTIONS = ("minimize", "maximize")


@click.command(
    "import",
    cls=Command,
    examples=(
        "localhpo import trials.csv --metric val_loss --direction minimize --dry-run",
        "localhpo import trials.csv --metric val_loss:minimize --dry-run",
        "localhpo import trials.csv --task task.toml",
    ),
)
@click.argument("file")
@click.option("--task", "task_file", help="Task file that gives search space and objectives.")
@click.option("--study", default="imported", show_default=True, help="Name of the new study.")
@click.option("--name", help="Name of the task, without a task file.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME[:DIRECTION]",
    help="Objective: a column of a table; once for each objective.",
)  # fmt: skip
@click.option(
    "--direction", "directions", multiple=True, type=click.Choice(_DIRECTIONS),
    help="Direction of an objective, if the file does not state it; once for each objective.",
)  # fmt: skip
@click.option("--params", help="Columns that are hyperparameters, separated by commas.")
@click.option("--background", default="", help="Description of the task, in plain words.")
@click.option("--optuna-study", help="Name of the study in an Optuna storage.")
@click.option("--dry-run", is_flag=True, help="Show what would be imported and skipped, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(file: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Import trials of other programs as a study.

    Other studies can use it then (`localhpo run TASK --transfer retrieve`).

    FILE is an Optuna storage (SQLite or journal), an export of a W&B sweep (CSV), or a CSV, JSON
    or JSON Lines file of trials. The ranges of hyperparameters come from the task file, from the
    storage, or from the values in the file; what has one value in all trials is fixed. Importing a
    file again adds only new trials.
    """
    from localhpo.store import Store, default_home
    from localhpo.study.external_trials import add_trials

    store = Store(default_home())
    source, key, task, plan = _prepare(store, file, options)
    if not dry_run and plan.accepted:
        trials = [_external_trial(one, task, file) for one in plan.accepted]
        message = f"{len(trials)} trials imported from {Path(file).name} ({source.kind})"
        add_trials(store, key, task, trials, message, {"file": file, "kind": source.kind})
    if as_json:
        _print_json(key, task, source, plan, dry_run)
    else:
        _print(key, task, source, plan, dry_run)


def _prepare(
    store: Store, file: str, options: dict[str, Any]
) -> tuple[TrialSource, str, Task, ImportPlan]:
    """Return the trials of the file, the study they belong to, its task, and what to import."""
    from localhpo.errors import StudyNotFoundError
    from localhpo.importers import plan_import, read_source
    from localhpo.store import study_name
    from localhpo.study.session import task_of

    names, directions = _objectives(options["metrics"], options["directions"])
    given = find_task(options["task_file"]) if options["task_file"] else None
    source = read_source(
        file,
        study=options["optuna_study"],
        metrics=names,
        params=options["params"].split(",") if options["params"] else None,
        task=given,
    )
    name = given.name if given else options["name"] or _task_name(source.name)
    key = study_name(name, options["study"])
    try:
        known: Task | None = task_of(store.study(key))
        trials = store.trials(key)
    except StudyNotFoundError:
        known, trials = None, []
    planned = plan_import(source, given or known, trials, directions=directions)
    task = given or known or _new_task(name, planned, options["background"])
    if known is not None:
        from localhpo.study.checks import check_same

        check_same(key, known, task)
    return source, key, task, planned


def _objectives(
    metrics: Sequence[str], directions: Sequence[Direction]
) -> tuple[list[str], list[Direction]]:
    """Return names and directions of the objectives: `f1:maximize`, or one option for each.

    Raises:
        InputError: directions are given in both forms, or for some of the metrics only.
    """
    from localhpo.errors import InputError

    names: list[str] = []
    own: list[Any] = []
    for metric in metrics:
        name, _, direction = metric.rpartition(":")
        has_direction = bool(name) and direction in _DIRECTIONS
        names.append(name if has_direction else metric)
        own += [direction] if has_direction else []
    if not own:
        return names, list(directions)
    if directions or len(own) != len(names):
        raise InputError(
            "directions must be given in one form, for each metric; got "
            f"--metric {', '.join(metrics)} and --direction {', '.join(directions) or 'nothing'}",
            hint="for instance --metric val_f1:maximize --metric latency_ms:minimize",
        )
    return names, own


def _task_name(name: str) -> str:
    """Return a valid name for the task."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100] or "imported"


def _new_task(name: str, planned: ImportPlan, background: str) -> Task:
    from localhpo.task import Task

    return Task(
        name=name,
        command=(),
        objectives=planned.objectives,
        constraints=planned.constraints,
        space=planned.space,
        background=background,
        fixed=planned.fixed,
        folder=Path.cwd(),
    )


def _external_trial(accepted: AcceptedTrial, task: Task, file: str) -> ExternalTrial:
    from localhpo.study.external_trials import ExternalTrial
    from localhpo.trial import Measurement

    source = accepted.source
    steps = tuple(Measurement(step, task.metric, value, 0.0) for step, value in source.steps)
    note = f"{source.where} of {Path(file).name}"
    return ExternalTrial(accepted.config, _outcome(accepted, task), steps, note=note)


def _ending(accepted: AcceptedTrial) -> str:
    """Return how a trial will be recorded: a value that is not finite makes it a failure."""
    is_finite = all(map(math.isfinite, accepted.metrics.values()))
    return accepted.source.ending if is_finite else "failed"


def _outcome(accepted: AcceptedTrial, task: Task) -> Outcome:
    from dataclasses import replace

    from localhpo.executor.protocol import Outcome
    from localhpo.study.external_trials import make_outcome
    from localhpo.trial import State, Usage

    ending, metrics = accepted.source.ending, accepted.metrics
    if ending == "failed":
        return make_outcome(task, None, "it failed where it was run", False)
    if not metrics:  # stopped before its first report
        return Outcome(State.PRUNED, (), None, Usage(), summary="")
    # The file need not have what LocalHPO measures itself: then it is unknown whether it holds.
    reported = tuple(one for one in task.constraints if one.name in metrics)
    known = replace(task, constraints=reported)
    outcome = make_outcome(known, metrics, None, ending == "pruned")
    if not outcome.values:
        return outcome
    found = dict(zip((one.name for one in reported), outcome.violations, strict=True))
    violations = tuple(found.get(one.name, float("nan")) for one in task.constraints)
    return replace(outcome, violations=violations)


def _print_json(key: str, task: Task, source: TrialSource, plan: ImportPlan, dry_run: bool) -> None:
    from localhpo.analysis.records import goals_record

    skipped = [{"where": row.where, "reason": row.reason} for row in plan.skipped]
    print_json(
        {
            "study": key,
            "kind": source.kind,
            **goals_record(task),
            "space": plan.space.to_table(),
            "fixed": dict(plan.fixed),
            "dry_run": dry_run,
            "imported": len(plan.accepted),
            "taken": len(plan.accepted),  # its name before; kept for this version
            "known": plan.known,
            "skipped": skipped,
            "left": skipped,  # its name before; kept for this version
            "notes": list(plan.notes),
        }
    )


def _print(key: str, task: Task, source: TrialSource, plan: ImportPlan, dry_run: bool) -> None:
    from localhpo.analysis import formatting
    from localhpo.space import Float, Int

    click.echo(f"{source.kind}: {formatting.goals_text(task)}")
    for parameter in plan.space:
        condition = plan.space.condition_text(parameter.name)
        when = f", when {condition}" if condition else ""
        log = ", log" if isinstance(parameter, Float | Int) and parameter.log else ""
        click.echo(f"  {parameter.name}: {parameter.domain}{log}{when}")
    for name, value in formatting.fixed_texts(plan.fixed).items():
        click.echo(f"  {name}: fixed at {value}")
    for note in plan.notes:
        click.echo(f"note: {note}")
    for row in plan.skipped[:_LISTED]:
        click.echo(f"skipped: {row.where}: {row.reason}")
    if len(plan.skipped) > _LISTED:
        click.echo(f"skipped: {len(plan.skipped) - _LISTED} more; --json lists all of them")
    endings = [_ending(one) for one in plan.accepted]
    counts = ", ".join(f"{endings.count(e)} {e}" for e in dict.fromkeys(endings))
    verb = "would be imported" if dry_run else "imported"
    total = f"{formatting.count(len(endings), 'trial')} {verb}" + (f" ({counts})" if counts else "")
    click.echo(f"{key}: {total}, {plan.known} in the study already, {len(plan.skipped)} skipped")
