"""How a study went on: the best score so far, trial by trial."""

from __future__ import annotations

from collections.abc import Iterable

from localhpo.trial import Direction, State, Trial, is_better


def incumbent(trials: Iterable[Trial], direction: Direction) -> list[tuple[int, float]]:
    """Return (number, best score so far) of each complete trial, in the order of numbers."""
    curve: list[tuple[int, float]] = []
    for trial in sorted(trials, key=lambda t: t.number):
        if trial.state is not State.COMPLETE or trial.score is None:
            continue
        improves = not curve or is_better(trial.score, curve[-1][1], direction)
        curve.append((trial.number, trial.score if improves else curve[-1][1]))
    return curve


def improvements(curve: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the points of an incumbent curve at which the best score changed."""
    steps: list[tuple[int, float]] = []
    for number, score in curve:
        if not steps or score != steps[-1][1]:
            steps.append((number, score))
    return steps


def by_score(trials: Iterable[Trial], direction: Direction) -> list[Trial]:
    """Return trials with the best score first, those without a score last.

    A pruned trial comes after all complete ones: its score is that of an early step.
    """
    sign = 1.0 if direction == "minimize" else -1.0

    def rank(trial: Trial) -> tuple[bool, bool, float, int]:
        missing = trial.score is None
        return missing, trial.state is not State.COMPLETE, sign * (trial.score or 0.0), trial.number

    return sorted(trials, key=rank)
