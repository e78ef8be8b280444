"""What a study optimizes: objectives, constraints, and which trials are best by them.

An objective is a metric with a direction. A constraint bounds a metric; a trial that breaks one
ran well and is recorded, but is not among the best. Both may name a metric that the script
reports, or one of `MEASURED`, which LocalHPO measures itself (a report of the same name wins).

The violation of a constraint is how far its bound is exceeded, in the metric's own units: 0 or
below means that it holds, the convention of Optuna and BoTorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from localhpo.trial import Measurement, State, Trial, Usage, values_of

Direction = Literal["minimize", "maximize"]

ValueRule = Literal["last", "best"]
"""Which of the reported values of an objective is that of the trial."""

MEASURED = ("wall_s", "peak_memory_mb", "gpu_s", "energy_j")
"""Fields of `Usage` that may be objectives or constraints: seconds, MB, GPU-seconds, joules."""

MEASURED_ON_DEVICES = ("gpu_s", "energy_j")
"""Those that are known only after the devices of a trial were metered, not when it ends."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric to be made small or large."""

    name: str
    direction: Direction = "minimize"

    def describe(self) -> str:
        """Return the objective in words: `maximize val_f1`."""
        return f"{self.direction} {self.name}"


@dataclass(frozen=True, slots=True)
class Constraint:
    """Bounds that a metric must keep; at least one of the two is given."""

    name: str
    min: float | None = None
    max: float | None = None

    def violation(self, value: float) -> float:
        """Return how far `value` exceeds the nearest bound, in its units; <= 0 where it holds."""
        exceeded = []
        if self.max is not None:
            exceeded.append(value - self.max)
        if self.min is not None:
            exceeded.append(self.min - value)
        return max(exceeded)

    def describe(self) -> str:
        """Return the constraint as a formula: `latency_ms <= 200`."""
        if self.min is None:
            return f"{self.name} <= {self.max:g}"
        if self.max is None:
            return f"{self.name} >= {self.min:g}"
        return f"{self.min:g} <= {self.name} <= {self.max:g}"


@dataclass(frozen=True, slots=True)
class NotFinite:
    """A metric whose last value is NaN or infinite."""

    name: str
    value: float
    step: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Values and violations of one run."""

    values: tuple[float, ...]
    """One for each objective, in order; empty where one of them has none."""
    violations: tuple[float, ...]
    """One for each constraint, in order, NaN where its metric is unknown; empty with `values`."""
    missing: tuple[str, ...]
    """Objectives and constraints of which nothing was reported or measured."""
    not_finite: NotFinite | None
    """The first metric whose last value is not finite."""


def evaluate(
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    measurements: Iterable[Measurement],
    usage: Usage,
    rule: ValueRule = "last",
) -> Evaluation:
    """Return the values and violations of a run.

    The value of an objective is its last finite one, or by the rule `best` its best one. A
    constraint always takes the last.
    """
    reported = tuple(measurements)
    values: list[float] = []
    violations: list[float] = []
    missing: list[str] = []
    not_finite: list[NotFinite] = []
    goals: list[Objective | Constraint] = [*objectives, *constraints]
    for goal in goals:
        curve = values_of(reported, goal.name) or _measured(goal.name, usage)
        finite = [value for _, value in curve if math.isfinite(value)]
        if not curve:
            missing.append(goal.name)
        elif not math.isfinite(curve[-1][1]):
            not_finite.append(NotFinite(goal.name, curve[-1][1], curve[-1][0]))
        if isinstance(goal, Constraint):
            violations.append(goal.violation(finite[-1]) if finite else math.nan)
        elif finite:
            values.append(_choose_value(finite, goal.direction, rule))
    complete = len(values) == len(objectives)
    return Evaluation(
        values=tuple(values) if complete else (),
        violations=tuple(violations) if complete else (),
        missing=tuple(dict.fromkeys(missing)),
        not_finite=not_finite[0] if not_finite else None,
    )


def _measured(name: str, usage: Usage) -> list[tuple[int, float]]:
    measured = {
        "wall_s": usage.wall_s,
        "peak_memory_mb": usage.peak_memory_mb,
        "gpu_s": usage.gpu_s,
        "energy_j": usage.energy_j,
    }.get(name)
    return [] if measured is None else [(0, measured)]


def _choose_value(finite: Sequence[float], direction: Direction, rule: ValueRule) -> float:
    if rule == "last":
        return finite[-1]
    return min(finite) if direction == "minimize" else max(finite)


def is_better(a: float, b: float, direction: Direction) -> bool:
    """Return whether value `a` is strictly better than value `b`."""
    return a < b if direction == "minimize" else a > b


def dominates(a: Sequence[float], b: Sequence[float], objectives: Sequence[Objective]) -> bool:
    """Return whether `a` is no worse than `b` in every objective, and better in one."""
    pairs = list(zip(a, b, objectives, strict=True))
    no_worse = all(not is_better(y, x, objective.direction) for x, y, objective in pairs)
    return no_worse and any(is_better(x, y, objective.direction) for x, y, objective in pairs)


def best_trials(trials: Iterable[Trial], objectives: Sequence[Objective]) -> tuple[Trial, ...]:
    """Return the Pareto set of the feasible complete trials, by number.

    Those that no other trial dominates; of trials with equal values the earliest. With one
    objective that is the best trial alone. Where no trial is feasible, only the least infeasible
    ones (by the sum of their violations, as NSGA-II compares them) are considered;
    their `Trial.feasible` is not True.
    """
    complete = [trial for trial in trials if trial.state is State.COMPLETE and trial.values]
    candidates = [trial for trial in complete if trial.feasible]
    if not candidates and complete:
        least = min(map(_total_violation, complete))
        candidates = [trial for trial in complete if _total_violation(trial) == least]
    front: list[Trial] = []
    # Sorted by their values, no trial is dominated by a later one (Kung et al., 1975).
    for trial in sorted(candidates, key=lambda one: (_costs(one, objectives), one.number)):
        if not any(
            better.values == trial.values or dominates(better.values, trial.values, objectives)
            for better in front
        ):
            front.append(trial)
    return tuple(sorted(front, key=lambda one: one.number))


def best_trial(trials: Iterable[Trial], objectives: Sequence[Objective]) -> Trial | None:
    """Return the best trial by a single objective; of equal ones the earliest.

    Raises:
        ValueError: there are several objectives: they have a set of best trials.
    """
    if len(objectives) != 1:
        raise ValueError(f"{len(objectives)} objectives have no single best trial")
    return next(iter(best_trials(trials, objectives)), None)


def _costs(trial: Trial, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Return the values with signs such that lower is better."""
    return tuple(
        value if objective.direction == "minimize" else -value
        for value, objective in zip(trial.values, objectives, strict=True)
    )


def _total_violation(trial: Trial) -> float:
    """Return the sum of the violations; an unknown one counts as infinite."""
    return sum(
        math.inf if math.isnan(violation) else max(0.0, violation) for violation in trial.violations
    )
