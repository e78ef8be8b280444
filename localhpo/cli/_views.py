"""What a terminal is shown: the table of trials, and the summary of a study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from localhpo.analysis import refusals, wording
from localhpo.analysis.accounting import Accounts
from localhpo.analysis.progress import improvements
from localhpo.analysis.summary import Cost, Summary
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

_ROOM_FOR_ORIGIN = 90
"""Columns below which the origin of a trial is left out, and in a listing its time."""


def plain_table(*headers: str, right: Sequence[str] = ()) -> Table:
    """Return a table without frames; the columns named in `right` hold numbers."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    return table


def trials_table(task: Task, trials: Iterable[Trial], best: Trial | None, width: int) -> Table:
    """Return the listing of trials for so many columns; the best one is marked."""
    roomy = width >= _ROOM_FOR_ORIGIN
    headers = ["trial", "state", wording.plain(task.metric), "time", "origin", "configuration"]
    right = ("trial", headers[2], "time")
    table = plain_table(*(h for h in headers if roomy or h not in ("time", "origin")), right=right)
    for trial in trials:
        is_best = best is not None and trial.number == best.number
        aside = (wording.duration(trial.usage.wall_s), wording.plain(trial.proposal.origin))
        table.add_row(
            str(trial.number),
            state_text(trial),
            score_text(trial, is_best=is_best),
            *(aside if roomy else ()),
            wording.assignments(wording.values(task.space, trial.config)),
        )
    return table


def failures_table(trials: Iterable[Trial]) -> Table:
    """Return the listing of trials that failed or were refused, and what is said of that."""
    table = plain_table("trial", "cause", "what it said", right=("trial",))
    for trial in trials:
        if cause := refusals.cause(trial):
            said = wording.said(refusals.message(trial), refusals.last_lines(trial))
            table.add_row(str(trial.number), cause, said)
    return table


def state_text(trial: Trial) -> Text:
    """Return the state, and the cause of a failure."""
    cause = f" ({trial.failure.cause})" if trial.failure is not None else ""
    return Text(f"{trial.state}{cause}", style=STATE_STYLES[trial.state])


def score_text(trial: Trial, *, is_best: bool) -> Text:
    """Return the score; that of the best trial stands out, without color too."""
    text = wording.score(trial.score)
    return Text(f"* {text}", style="bold green") if is_best else Text(text)


def progress_grid(width: int) -> Table:
    """Return the columns of the live table: number, mark, state, score, time, origin, rest."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(justify="right", width=4)
    grid.add_column(width=1)
    grid.add_column(width=11)
    grid.add_column(justify="right", width=10, no_wrap=True)
    grid.add_column(justify="right", width=11, no_wrap=True)
    if width >= _ROOM_FOR_ORIGIN:
        grid.add_column(width=13, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    return grid


def add_progress_row(grid: Table, *cells: RenderableType) -> None:
    """Add the seven cells of a row, or the six that there is room for."""
    *rest, origin, last = cells
    grid.add_row(*rest, *([origin] if len(grid.columns) == len(cells) else []), last)


def summary_view(summary: Summary, report: Path | None = None) -> RenderableType:
    """Return the summary of a study for a terminal."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(summary, report):
        facts.add_row(name, value)
    return Group(_headline(summary), "", facts)


def _headline(summary: Summary) -> Text:
    of_budget = "" if summary.budget is None else f" of {summary.budget}"
    states = ", ".join(f"{number} {state}" for state, number in summary.states.items())
    line = Text(summary.study, style="bold")
    return line.append(f"   {summary.counted}{of_budget} trials: {states or 'none yet'}", style="")


def _facts(summary: Summary, report: Path | None) -> Iterable[tuple[str, RenderableType]]:
    yield from _best(summary)
    if fixed := wording.fixed(summary.task.fixed):
        yield "fixed", wording.assignments(fixed)
    if summary.incumbent:
        yield "progress", _progress(summary)
    if summary.origins:
        yield "proposed by", _origins(summary)
    for note in summary.notes:
        yield "", Text(f"{wording.plain(note.text)} ({_times(note.trials)})", style="yellow")
    for group in summary.failures:
        said = wording.said(group.message, group.stderr_tail)
        message = f" ({_times(group.trials)}): {said}"
        yield "failed", Text(group.cause, style="red").append(message, style="default")
    yield "cost", _cost(summary.cost)
    if devices := _devices(summary.accounts):
        yield "devices", devices
    if summary.accounts.waited_s:
        yield "waited", wording.waits(summary.accounts.waited_s)
    if report is not None:
        yield "report", str(report)


def _best(summary: Summary) -> Iterable[tuple[str, RenderableType]]:
    best, task = summary.best, summary.task
    if best is None:
        yield "best", "no trial is complete"
        return
    score = Text(f"{wording.plain(task.metric)} ").append(wording.score(best.score), "bold green")
    yield "best", score.append(f"   trial {best.number}, by {wording.plain(best.proposal.origin)}")
    grid = Table.grid(padding=(0, 2))
    for name, value in wording.values(task.space, best.config).items():
        grid.add_row(wording.plain(name), value)
    yield "", grid
    if best.proposal.rationale:
        by = "computed: " if best.proposal.rationale_by == "computed" else ""
        yield "why", Text(by + wording.plain(best.proposal.rationale))


def _progress(summary: Summary) -> str:
    steps = improvements(summary.incumbent)
    first, last = steps[0][1], steps[-1][1]
    curve = wording.sparkline([score for _, score in summary.incumbent], width=30)
    return f"{wording.score(first)} {curve} {wording.score(last)}"


def _origins(summary: Summary) -> str:
    return ", ".join(
        f"{wording.plain(share.origin)} {wording.percent(share.share)} ({share.trials})"
        for share in summary.origins
    )


def _times(trials: Sequence[int]) -> str:
    return f"{wording.count(len(trials), 'trial')}: {wording.numbers(trials)}"


def _devices(accounts: Accounts) -> str:
    """Return what was taken of the GPUs; empty where none were held."""
    parts = []
    if accounts.gpu_s is not None:
        parts.append(f"trials {wording.duration(accounts.gpu_s)} of GPU")
    if accounts.gpu_utilization is not None:
        parts.append(f"{wording.percent(accounts.gpu_utilization)} utilized")
    if accounts.energy_j is not None:
        parts.append(wording.energy(accounts.energy_j))
    if accounts.model_gpu_s is not None:
        model = f"model {wording.duration(accounts.model_gpu_s)} of GPU"
        parts.append(f"{model}, {wording.memory(accounts.model_gpu_memory_mb)}")
        if accounts.model_energy_j is not None:
            parts.append(wording.energy(accounts.model_energy_j))
    return "; ".join(parts)


def _cost(cost: Cost) -> str:
    parts = [] if cost.elapsed_s is None else [f"{wording.duration(cost.elapsed_s)} in all"]
    parts.append(f"trials {wording.duration(cost.trial_s)}")
    tokens = cost.prompt_tokens + cost.completion_tokens
    parts.append(f"proposals {wording.duration(cost.proposal_s)}, {wording.count(tokens, 'token')}")
    if cost.peak_memory_mb is not None:
        parts.append(f"memory {wording.memory(cost.peak_memory_mb)}")
    if cost.peak_gpu_memory_mb is not None:
        parts.append(f"GPU memory {wording.memory(cost.peak_gpu_memory_mb)}")
    return "; ".join(parts)
