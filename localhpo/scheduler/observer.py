"""What watches a study while it runs: a live display, a log, the callbacks of a user.

The loop calls its observers in its own thread, between two polls, so an observer must be
quick. One that raises is noted in the record, once, and does not harm the study.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from localhpo.store.records import Event, Wait
from localhpo.task import Task
from localhpo.trial import Measurement, Trial

EventKind = Literal[
    "begun",  # the study begins, or goes on
    "proposed",  # a trial was queued
    "started",
    "pruning",  # a running trial is asked to stop, and why
    "finished",  # complete
    "pruned",
    "failed",
    "infeasible",  # refused before it ran
    "interrupted",
    "dropped",  # a proposal drawn ahead was not worth a trial any more
    "sharing",  # how trials and the model's server share memory, and why; its rests and returns
    "note",  # good to know
    "warning",  # something is not as it should be; the study goes on
    "ended",  # no trial runs any more, and why
]
"""What the `Event`s of the loop are about."""


STOPPED_BY_USER = "the user stopped it"
"""`Snapshot.closing` after an interrupt: the only end that one more interrupt hastens."""


@dataclass(frozen=True, slots=True)
class Running:
    """A trial that runs now."""

    trial: Trial
    """With every measurement so far."""
    elapsed_s: float
    """Since it was started."""
    latest: Measurement | None
    """The last value of the task's metric; None before the first."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The study at one moment: everything that a display needs."""

    task: Task
    trials: tuple[Trial, ...]
    """All trials of the study, by number; running ones with their measurements so far."""
    best: Trial | None
    """The complete trial with the best score."""
    running: tuple[Running, ...]
    """By number."""
    proposing: bool
    """Whether the Creator is thinking."""
    closing: str
    """Why no further trial is started; empty while the study goes on."""
    elapsed_s: float
    """Of tuning, over all runs of the study."""
    trials_left: int | None
    """Until the budget is used up, running ones included; None where trials do not bound it."""
    seconds_left: float | None
    """Of wall clock; None where minutes do not bound it."""
    gpu_seconds_left: float | None
    """None where GPU minutes do not bound it."""
    estimated_s: float | None
    """Until the end, from the durations of finished trials; None while there is none."""
    slots: int = 1
    """Trials that run at once, at most."""
    held_up: Wait | None = None
    """What the next trial waits for where a slot is free; None where that is not known."""


class Observer(Protocol):
    """Watches a study."""

    def on_event(self, event: Event) -> None:
        """Hear what happened, at once and in order."""
        ...

    def on_change(self, snapshot: Snapshot) -> None:
        """See the study as it stands: after each change, and about once a second."""
        ...
