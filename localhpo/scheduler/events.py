"""What happens in a study, as events and snapshots, and who is told: its record and its observers.

Observers are a live display, a log, or a user's callbacks. The loop calls them in its own thread,
between two polls, so an observer must be quick. One that raises is recorded once, and does not harm
the study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from localhpo.executor.clock import Clock
from localhpo.objective import best_trials
from localhpo.scheduler.budget import RemainingBudget, SpentTime, estimate_remaining_s
from localhpo.scheduler.trial_table import Recorder
from localhpo.store.records import Event, WaitCause
from localhpo.task import Task
from localhpo.trial import Config, Measurement, State, Trial

_T = TypeVar("_T")

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

_URGENT: frozenset[EventKind] = frozenset({"finished", "pruned", "failed", "interrupted", "ended"})
"""Kinds of events that readers of the store see at once."""

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


class EventBus:
    """Passes events to the record and to observers, and never waits for them.

    A record that another program has locked is tried again later. An observer that raises is
    reported once.
    """

    def __init__(
        self,
        recorder: Recorder,
        observers: Sequence[Observer],
        clock: Clock,
        *,
        idle_s: float,
        spent: Callable[[], SpentTime],
    ) -> None:
        """Update record and observers at least every `idle_s`, and at once after an event.

        Each event has what `spent` returns, the time used, from which a later run goes on.
        """
        self._spent = spent
        self._recorder = recorder
        self._observers = tuple(observers)
        self._clock = clock
        self._idle_s = idle_s
        self._due = clock.monotonic()
        self._changed = True
        self._urgent = False
        self._locked = False
        self._faulty: set[int] = set()  # ids of observers that raised

    def publish(
        self,
        kind: EventKind,
        message: str,
        trial: Trial | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Record an event, which may be about a trial, and pass it to the observers."""
        self._changed = True
        self._urgent |= kind in _URGENT
        number = None if trial is None else trial.number
        data = {**(data or {}), **self._spent().to_data()}
        event = Event(self._clock.time(), kind, message, number, data)
        self._recorder.write_event(kind, message, number, data)
        for observer in self._observers:
            self._notify(observer, observer.on_event, event)

    def mark_dirty(self) -> None:
        """Have the observers updated for a change that is no event: a measurement came."""
        self._changed = True

    def update(self, make_snapshot: Callable[[], Snapshot]) -> None:
        """Bring the record and the observers up to date, where it is time.

        Readers of the record see the end of a trial at once, anything else within `idle_s`.
        """
        now = self._clock.monotonic()
        due = now >= self._due
        if due:
            self._due = now + self._idle_s
        if due or self._urgent:
            self._urgent = False
            self.flush()
        if self._observers and (due or self._changed):
            self._changed = False
            snapshot = make_snapshot()
            for observer in self._observers:
                self._notify(observer, observer.on_change, snapshot)

    def flush(self) -> None:
        """Make the record visible to readers; while it is locked, report that once and go on."""
        done = self._recorder.flush()
        if not done and not self._locked:
            self.publish(
                "note",
                "another program has the database open; until it closes it, new records are kept "
                "in a journal beside it",
            )
        self._locked = not done

    def _notify(self, observer: Observer, method: Callable[[_T], None], argument: _T) -> None:
        try:
            method(argument)
        except Exception as error:  # noqa: BLE001 - a user's callback must not cost trials
            if id(observer) not in self._faulty:
                self._faulty.add(id(observer))
                name = type(observer).__name__
                self.publish("warning", f"{name} raised {error!r}; the study goes on")


def make_snapshot(
    task: Task,
    trials: Sequence[Trial],
    *,
    elapsed_s: Mapping[int, float],
    slots: int,
    spent: SpentTime,
    remaining: RemainingBudget,
    proposing: bool,
    stop_reason: str,
    blocked_by: WaitCause | None = None,
) -> Snapshot:
    """Return a snapshot of the study.

    Args:
        task: The task.
        trials: All trials, by number.
        elapsed_s: How long each running trial has run, by number.
        slots: The most trials that run at once.
        spent: Time used.
        remaining: What remains of the budget.
        proposing: Whether the Creator is making a proposal.
        stop_reason: Why no further trial is started; empty while the study goes on.
        blocked_by: What the next trial waits for.
    """
    by_number = {trial.number: trial for trial in trials}
    return Snapshot(
        task=task,
        trials=tuple(trials),
        best_trials=best_trials(trials, task.objectives),
        running=tuple(_running_trial(by_number[n], s, task.metric) for n, s in elapsed_s.items()),
        proposing=proposing,
        stop_reason=stop_reason,
        elapsed_s=spent.wall_s,
        trials_left=remaining.trials,
        seconds_left=remaining.wall_s,
        gpu_seconds_left=remaining.gpu_s,
        estimated_s=estimate_remaining_s(trials, list(elapsed_s.values()), remaining, slots),
        slots=slots,
        blocked_by=blocked_by,
    )


def describe_end(trial: Trial, trials: Sequence[Trial], task: Task) -> str:
    """Return a sentence on how a trial ended; `trials` are all of the study."""
    if trial.failure is not None:
        return trial.failure.message
    if trial.state is State.INTERRUPTED:
        return "stopped; it runs again when the study goes on"
    if not trial.values:
        return f"{task.metric} no value"
    values = zip(task.objectives, trial.values, strict=True)
    text = ", ".join(f"{objective.name} {value:.6g}" for objective, value in values)
    bounds = list(zip(task.constraints, trial.violations, strict=True))
    if broken := [constraint.describe() for constraint, excess in bounds if excess > 0]:
        return f"{text}; not feasible: {' and '.join(broken)} must hold"
    if unknown := [constraint.name for constraint, excess in bounds if math.isnan(excess)]:
        return f"{text}; {' and '.join(unknown)} unknown"
    if any(best is trial for best in best_trials(trials, task.objectives)):
        text += ", the best so far" if len(task.objectives) == 1 else ", among the best so far"
    return text


def format_config(task: Task, config: Config) -> str:
    """Return a configuration as `name=value, name=value`."""
    texts = {
        name: value if isinstance(value, str) else task.space[name].brief_text(value)
        for name, value in config.items()
    }
    return ", ".join(f"{name}={text}" for name, text in texts.items())


def _running_trial(trial: Trial, elapsed_s: float, metric: str) -> RunningTrial:
    reports = (m for m in reversed(trial.measurements) if m.name == metric)
    return RunningTrial(trial, elapsed_s, latest=next(reports, None))
