"""Progress on a terminal: ended trials scroll by as rows, what runs now stands below them.

Rows are printed once and stay in the terminal's history; only the few lines below them are
drawn again: the trials that run, with their latest metric, the Creator while it thinks, and
one line with the best so far and the time left.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from localhpo.analysis import refusals, wording
from localhpo.cli._views import STATE_STYLES, add_progress_row, progress_grid
from localhpo.scheduler.accountant import waits_for
from localhpo.scheduler.observer import STOPPED_BY_USER
from localhpo.store.records import WAITS
from localhpo.trial import State, Trial

if TYPE_CHECKING:
    from localhpo.scheduler.observer import Running, Snapshot
    from localhpo.store import Event

_ENDED = frozenset({State.COMPLETE, State.PRUNED, State.FAILED, State.INFEASIBLE})
_EARLIER_SHOWN = 5
_ROOM_FOR_BAR = 80
_ROOM_FOR_ECHO = 6
"""Columns kept free at the cursor: a terminal that echoes ^C there must not begin a new line."""
_INDENT = 5
_ASIDE = {"note": "dim", "warning": "yellow", "pruning": "dim", "interrupted": "dim"}
"""Events that get a line of their own, and its style; the others show as rows."""


class LiveDisplay:
    """An observer for people."""

    def __init__(self, console: Console, study: str) -> None:
        """Show the study of that name on a terminal; use it as a context manager."""
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
        """Print what no row shows."""
        if event.kind in _ASIDE:
            trial = "" if event.trial is None else f"trial {event.trial}: "
            self._say(f"{trial}{wording.plain(event.message)}", _ASIDE[event.kind])

    def on_change(self, snapshot: Snapshot) -> None:
        """Print the rows of trials that have ended since; draw the rest again."""
        ended = [trial for trial in snapshot.trials if trial.state in _ENDED]
        if self._snapshot is None:
            self._begin(snapshot, ended)
        self._snapshot = snapshot
        for trial in ended:
            if trial.number not in self._shown:
                self._shown.add(trial.number)
                self._print_row(snapshot, trial)

    def __rich__(self) -> RenderableType:
        """Return what is drawn again and again."""
        snapshot = self._snapshot
        if snapshot is None:
            return _spinning(self._spinner, f"opening {self._study}")
        lines: list[RenderableType] = []
        if snapshot.running:
            grid = progress_grid(self._console.width)
            for running in snapshot.running:
                self._add_running(grid, snapshot, running)
            lines.append(grid)
        if snapshot.proposing:
            lines.append(_spinning(self._spinner, "proposing what to try next"))
        if (cause := waits_for(snapshot)) not in (None, "device", "model"):
            lines.append(Text(f"     a trial waits for {WAITS[cause]}", style="dim"))
        status = _status(snapshot, self._console.width)
        lines.append(Padding(status, (0, _ROOM_FOR_ECHO, 0, 0)))
        return Group(*lines)

    def _begin(self, snapshot: Snapshot, ended: list[Trial]) -> None:
        """Print the head of the table, and remind of what earlier runs did."""
        grid = progress_grid(self._console.width)
        metric = Text(wording.plain(snapshot.task.metric), overflow="ellipsis")
        add_progress_row(grid, "", "", "", metric, "time", "origin", "configuration")
        self._console.print(Text(self._study, style="bold"))
        self._console.print(grid, style="bold")
        earlier = ended[:-_EARLIER_SHOWN]
        if earlier:
            self._say(wording.count(len(earlier), "earlier trial"), "dim")
        self._shown = {trial.number for trial in earlier}

    def _print_row(self, snapshot: Snapshot, trial: Trial) -> None:
        is_best = snapshot.best is not None and trial.number == snapshot.best.number
        grid = progress_grid(self._console.width)
        add_progress_row(
            grid,
            str(trial.number),
            Text("*" if is_best else "", style="bold green"),
            Text(trial.state, style=STATE_STYLES[trial.state]),
            Text(wording.score(trial.score), style="bold green" if is_best else ""),
            wording.duration(trial.usage.wall_s),
            wording.plain(trial.proposal.origin),
            wording.assignments(wording.values(snapshot.task.space, trial.config)),
        )
        self._console.print(grid)
        if refusals.cause(trial):
            said = wording.said(refusals.message(trial), refusals.last_lines(trial))
            self._say(said, STATE_STYLES[trial.state])

    def _say(self, text: str, style: str) -> None:
        self._console.print(Padding(Text(text, style=style), (0, 0, 0, _INDENT)))

    def _add_running(self, grid: Table, snapshot: Snapshot, running: Running) -> None:
        trial, latest = running.trial, running.latest
        step = "" if latest is None else f"step {latest.step}  "
        values = wording.values(snapshot.task.space, trial.config)
        add_progress_row(
            grid,
            str(trial.number),
            self._spinner,
            Text(trial.state, style=STATE_STYLES[trial.state]),
            wording.score(None if latest is None else latest.value),
            wording.duration(running.elapsed_s),
            wording.plain(trial.proposal.origin),
            Text(step, style="cyan").append(wording.assignments(values), style="default"),
        )


def _spinning(spinner: Spinner, text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row("    ", spinner, Text(text, style="dim"))
    return grid


def _status(snapshot: Snapshot, width: int) -> RenderableType:
    """Return the last line: what is being waited for, or best so far and time left."""
    running = wording.count(len(snapshot.running), "trial")
    if snapshot.closing == STOPPED_BY_USER and snapshot.running:
        them = "it" if len(snapshot.running) == 1 else "them"
        text = f"     stopping {running}; press Ctrl-C again to kill {them}"
        return Text(text, style="bold yellow")
    if snapshot.closing and snapshot.running:
        return Text(f"     waiting for {running}: {snapshot.closing}", style="yellow")
    return _progress(snapshot, width)


def _progress(snapshot: Snapshot, width: int) -> RenderableType:
    total = snapshot.task.budget.trials
    left = snapshot.trials_left
    done = None if total is None or left is None else total - left
    parts = [] if done is None else [f"{done} of {total} trials"]
    parts.append(_best(snapshot))
    if snapshot.estimated_s is not None and not snapshot.closing:
        parts.append(f"about {wording.duration(snapshot.estimated_s)} left")
    text = "   ".join(parts)
    if done is None or width < _ROOM_FOR_BAR:
        return Text(f"     {text}", no_wrap=True, overflow="ellipsis")
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        "   ", ProgressBar(total=total, completed=done, width=20), Text(text, no_wrap=True)
    )
    return grid


def _best(snapshot: Snapshot) -> str:
    if snapshot.best is None:
        return "no good trial yet"
    return f"best {wording.score(snapshot.best.score)} (trial {snapshot.best.number})"
