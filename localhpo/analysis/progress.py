"""How a study went on: the best value so far, and trials in the order of their values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from localhpo.objective import Objective, best_trials, is_better
from localhpo.trial import State, Trial


def incumbent_curve(trials: Iterable[Trial], objective: Objective) -> list[tuple[int, float]]:
    """Return (number, best value so far) after each complete trial, in the order of numbers.

    Only feasible trials count as best; before the first of them there is no point.
    """
    curve: list[tuple[int, float]] = []
    for trial in sorted(trials, key=lambda t: t.number):
        if trial.state is not State.COMPLETE or trial.value is None:
            continue
        best = curve[-1][1] if curve else None
        improves = best is None or is_better(trial.value, best, objective.direction)
        if trial.feasible and improves:
            best = trial.value
        if best is not None:
            curve.append((trial.number, best))
    return curve


def find_improvements(curve: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the points of an incumbent curve at which the best value changed."""
    steps: list[tuple[int, float]] = []
    for number, value in curve:
        if not steps or value != steps[-1][1]:
            steps.append((number, value))
    return steps


def sorted_by_value(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Return the best trials first, then by the first objective; trials without values last.

    Trials that violate a constraint come after all feasible ones. Pruned trials come after all
    complete ones: their values are those of an early step.
    """
    listed = list(trials)
    best = {trial.number for trial in best_trials(listed, objectives)}
    sign = 1.0 if objectives[0].direction == "minimize" else -1.0

    def rank(trial: Trial) -> tuple[bool, bool, bool, bool, float, int]:
        return (
            not trial.values,
            trial.state is not State.COMPLETE,
            trial.number not in best,
            not trial.feasible,
            sign * trial.values[0] if trial.values else 0.0,
            trial.number,
        )

    return sorted(listed, key=rank)
