"""What remains of a study's budget, and when to give up early: pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localhpo.task import Budget
from localhpo.trial import COUNTED, Cause, State, Trial


@dataclass(frozen=True, slots=True)
class SpentTime:
    """Time used, over all runs of a study."""

    wall_s: float = 0.0
    """Wall clock of all runs."""
    gpu_s: float = 0.0
    """Durations of trials, times the GPUs they held."""

    def to_data(self) -> dict[str, float]:
        """Return the fields as the data of an event."""
        return {"spent_wall_s": round(self.wall_s, 3), "spent_gpu_s": round(self.gpu_s, 3)}

    @classmethod
    def from_data(cls, records: Sequence[Mapping[str, Any]]) -> SpentTime:
        """Return what earlier runs used: the most that the data of the study's events say."""
        return cls(
            wall_s=max((float(data.get("spent_wall_s", 0.0)) for data in records), default=0.0),
            gpu_s=max((float(data.get("spent_gpu_s", 0.0)) for data in records), default=0.0),
        )


@dataclass(frozen=True, slots=True)
class RemainingBudget:
    """What remains of each part of a budget; None where that part sets no bound."""

    trials: int | None
    """Running ones are still included."""
    wall_s: float | None
    gpu_s: float | None

    @property
    def used_up(self) -> bool:
        """Whether no further trial may be started."""
        return self.trials == 0 or bool(self.time_is_up)

    @property
    def time_is_up(self) -> str:
        """Which time is used up, as a sentence; empty while there is some."""
        if self.wall_s is not None and self.wall_s <= 0:
            return "the minutes of the budget are used up"
        if self.gpu_s is not None and self.gpu_s <= 0:
            return "the GPU minutes of the budget are used up"
        return ""


def remaining_budget(budget: Budget, counted: int, spent: SpentTime) -> RemainingBudget:
    """Return what remains after `counted` trials and the time spent."""
    return RemainingBudget(
        trials=None if budget.trials is None else max(0, budget.trials - counted),
        wall_s=None if budget.minutes is None else 60 * budget.minutes - spent.wall_s,
        gpu_s=None if budget.gpu_minutes is None else 60 * budget.gpu_minutes - spent.gpu_s,
    )


def estimate_remaining_s(
    trials: Sequence[Trial], running_s: Sequence[float], remaining: RemainingBudget, slots: int
) -> float | None:
    """Return how long the study will still take, from the durations of its finished trials.

    Args:
        trials: All trials of the study.
        running_s: How long each running trial has run.
        remaining: What remains of the budget.
        slots: How many trials run at once.
    """
    mean_s = _mean_duration_s(trials)
    bounds = [] if remaining.wall_s is None else [remaining.wall_s]
    if remaining.trials is not None and mean_s is not None:
        work_s = sum(max(0.0, mean_s - elapsed_s) for elapsed_s in running_s)
        work_s += mean_s * max(0, remaining.trials - len(running_s))
        bounds.append(work_s / max(1, min(slots, remaining.trials)))
    return max(0.0, min(bounds)) if bounds else None


def repeated_failure(trials: Sequence[Trial], first: int) -> str | None:
    """Return a sentence if the first trials all failed in the same way; None otherwise.

    The same way means that none reported anything, and that all could not be started, ended
    without a report, or died with the same last line (a wrong option, a missing import).

    Args:
        trials: Those that ended in this run of the study, in the order of their ends.
        first: Number of trials to compare; 0 for never.
    """
    if first == 0 or len(trials) < first:
        return None
    failure, kinds = trials[0].failure, {_failure_kind(trial) for trial in trials[:first]}
    if failure is None or len(kinds) > 1 or None in kinds:
        return None
    return f"the first {first} trials all failed in the same way: {failure.message}"


def _failure_kind(trial: Trial) -> tuple[Cause, str] | None:
    """Return what equal failures have in common; None where the values may be the reason."""
    if trial.state is not State.FAILED or trial.failure is None or trial.measurements:
        return None
    cause = trial.failure.cause
    if cause in (Cause.COULD_NOT_START, Cause.NOTHING_REPORTED):
        return cause, ""
    last_lines = trial.failure.stderr_tail.strip().splitlines()[-1:]
    if cause is Cause.EXIT_CODE and last_lines:
        return cause, last_lines[0]
    return None


def _mean_duration_s(trials: Sequence[Trial]) -> float | None:
    """Return the mean seconds of a trial and its proposal; of failures only if all failed."""
    ended = [t for t in trials if t.state in COUNTED and not t.proposal.origin.uses("external")]
    good = [t for t in ended if t.state is not State.FAILED] or ended
    durations = [
        t.finished_at - t.started_at + t.proposal.seconds
        for t in good
        if t.started_at is not None and t.finished_at is not None
    ]
    return statistics.fmean(durations) if durations else None
