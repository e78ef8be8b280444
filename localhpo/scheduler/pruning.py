"""Pruners, which stop trials early from the values they have reported, and their registry.

A pruner compares one running trial with all trials of its study, and returns the reason to stop it,
or None. Equal records give equal answers, at any time and however often it is called; a cache
(`LearningCurves`) only saves reading the measurements again.

A pruner is one entry of `PRUNERS`, or an entry point of the group `localhpo.pruners`. Its factory,
mostly a class with `__call__`, may take one option, `task`: the task, whose `pruner` has the
settings. What it makes is called after each report of a trial. A plug-in's pruner that fails is
not called again in that run.

Progress is counted in reports of the metric, one per step (the first value of that step). So steps
need not start at 0, be consecutive, or mean the same in two tasks. A value that is not finite
counts as worse than any other. The task has one objective: with several, task files refuse a
pruner.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from localhpo.plugins import Registry
from localhpo.space.values import show_value
from localhpo.task import Task
from localhpo.trial import State, Trial

Pruner = Callable[[Trial, Sequence[Trial]], str | None]
"""Takes a running trial and all trials of the study; returns the reason to stop it, or None."""

PRUNERS: Registry[Pruner | None] = Registry(
    "pruner",
    {
        "none": "localhpo.scheduler.pruning:no_pruner",
        "median": "localhpo.scheduler.pruning:MedianPruner",
        "asha": "localhpo.scheduler.pruning:SuccessiveHalvingPruner",
    },
    options=("task",),
)

MIN_PEERS = 4
"""The median is used only where so many other trials have come as far."""


def make_pruner(task: Task) -> Pruner | None:
    """Return the pruner that the task names; None for `none`.

    That of a plug-in raises `PluginError` where it fails, also when it is called.

    Raises:
        InputError: there is no such pruner.
        PluginError: it is that of a plug-in which cannot be imported, or fails.
    """
    name = task.pruner.name
    pruner = PRUNERS.make(name, task=task)
    return pruner if pruner is None or name in PRUNERS.built_in else partial(_ask, name, pruner)


def _ask(name: str, pruner: Pruner, trial: Trial, trials: Sequence[Trial]) -> str | None:
    """Return the answer of a plug-in's pruner."""
    with PRUNERS.naming_plugin(name):
        reason = pruner(trial, trials)
        if reason is not None and not (isinstance(reason, str) and reason):
            raise TypeError(f"it must return a reason as text, or None; got {show_value(reason)}")
        return reason


def no_pruner() -> None:
    """Return None: every trial runs to its end."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The first value that a trial reported for a step."""

    step: int
    cost: float
    """The value with a sign such that lower is better; infinite where it is not finite."""
    time: float


@dataclass(slots=True)
class LearningCurve:
    """The values of the metric that one run of a trial reported."""

    restarts: int
    read: int = 0
    """Number of the trial's measurements, of any metric, that have been read."""
    points: list[CurvePoint] = field(default_factory=list)
    """In the order of the reports."""
    costs: dict[int, float] = field(default_factory=dict)
    """By step."""
    steps: list[int] = field(default_factory=list)
    """In ascending order."""
    best: float = math.inf

    def add(self, point: CurvePoint) -> None:
        """Add a point, unless its step already has one."""
        if point.step not in self.costs:
            self.points.append(point)
            self.costs[point.step] = point.cost
            bisect.insort(self.steps, point.step)
            self.best = min(self.best, point.cost)

    def cost_by(self, step: int) -> float | None:
        """Return the last cost up to a step; None where the curve starts later or ends earlier."""
        index = bisect.bisect_right(self.steps, step)
        if index == 0 or self.steps[-1] < step:
            return None
        return self.costs[self.steps[index - 1]]


