"""Progress of a study: a display for a terminal, and a line per event for anything else.

The display has a row for each ended trial, and below them what runs now. Rows are printed once and
stay in the terminal's history. Only the lines below them are drawn again: the running trials with
their latest metric, whether a proposal is being made, and one line with the best so far and the
time left.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from localhpo.analysis import formatting
from localhpo.analysis.summary import failure_of
from localhpo.cli.study.views import ROOM_FOR_ORIGIN, STATE_STYLES
from localhpo.scheduler.accounting import current_wait
from localhpo.scheduler.events import STOPPED_BY_USER
from localhpo.store.records import WAIT_TEXTS
from localhpo.trial import State, Trial

if TYPE_CHECKING:
    from localhpo.scheduler.events import RunningTrial, Snapshot
    from localhpo.store import Event
    from localhpo.task import Task

_ENDED = frozenset({State.COMPLETE, State.PRUNED, State.FAILED, State.INFEASIBLE})
_EARLIER_SHOWN = 5
_ROOM_FOR_BAR = 80
_ROOM_FOR_ECHO = 6
"""Columns kept free at the cursor: a terminal that echoes ^C there must not begin a new line."""
_INDENT = 5
_ASIDE = {"note": "dim", "warning": "yellow", "pruning": "dim", "interrupted": "dim"}
"""Kinds of events that get a line of their own, and its style; the others show as rows."""


class EventLog:
    """Observer that prints each event as a line on standard error."""

    def on_event(self, event: Event) -> None:
        """Print an event."""
        clock = time.strftime("%H:%M:%S", time.localtime(event.time))
        trial = "" if event.trial is None else f"trial {event.trial} "
        click.echo(f"{clock} {trial}{event.kind}: {formatting.printable(event.message)}", err=True)

    def on_change(self, snapshot: Snapshot) -> None:
        """Ignore changes that are no events: only a live display shows them."""


class LiveDisplay:
    """Observer that shows a study on a terminal."""

    def __init__(self, console: Console, study: str) -> None:
        """Show the study of that name; use the display as a context manager."""
        self._console = console
        self._study = study
        self._snapshot: Snapshot | None = None
        self._shown: set[int] = set()
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(self, console=console, transient=True, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
        if self._snapshot is not None:
            self._console.print()  # what comes next is the summary

    def on_event(self, event: Event) -> None:
        """Print an event that no row shows."""
        if event.kind in _ASIDE:
            trial = "" if event.trial is None else f"trial {event.trial}: "
            self._print_aside(f"{trial}{formatting.printable(event.message)}", _ASIDE[event.kind])

    def on_change(self, snapshot: Snapshot) -> None:
        """Print the rows of trials that ended since the last snapshot, and draw the rest again."""
        ended = [trial for trial in snapshot.trials if trial.state in _ENDED]
        if self._snapshot is None:
            self._begin(snapshot, ended)
        self._snapshot = snapshot
        for trial in ended:
            if trial.number not in self._shown:
                self._shown.add(trial.number)
                self._print_row(snapshot, trial)

    def __rich__(self) -> RenderableType:
        """Return the lines that are drawn again."""
        snapshot = self._snapshot
        if snapshot is None:
            return _spinning(self._spinner, f"opening {self._study}")
        lines: list[RenderableType] = []
        if snapshot.running:
            grid = _grid(self._console.width, len(snapshot.task.objectives))
            for running in snapshot.running:
                self._add_running(grid, snapshot, running)
            lines.append(grid)
        if snapshot.proposing:
            lines.append(_spinning(self._spinner, "choosing the next configuration"))
        if (cause := current_wait(snapshot)) not in (None, "device", "model"):
            lines.append(Text(f"     the next trial waits for {WAIT_TEXTS[cause]}", style="dim"))
        status = _status(snapshot, self._console.width)
        lines.append(Padding(status, (0, _ROOM_FOR_ECHO, 0, 0)))
        return Group(*lines)

    def _begin(self, snapshot: Snapshot, ended: list[Trial]) -> None:
        """Print the head of the table, and the last trials of earlier runs."""
        grid = _grid(self._console.width, len(snapshot.task.objectives))
        values = _values_head(snapshot.task)
        _add_row(grid, "", "", "", values, "time", "origin", "configuration")
        self._console.print(Text(self._study, style="bold"))
        self._console.print(grid, style="bold")
        earlier = ended[:-_EARLIER_SHOWN]
        if earlier:
            self._print_aside(formatting.count(len(earlier), "earlier trial"), "dim")
        self._shown = {trial.number for trial in earlier}

    def _print_row(self, snapshot: Snapshot, trial: Trial) -> None:
        is_best = trial.feasible is True and trial.number in {
            t.number for t in snapshot.best_trials
        }
        grid = _grid(self._console.width, len(snapshot.task.objectives))
        _add_row(
            grid,
            str(trial.number),
            Text("*" if is_best else "", style="bold green"),
            Text(trial.state, style=STATE_STYLES[trial.state]),
            Text(_values(trial), style="bold green" if is_best else ""),
            formatting.duration(trial.usage.wall_s),
            formatting.printable(str(trial.proposal.origin)),
            formatting.assignments(formatting.config_texts(snapshot.task.space, trial.config)),
        )
        self._console.print(grid)
        if failure := failure_of(trial):
            text = formatting.failure_text(failure.message, failure.stderr_tail)
            self._print_aside(text, STATE_STYLES[trial.state])
        elif violated := formatting.violations_text(trial, snapshot.task.constraints):
            self._print_aside(f"constraint violated: {violated}", "yellow")

    def _print_aside(self, text: str, style: str) -> None:
        self._console.print(Padding(Text(text, style=style), (0, 0, 0, _INDENT)))

    def _add_running(self, grid: Table, snapshot: Snapshot, running: RunningTrial) -> None:
        trial, latest = running.trial, running.latest
        step = "" if latest is None else f"step {latest.step}  "
        config = formatting.config_texts(snapshot.task.space, trial.config)
        _add_row(
            grid,
            str(trial.number),
            self._spinner,
            Text(trial.state, style=STATE_STYLES[trial.state]),
            formatting.value(None if latest is None else latest.value),
            formatting.duration(running.elapsed_s),
            formatting.printable(str(trial.proposal.origin)),
            Text(step, style="cyan").append(formatting.assignments(config), style="default"),
        )


def _grid(width: int, objectives: int = 1) -> Table:
    """Return the columns of the live table: number, mark, state, value, time, origin, rest."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(justify="right", width=4)
    grid.add_column(width=1)
    grid.add_column(width=11)
    grid.add_column(justify="right", width=11 * objectives - 1, no_wrap=True)
    grid.add_column(justify="right", width=11, no_wrap=True)
    if width >= ROOM_FOR_ORIGIN:
        grid.add_column(width=13, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    return grid


def _add_row(grid: Table, *cells: RenderableType) -> None:
    """Add the seven cells of a row, or the six that fit on a narrow terminal."""
    *rest, origin, last = cells
    grid.add_row(*rest, *([origin] if len(grid.columns) == len(cells) else []), last)


def _spinning(spinner: Spinner, text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row("    ", spinner, Text(text, style="dim"))
    return grid


def _status(snapshot: Snapshot, width: int) -> RenderableType:
    """Return the last line: what is waited for, or the best so far and the time left."""
    running = formatting.count(len(snapshot.running), "trial")
    if snapshot.stop_reason == STOPPED_BY_USER and snapshot.running:
        pronoun = "it" if len(snapshot.running) == 1 else "them"
        text = f"     stopping {running}; press Ctrl-C again to kill {pronoun}"
        return Text(text, style="bold yellow")
    if snapshot.stop_reason and snapshot.running:
        return Text(f"     waiting for {running} to end: {snapshot.stop_reason}", style="yellow")
    return _progress(snapshot, width)


def _progress(snapshot: Snapshot, width: int) -> RenderableType:
    total = snapshot.task.budget.trials
    left = snapshot.trials_left
    done = None if total is None or left is None else total - left
    parts = [] if done is None else [f"{done} of {total} trials"]
    parts.append(_best(snapshot))
    if snapshot.estimated_s is not None and not snapshot.stop_reason:
        parts.append(f"about {formatting.duration(snapshot.estimated_s)} left")
    text = "   ".join(parts)
    if done is None or width < _ROOM_FOR_BAR:
        return Text(f"     {text}", no_wrap=True, overflow="ellipsis")
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        "   ", ProgressBar(total=total, completed=done, width=20), Text(text, no_wrap=True)
    )
    return grid


def _best(snapshot: Snapshot) -> str:
    best = snapshot.best_trials
    if not best:
        return "no complete trial yet"
    if not best[0].feasible:
        return "no trial meets every constraint yet"
    if len(snapshot.task.objectives) > 1:
        return f"{formatting.count(len(best), 'trial')} on the Pareto front"
    return f"best {_values(best[0])} (trial {best[0].number})"


def _values_head(task: Task) -> Text:
    names = [formatting.printable(objective.name) for objective in task.objectives]
    if len(names) == 1:
        return Text(names[0], overflow="ellipsis")
    return Text(" ".join(f"{name:>10.10}" for name in names))


def _values(trial: Trial) -> str:
    """Return the values of a trial, right-aligned below the names of their objectives."""
    return " ".join(f"{formatting.value(value):>10}" for value in trial.values).lstrip() or "-"
