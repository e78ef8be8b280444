"""Which running trials are not worth finishing: rules on what was reported.

A pruner looks at one running trial among all trials of its study and returns why it should
stop, or None. The same records give the same answer, whenever and however often it is asked;
what it keeps in between (`Curves`) only spares it reading them again.

A trial's progress is counted in reports of the metric, one per step (the first value that
came for it): steps need not begin at 0, nor be consecutive, nor mean the same as another
task's. A value that is not finite counts as worse than any other.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from localhpo.task import Task
from localhpo.trial import State, Trial

Pruner = Callable[[Trial, Sequence[Trial]], str | None]
"""(running trial, all trials of the study) -> the reason to stop it, or None."""

MIN_PEERS = 4
"""Trials that must have come as far before the median says anything."""


def pruner_for(task: Task) -> Pruner | None:
    """Return the pruner that the task names; None where it names none."""
    rules = {"median": median_stop, "asha": successive_halving}
    rule = rules.get(task.pruner.name)
    return None if rule is None else partial(rule, curves=Curves(task))


@dataclass(frozen=True, slots=True)
class Point:
    """The first value that a trial reported for a step."""

    step: int
    cost: float
    """The value, turned so that lower is better; infinite where it is not finite."""
    time: float


@dataclass(slots=True)
class Curve:
    """What one run of a trial reported of the metric."""

    restarts: int
    read: int = 0
    """Measurements of the trial, of any metric, that went into it."""
    points: list[Point] = field(default_factory=list)
    """In the order of report."""
    costs: dict[int, float] = field(default_factory=dict)
    """By step."""
    steps: list[int] = field(default_factory=list)
    """In ascending order."""
    best: float = math.inf

    def add(self, point: Point) -> None:
        """Add a point, unless its step has one."""
        if point.step not in self.costs:
            self.points.append(point)
            self.costs[point.step] = point.cost
            bisect.insort(self.steps, point.step)
            self.best = min(self.best, point.cost)

    def cost_by(self, step: int) -> float | None:
        """Return the last cost up to a step; None where the curve begins later or ends before."""
        index = bisect.bisect_right(self.steps, step)
        if index == 0 or self.steps[-1] < step:
            return None
        return self.costs[self.steps[index - 1]]


class Curves:
    """The curves of a study's trials; each measurement is read once."""

    def __init__(self, task: Task) -> None:
        """Read the metric of this task."""
        self.task = task
        self._sign = 1.0 if task.direction == "minimize" else -1.0
        self._curves: dict[int, Curve] = {}

    def of(self, trial: Trial) -> Curve:
        """Return the curve of a trial as it stands."""
        curve = self._curves.get(trial.number)
        if curve is None or curve.restarts != trial.restarts:
            curve = self._curves[trial.number] = Curve(trial.restarts)
        for m in trial.measurements[curve.read :]:
            if m.name == self.task.metric:
                cost = self._sign * m.value if math.isfinite(m.value) else math.inf
                curve.add(Point(m.step, cost, m.time))
        curve.read = len(trial.measurements)
        return curve

    def of_others(self, trial: Trial, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Curve]]:
        """Yield the other trials with their curves."""
        return ((t, self.of(t)) for t in trials if t.number != trial.number)

    def shown(self, cost: float) -> str:
        """Spell a cost as the value that was reported."""
        return f"{self._sign * cost:.4g}" if math.isfinite(cost) else "not finite"


def median_stop(trial: Trial, trials: Sequence[Trial], curves: Curves) -> str | None:
    """Stop a trial whose best value so far is worse than the median of the others by then.

    The others are complete trials that reported this step or a later one, each with its last
    value up to the step. The rule is that of Google Vizier (Golovin et al. 2017, section 3.2.2,
    https://doi.org/10.1145/3097983.3098043), with the values at the step in place of their
    running averages, as Optuna's `MedianPruner` has it.
    """
    task, curve = curves.task, curves.of(trial)
    if len(curve.points) <= task.pruner.warmup_steps:
        return None
    step = curve.points[-1].step
    others = [c for t, c in curves.of_others(trial, trials) if t.state is State.COMPLETE]
    peers = [cost for c in others if (cost := c.cost_by(step)) is not None]
    if len(peers) < MIN_PEERS:
        return None
    median = statistics.median(peers)
    if curve.best <= median:
        return None
    return (
        f"its best {task.metric} by step {step}, {curves.shown(curve.best)}, is worse than the "
        f"median of {len(peers)} other trials by then, {curves.shown(median)}"
    )


def successive_halving(trial: Trial, trials: Sequence[Trial], curves: Curves) -> str | None:
    """Stop a trial that reaches a rung outside the best 1/factor of those that came before it.

    Asynchronous successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934) in its
    stopping form, which lets trials go on instead of resuming them, as Optuna's
    `SuccessiveHalvingPruner` does. Rung k is the report number `first * factor**k`, where
    `first` is the first report after the warm-up. While fewer than `factor` trials have come
    to a rung, the best of them goes on. A trial meets only those that came before it, so that
    a decision does not change afterwards.
    """
    task, points = curves.task, curves.of(trial).points
    others = [c.points for _, c in curves.of_others(trial, trials)]
    factor = task.pruner.reduction_factor
    for reports in _rungs(task.pruner.warmup_steps + 1, factor, len(points)):
        own = points[reports - 1]
        before = [p[reports - 1] for p in others if len(p) >= reports]
        rivals = sorted(point.cost for point in before if point.time <= own.time)
        go_on = max(1, (len(rivals) + 1) // factor)
        if len(rivals) >= go_on and own.cost > rivals[go_on - 1]:
            return (
                f"its {task.metric} at report {reports} (step {own.step}), "
                f"{curves.shown(own.cost)}, is not among the best {go_on} of the "
                f"{len(rivals) + 1} trials so far"
            )
    return None


def _rungs(first: int, factor: int, reports: int) -> Iterator[int]:
    """Yield the rungs that a trial with so many reports has come to."""
    rung = first
    while rung <= reports:
        yield rung
        rung *= factor
