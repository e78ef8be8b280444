"""How a study went on: the best score so far, trial by trial."""

from __future__ import annotations

import math
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
    """Return trials with the best score first, those without a score last."""
    sign = 1.0 if direction == "minimize" else -1.0
    return sorted(trials, key=lambda t: (math.inf if t.score is None else sign * t.score, t.number))
