"""Observers of a running study, such as a live display, a log, or a user's callbacks.

The loop calls its observers in its own thread, between two polls, so an observer must be quick.
One that raises is recorded once, and does not harm the study.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from localhpo.store.records import Event, WaitCause
from localhpo.task import Task
from localhpo.trial import Measurement, Trial

EventKind = Literal[
    "begun",  # the study starts or goes on
    "proposed",  # a trial was queued
    "started",
    "pruning",  # a running trial is asked to stop, and why
    "finished",  # complete
    "pruned",
    "failed",
    "infeasible",  # refused before it ran
    "interrupted",
    "dropped",  # a prefetched proposal was discarded
    "sharing",  # how trials and the model's server share memory, and why; its stops and starts
    "note",  # good to know
    "warning",  # something is wrong; the study goes on
    "ended",  # no trial runs any more, and why
]
"""Kinds of the loop's events."""


STOPPED_BY_USER = "the user stopped it"
"""`Snapshot.stop_reason` after an interrupt; a second interrupt kills what still runs."""


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """A trial that runs now."""

    trial: Trial
    """With every measurement so far."""
    elapsed_s: float
    """Since its start."""
    latest: Measurement | None
    """The last value of the task's metric; None before the first."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The study at one moment: everything that a display needs."""

    task: Task
    trials: tuple[Trial, ...]
    """All trials of the study, by number; running ones with their measurements so far."""
    best_trials: tuple[Trial, ...]
    """As `objective.best_trials`: with one objective the best trial alone."""
    running: tuple[RunningTrial, ...]
    """By number."""
    proposing: bool
    """Whether the Creator is making a proposal."""
    stop_reason: str
    """Why no further trial is started; empty while the study goes on."""
    elapsed_s: float
    """Over all runs of the study."""
    trials_left: int | None
    """Until the budget is used up, running ones included; None where trials do not bound it."""
    seconds_left: float | None
    """Of wall clock; None where minutes do not bound it."""
    gpu_seconds_left: float | None
    """None where GPU minutes do not bound it."""
    estimated_s: float | None
    """Expected time to the end, from the durations of finished trials; None while unknown."""
    slots: int = 1
    """The most trials that run at once."""
    blocked_by: WaitCause | None = None
    """What the next trial waits for while a slot is free; None where that is unknown."""

    @property
    def best_trial(self) -> Trial | None:
        """The best trial by a single objective; None where there are several, or no trial."""
        if len(self.task.objectives) != 1 or not self.best_trials:
            return None
        return self.best_trials[0]


class Observer(Protocol):
    """Watches a study."""

    def on_event(self, event: Event) -> None:
        """Receive an event, at once and in order."""
        ...

    def on_change(self, snapshot: Snapshot) -> None:
        """Receive the state of the study: after each change, and about once a second."""
        ...
