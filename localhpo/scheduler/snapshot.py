"""Describes a study for display: pure functions from its state to snapshots and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from localhpo.objective import best_trials
from localhpo.scheduler.budget import RemainingBudget, SpentTime, estimate_remaining_s
from localhpo.scheduler.observer import RunningTrial, Snapshot
from localhpo.store.records import WaitCause
from localhpo.task import Task
from localhpo.trial import Config, State, Trial


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
