"""Views of trials and studies for a terminal: the table of trials, and the summary of a study."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from localhpo.analysis import formatting
from localhpo.analysis.resource_use import ResourceUse
from localhpo.analysis.summary import StudyCost, Summary, failure_of, find_improvements
from localhpo.cli.output import facts_table, plain_table
from localhpo.task import Task
from localhpo.trial import State, Trial

STATE_STYLES = {
    State.QUEUED: "dim",
    State.RUNNING: "cyan",
    State.COMPLETE: "green",
    State.PRUNED: "yellow",
    State.FAILED: "red",
    State.INFEASIBLE: "magenta",
    State.INTERRUPTED: "yellow",
}

ROOM_FOR_ORIGIN = 90
"""Columns of a terminal below which origin and time of a trial are left out."""


def trials_table(task: Task, trials: Iterable[Trial], best: Collection[int], width: int) -> Table:
    """Return the listing of trials for so many columns.

    Args:
        task: Names the columns of the values.
        trials: In the order of the rows.
        best: The numbers of the best trials, which get a `*`.
        width: Columns of the terminal; a narrow one has no room for time and origin.
    """
    roomy = width >= ROOM_FOR_ORIGIN
    names = [formatting.printable(objective.name) for objective in task.objectives]
    aside = ["time", "origin"] if roomy else []
    table = plain_table(
        "trial", "state", *names, *aside, "configuration", right=("trial", *names, "time")
    )
    for trial in trials:
        table.add_row(
            str(trial.number),
            state_text(task, trial),
            *value_texts(task, trial, is_best=trial.number in best),
            *(_time_and_origin(trial) if roomy else ()),
            formatting.assignments(formatting.config_texts(task.space, trial.config)),
        )
    return table


def _time_and_origin(trial: Trial) -> tuple[str, str]:
    origin = formatting.printable(str(trial.proposal.origin))
    return formatting.duration(trial.usage.wall_s), origin


def failures_table(trials: Iterable[Trial]) -> Table:
    """Return the listing of trials that failed or were refused, with their messages."""
    table = plain_table("trial", "cause", "message", right=("trial",))
    for trial in trials:
        if failure := failure_of(trial):
            text = formatting.failure_text(failure.message, failure.stderr_tail)
            table.add_row(str(trial.number), failure.cause, text)
    return table


def state_text(task: Task, trial: Trial) -> Text:
    """Return the state, with the cause of a failure or the constraints that are violated."""
    text = Text(str(trial.state), style=STATE_STYLES[trial.state])
    if trial.failure is not None:
        text.append(f" ({trial.failure.cause})")
    if violated := formatting.violations_text(trial, task.constraints):
        text.append(f" ({violated})", style="yellow")
    return text


def value_texts(task: Task, trial: Trial, *, is_best: bool) -> list[Text]:
    """Return a cell for each objective; those of a best trial stand out, without color too."""
    style = "bold green" if is_best else ""
    if not trial.values:
        return [Text("-") for _ in task.objectives]
    cells = [Text(formatting.value(value), style=style) for value in trial.values]
    if is_best:
        cells[0] = Text("* ", style=style).append(cells[0])
    return cells


def summary_view(summary: Summary, report: Path | None = None) -> RenderableType:
    """Return the summary of a study for a terminal."""
    return Group(_headline(summary), "", facts_table(_facts(summary, report)))


def _headline(summary: Summary) -> Text:
    of_budget = "" if summary.budget is None else f" of {summary.budget}"
    states = ", ".join(f"{number} {state}" for state, number in summary.states.items())
    line = Text(summary.study, style="bold")
    return line.append(f"   {summary.counted}{of_budget} trials: {states or 'none yet'}", style="")


def _facts(summary: Summary, report: Path | None) -> Iterable[tuple[str, RenderableType]]:
    task = summary.task
    if len(task.objectives) > 1 or task.constraints:
        yield "goals", formatting.goals_text(task)
    yield from _best(summary)
    if fixed := formatting.fixed_texts(task.fixed):
        yield "fixed", formatting.assignments(fixed)
    if summary.incumbent:
        yield "progress", _progress(summary)
    if summary.origins:
        yield "proposals", _origins(summary)
    for note in summary.notes:
        text = f"{formatting.printable(note.text)} ({_numbered(note.trials)})"
        yield "", Text(text, style="yellow")
    for group in summary.failures:
        text = formatting.failure_text(group.message, group.stderr_tail)
        message = f" ({_numbered(group.trials)}): {text}"
        yield "failed", Text(group.cause, style="red").append(message, style="default")
    yield "cost", _cost(summary.cost)
    if devices := _devices(summary.resource_use):
        yield "devices", devices
    if summary.resource_use.waited_s:
        yield "waited", formatting.waiting_times(summary.resource_use.waited_s)
    if report is not None:
        yield "report", str(report)


def _best(summary: Summary) -> Iterable[tuple[str, RenderableType]]:
    """Yield the best trial with its configuration, or the Pareto front as a table."""
    trials = summary.best_trials
    if not trials:
        yield "best", "no trial is complete"
    elif len(summary.task.objectives) > 1:
        yield "best trials", _front_text(summary)
        yield "", _front(summary)
    else:
        yield from _best_trial(summary, trials[0])


def _front_text(summary: Summary) -> str:
    if not summary.is_feasible:
        return "no trial meets every constraint; the least infeasible:"
    number, complete = len(summary.best_trials), summary.states.get(State.COMPLETE, 0)
    verb = "forms" if number == 1 else "form"
    return f"{number} of {formatting.count(complete, 'complete trial')} {verb} the Pareto front:"


def _front(summary: Summary) -> Table:
    task = summary.task
    names = [formatting.printable(objective.name) for objective in task.objectives]
    limits = ["constraints"] if task.constraints else []
    headers = ("trial", *names, *limits, "origin", "configuration")
    table = plain_table(*headers, right=("trial", *names))
    for trial in summary.best_trials:
        table.add_row(
            str(trial.number),
            *(Text(formatting.value(value), style="bold green") for value in trial.values),
            *([_constraints(task, trial)] if limits else []),
            formatting.printable(str(trial.proposal.origin)),
            formatting.assignments(formatting.config_texts(task.space, trial.config)),
        )
    return table


def _constraints(task: Task, trial: Trial) -> str:
    pairs = zip(task.constraints, trial.violations, strict=False)
    return ", ".join(formatting.constraint_text(one, violation) for one, violation in pairs)


def _best_trial(summary: Summary, best: Trial) -> Iterable[tuple[str, RenderableType]]:
    task = summary.task
    if not summary.is_feasible:
        yield "best", "no trial meets every constraint; the least infeasible:"
    name, value = formatting.printable(task.metric), formatting.value(best.values[0])
    origin = formatting.origin_text(best.proposal.origin)
    text = Text(f"{name} ").append(value, "bold green" if summary.is_feasible else "bold")
    yield (
        "best" if summary.is_feasible else "",
        text.append(f"   trial {best.number}, from {origin}"),
    )
    if task.constraints:
        yield "", _constraints(task, best)
    grid = Table.grid(padding=(0, 2))
    for parameter, spelled in formatting.config_texts(task.space, best.config).items():
        grid.add_row(formatting.printable(parameter), spelled)
    yield "", grid
    if best.proposal.rationale:
        label = "why (model)" if best.proposal.rationale_by == "model" else "why"
        yield label, Text(formatting.printable(best.proposal.rationale))


def _progress(summary: Summary) -> str:
    steps = find_improvements(summary.incumbent)
    first, last = steps[0][1], steps[-1][1]
    curve = formatting.sparkline([value for _, value in summary.incumbent], width=30)
    return f"{formatting.value(first)} {curve} {formatting.value(last)}"


def _origins(summary: Summary) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right")
    for share in summary.origins:
        noun = "trial" if share.trials == 1 else "trials"
        origin = formatting.origin_text(share.origin)
        short = formatting.printable(str(share.origin))
        grid.add_row(str(share.trials), f"{noun} from {origin} ({short})")
    return grid


def _numbered(trials: Sequence[int]) -> str:
    return f"{formatting.count(len(trials), 'trial')}: {formatting.trial_numbers(trials)}"


def _devices(use: ResourceUse) -> str:
    """Return what was used of the GPUs; empty where none were held."""
    parts = []
    if use.gpu_s is not None:
        parts.append(f"trials {formatting.duration(use.gpu_s)} of GPU time")
    if use.gpu_utilization is not None:
        parts.append(f"{formatting.percent(use.gpu_utilization)} utilization")
    if use.energy_j is not None:
        parts.append(formatting.energy(use.energy_j))
    if use.model_gpu_s is not None:
        model = f"model {formatting.duration(use.model_gpu_s)} of GPU time"
        parts.append(f"{model}, {formatting.memory(use.model_gpu_memory_mb)}")
        if use.model_energy_j is not None:
            parts.append(formatting.energy(use.model_energy_j))
    return "; ".join(parts)


def _cost(cost: StudyCost) -> str:
    parts = [] if cost.elapsed_s is None else [f"{formatting.duration(cost.elapsed_s)} in total"]
    parts.append(f"trials {formatting.duration(cost.trial_s)}")
    tokens = cost.prompt_tokens + cost.completion_tokens
    parts.append(
        f"proposals {formatting.duration(cost.proposal_s)}, {formatting.count(tokens, 'token')}"
    )
    if cost.peak_memory_mb is not None:
        parts.append(f"peak memory {formatting.memory(cost.peak_memory_mb)}")
    if cost.peak_gpu_memory_mb is not None:
        parts.append(f"peak GPU memory {formatting.memory(cost.peak_gpu_memory_mb)}")
    return "; ".join(parts)
