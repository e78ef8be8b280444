"""A study as others are shown it: pure functions from its state to snapshots and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from localhpo.scheduler.budget import Left, Spent, estimate_s
from localhpo.scheduler.observer import Running, Snapshot
from localhpo.store.records import Wait
from localhpo.task import Task
from localhpo.trial import Config, State, Trial, best_trial


def snapshot(
    task: Task,
    trials: Sequence[Trial],
    *,
    elapsed_s: Mapping[int, float],
    slots: int,
    spent: Spent,
    left: Left,
    proposing: bool,
    closing: str,
    held_up: Wait | None = None,
) -> Snapshot:
    """Return the study as it stands.

    Args:
        task: What is tuned.
        trials: All trials, by number.
        elapsed_s: How long each running trial has run, by number.
        slots: How many run at once, at most.
        spent: Time used.
        left: What is left of the budget.
        proposing: Whether the Creator is thinking.
        closing: Why no further trial is started.
        held_up: What the next one waits for.
    """
    by_number = {trial.number: trial for trial in trials}
    return Snapshot(
        task=task,
        trials=tuple(trials),
        best=best_trial(trials, task.direction),
        running=tuple(_running(by_number[n], s, task.metric) for n, s in elapsed_s.items()),
        proposing=proposing,
        closing=closing,
        elapsed_s=spent.wall_s,
        trials_left=left.trials,
        seconds_left=left.wall_s,
        gpu_seconds_left=left.gpu_s,
        estimated_s=estimate_s(trials, list(elapsed_s.values()), left, slots),
        slots=slots,
        held_up=held_up,
    )


def how_it_ended(trial: Trial, trials: Sequence[Trial], task: Task) -> str:
    """Return the sentence on the end of a trial."""
    if trial.failure is not None:
        return trial.failure.message
    if trial.state is State.INTERRUPTED:
        return "stopped; it runs again another time"
    score = "no value" if trial.score is None else f"{trial.score:.6g}"
    is_best = trial is best_trial(trials, task.direction)
    return f"{task.metric} {score}" + (", the best so far" if is_best else "")


def spelled(task: Task, config: Config) -> str:
    """Return a configuration for a person."""
    texts = {
        name: value if isinstance(value, str) else task.space[name].brief_text(value)
        for name, value in config.items()
    }
    return ", ".join(f"{name}={text}" for name, text in texts.items())


def _running(trial: Trial, elapsed_s: float, metric: str) -> Running:
    reports = (m for m in reversed(trial.measurements) if m.name == metric)
    return Running(trial, elapsed_s, latest=next(reports, None))
