"""Which running trials are not worth finishing: pure functions on what was reported.

A pruner looks at one running trial among all trials of its study and returns why it should
stop, or None. The same records give the same answer, whenever and however often it is asked.

A trial's progress is counted in reports of the metric, one per step (the first value that
came for it): steps need not begin at 0, nor be consecutive, nor mean the same as another
task's. A value that is not finite counts as worse than any other.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from localhpo.task import Task
from localhpo.trial import State, Trial

Pruner = Callable[[Trial, Sequence[Trial], Task], str | None]
"""(running trial, all trials of the study, task) -> the reason to stop it, or None."""

MIN_PEERS = 4
"""Trials that must have come as far before the median says anything."""


def pruner_for(task: Task) -> Pruner | None:
    """Return the pruner that the task names; None where it names none."""
    pruners: dict[str, Pruner | None] = {
        "none": None,
        "median": median_stop,
        "asha": successive_halving,
    }
    return pruners[task.pruner.name]


def median_stop(trial: Trial, trials: Sequence[Trial], task: Task) -> str | None:
    """Stop a trial whose best value so far is worse than the median of the others by then.

    The others are complete trials that reported this step or a later one, each with its last
    value up to the step. The rule is that of Google Vizier (Golovin et al. 2017, section 3.2.2,
    https://doi.org/10.1145/3097983.3098043), with the values at the step in place of their
    running averages, as Optuna's `MedianPruner` has it.
    """
    curve = _curve(trial, task)
    if len(curve) <= task.pruner.warmup_steps:
        return None
    step = curve[-1].step
    complete = (t for t in _others(trial, trials) if t.state is State.COMPLETE)
    peers = [cost for t in complete if (cost := _cost_by(_curve(t, task), step)) is not None]
    if len(peers) < MIN_PEERS:
        return None
    own, median = min(point.cost for point in curve), statistics.median(peers)
    if own <= median:
        return None
    return (
        f"its best {task.metric} by step {step}, {_shown(own, task)}, is worse than the median "
        f"of {len(peers)} other trials by then, {_shown(median, task)}"
    )


def successive_halving(trial: Trial, trials: Sequence[Trial], task: Task) -> str | None:
    """Stop a trial that reaches a rung outside the best 1/factor of those that came before it.

    Asynchronous successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934) in its
    stopping form, which lets trials go on instead of resuming them, as Optuna's
    `SuccessiveHalvingPruner` does. Rung k is the report number `first * factor**k`, where
    `first` is the first report after the warm-up. While fewer than `factor` trials have come
    to a rung, the best of them goes on. A trial meets only those that came before it, so that
    a decision does not change afterwards.
    """
    factor = task.pruner.reduction_factor
    curve = _curve(trial, task)
    curves = [_curve(t, task) for t in _others(trial, trials)]
    for reports in _rungs(task.pruner.warmup_steps + 1, factor, len(curve)):
        own = curve[reports - 1]
        before = [c[reports - 1] for c in curves if len(c) >= reports]
        rivals = sorted(point.cost for point in before if point.time <= own.time)
        go_on = max(1, (len(rivals) + 1) // factor)
        if len(rivals) >= go_on and own.cost > rivals[go_on - 1]:
            return (
                f"its {task.metric} at report {reports} (step {own.step}), "
                f"{_shown(own.cost, task)}, is not among the best {go_on} of the "
                f"{len(rivals) + 1} trials so far"
            )
    return None


@dataclass(frozen=True, slots=True)
class _Point:
    step: int
    cost: float
    """The value, turned so that lower is better; infinite where it is not finite."""
    time: float


def _curve(trial: Trial, task: Task) -> list[_Point]:
    """Return what a trial reported of the metric: one point per step, in order of report."""
    sign = 1.0 if task.direction == "minimize" else -1.0
    points: dict[int, _Point] = {}
    for m in trial.measurements:
        if m.name == task.metric and m.step not in points:
            cost = sign * m.value if math.isfinite(m.value) else math.inf
            points[m.step] = _Point(m.step, cost, m.time)
    return list(points.values())


def _others(trial: Trial, trials: Iterable[Trial]) -> Iterator[Trial]:
    return (t for t in trials if t.number != trial.number)


def _cost_by(curve: Sequence[_Point], step: int) -> float | None:
    """Return the last cost up to `step` of a curve that goes as far; None for others."""
    so_far = [point.cost for point in curve if point.step <= step]
    reached = any(point.step >= step for point in curve)
    return so_far[-1] if so_far and reached else None


def _rungs(first: int, factor: int, reports: int) -> Iterator[int]:
    """Yield the rungs that a trial with so many reports has come to."""
    rung = first
    while rung <= reports:
        yield rung
        rung *= factor


def _shown(cost: float, task: Task) -> str:
    """Spell a cost as the value that was reported."""
    if not math.isfinite(cost):
        return "not finite"
    return f"{cost if task.direction == 'minimize' else -cost:.4g}"