class LearningCurves:
    """The curves of a study's trials; each measurement is read once."""

    def __init__(self, task: Task) -> None:
        """Read the metric of a task."""
        self.task = task
        self._sign = 1.0 if task.direction == "minimize" else -1.0
        self._curves: dict[int, LearningCurve] = {}

    def read(self, trial: Trial) -> LearningCurve:
        """Return the curve of a trial, up to its last measurement."""
        curve = self._curves.get(trial.number)
        if curve is None or curve.restarts != trial.restarts:
            curve = self._curves[trial.number] = LearningCurve(trial.restarts)
        for m in trial.measurements[curve.read :]:
            if m.name == self.task.metric:
                cost = self._sign * m.value if math.isfinite(m.value) else math.inf
                curve.add(CurvePoint(m.step, cost, m.time))
        curve.read = len(trial.measurements)
        return curve

    def read_others(
        self, trial: Trial, trials: Sequence[Trial]
    ) -> Iterator[tuple[Trial, LearningCurve]]:
        """Yield the other trials with their curves."""
        return ((t, self.read(t)) for t in trials if t.number != trial.number)

    def format_value(self, cost: float) -> str:
        """Return the reported value of a cost as text."""
        return f"{self._sign * cost:.4g}" if math.isfinite(cost) else "not finite"


class CurvePruner:
    """A pruner that compares the learning curves of a study."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._curves = LearningCurves(task)


class MedianPruner(CurvePruner):
    """Stops a trial whose best value so far is worse than the median of other trials at its step.

    The other trials are complete and reported this step or a later one; each counts with its last
    value up to the step. The rule is that of Google Vizier (Golovin et al. 2017, section 3.2.2,
    https://doi.org/10.1145/3097983.3098043), with the values at the step in place of their
    running averages, as Optuna's `MedianPruner` has it.
    """

    def __call__(self, trial: Trial, trials: Sequence[Trial]) -> str | None:
        """Return the reason to stop the trial, or None."""
        task, curve = self._task, self._curves.read(trial)
        if len(curve.points) <= task.pruner.warmup_steps:
            return None
        step = curve.points[-1].step
        others = [
            c for t, c in self._curves.read_others(trial, trials) if t.state is State.COMPLETE
        ]
        peers = [cost for c in others if (cost := c.cost_by(step)) is not None]
        if len(peers) < MIN_PEERS:
            return None
        median = statistics.median(peers)
        if curve.best <= median:
            return None
        best, middle = (self._curves.format_value(cost) for cost in (curve.best, median))
        return (
            f"its best {task.metric} by step {step}, {best}, is worse than "
            f"the median of {len(peers)} other trials by then, {middle}"
        )


class SuccessiveHalvingPruner(CurvePruner):
    """Stops a trial that reaches a rung and is not among the best 1/factor of the trials there.

    Asynchronous successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934) in its
    stopping form, which lets trials go on instead of resuming them, as Optuna's
    `SuccessiveHalvingPruner` does. Rung k is the report number `first * factor**k`, where
    `first` is the first report after the warm-up. While fewer than `factor` trials have reached
    a rung, the best of them goes on. A trial is compared only with those that reached the rung
    before it, so that a decision never changes afterwards.
    """

    def __call__(self, trial: Trial, trials: Sequence[Trial]) -> str | None:
        """Return the reason to stop the trial, or None."""
        task, points = self._task, self._curves.read(trial).points
        others = [c.points for _, c in self._curves.read_others(trial, trials)]
        factor = task.pruner.reduction_factor
        for reports in _rungs(task.pruner.warmup_steps + 1, factor, len(points)):
            own = points[reports - 1]
            before = [p[reports - 1] for p in others if len(p) >= reports]
            rivals = sorted(point.cost for point in before if point.time <= own.time)
            go_on = max(1, (len(rivals) + 1) // factor)
            if len(rivals) >= go_on and own.cost > rivals[go_on - 1]:
                return (
                    f"its {task.metric} at report {reports} (step {own.step}), "
                    f"{self._curves.format_value(own.cost)}, is not among the best {go_on} of the "
                    f"{len(rivals) + 1} trials so far"
                )
        return None


def _rungs(first: int, factor: int, reports: int) -> Iterator[int]:
    """Yield the rungs that a trial with so many reports has reached."""
    rung = first
    while rung <= reports:
        yield rung
        rung *= factor
