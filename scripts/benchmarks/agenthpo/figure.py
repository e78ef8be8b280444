"""The figures of the experiment, as SVG; the same results give the same text.

`trajectories` is the paper's Figure 3: a panel per task with the best value so far by trial, as the
mean over runs with a band of one standard deviation, and a horizontal line at the best of random
search. `contours` is its Figures 4 and 5: the trials of each Creator on the quadratics. Level
curves of a sum of squares are circles around the optimum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from localhpo.space import Float
from localhpo.trial import Trial
from scripts.benchmarks import statistics, svg
from scripts.benchmarks.agenthpo.results import ExperimentResult, TaskResult, describe_runs
from scripts.benchmarks.agenthpo.runner import ExperimentPlan, RunKey, Studies
from scripts.benchmarks.problems.functions import FUNCTIONS
from scripts.benchmarks.svg import Axis, Style

_ACROSS = 4
"""Panels in a row."""
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 210, 170, 74, 76
_LEFT, _TOP, _RIGHT, _BOTTOM = 64, 100, 24, 52
_LEVELS = 8
"""Number of level curves of a contour plot."""
_DRAWN_RUNS = 2
"""Number of runs of each Creator in a contour plot, as in the paper."""


def trajectories(result: ExperimentResult) -> str:
    """Return the figure of the best value so far by trial, one panel per task."""
    styles = svg.styles(len(result.creators))
    words = "Mean over runs; band: one standard deviation; dashed: the best of random search"
    body = list(_key("Best so far by trial", words, result.creators, styles))
    for index, task in enumerate(result.tasks):
        body += _curves(result, task, styles, *_corner(index))
    return _page(len(result.tasks), body)


def contours(plan: ExperimentPlan, studies: Studies) -> str | None:
    """Return the figure of the first runs on the quadratics; None where there are none."""
    panels = [
        (index, choice)
        for index, subject in enumerate(plan.subjects)
        if subject.function is not None
        for choice in plan.creators
    ]
    if not panels:
        return None
    styles = svg.styles(_DRAWN_RUNS)
    names = [f"run {number}" for number in range(min(_DRAWN_RUNS, plan.runs))]
    words = "Level curves of the function and the trials in order; the cross is the optimum"
    body = list(_key("Trajectories on the quadratics", words, names, styles))
    for corner, (index, choice) in enumerate(panels):
        runs = [studies.get(RunKey(index, choice, number), ()) for number in range(len(names))]
        title = f"{plan.subjects[index].name}: {svg.shorten(choice.name, 14)}"
        body += _contour(plan.subjects[index].name, title, runs, styles, *_corner(corner))
    return _page(len(panels), body)


def _page(panels: int, body: Sequence[str]) -> str:
    across, down = min(_ACROSS, max(2, panels)), math.ceil(panels / _ACROSS)
    width = _LEFT + across * (_WIDTH + _GAP_X) - _GAP_X + _RIGHT
    return svg.page(width, _TOP + down * (_HEIGHT + _GAP_Y) - _GAP_Y + _BOTTOM, body)


def _corner(index: int) -> tuple[float, float]:
    """Return the upper left corner of a panel."""
    down, across = divmod(index, _ACROSS)
    return _LEFT + across * (_WIDTH + _GAP_X), _TOP + down * (_HEIGHT + _GAP_Y)


def _key(title: str, words: str, names: Sequence[str], styles: Sequence[Style]) -> Iterator[str]:
    yield svg.text(_LEFT - 40, 24, title, size=16, weight="bold")
    yield svg.text(_LEFT - 40, 42, words, color=svg.PALE, size=12)
    at = _LEFT - 40.0
    for name, style in zip(names, styles, strict=False):
        x = Axis(0, 1, at, at + 24)
        yield svg.curve(x, Axis(0, 1, 60, 60), [(0, 0), (1, 0)], style, thick=3)
        shown = svg.shorten(name)
        yield svg.text(at + 30, 64, shown)
        at += 54 + 7.2 * len(shown)


# Figure 3.


def _curves(
    result: ExperimentResult, task: TaskResult, styles: Sequence[Style], left: float, top: float
) -> Iterator[str]:
    lines = [
        [
            (t + 1.0, found.mean, found.deviation or 0.0)
            for t in range(result.trials)
            if (found := describe_runs(line.best[:, t])).mean is not None
        ]
        for line in task.lines
    ]
    x = Axis(1, max(2, result.trials), left, left + _WIDTH)
    y = Axis(*_reach(task, lines), top + _HEIGHT, top)
    yield from _frame(x, y, statistics.report_trials(result.trials))
    yield svg.text(left + _WIDTH / 2, top - 10, task.subject.name, anchor="middle", weight="bold")
    if task.human is not None:
        yield svg.curve(
            x, y, [(x.low, task.human), (x.high, task.human)], Style(svg.INK, "4 3"), thick=1.2
        )
    for line, style in zip(lines, styles, strict=True):
        yield svg.band(x, y, [(t, m) for t, m, _ in line], [d for _, _, d in line], style)
    for c in reversed(range(len(lines))):  # draws the first Creator on top
        points = [(t, mean) for t, mean, _ in lines[c]]
        yield svg.curve(x, y, points, styles[c], thick=2.6 if c == 0 else 1.8)


def _reach(
    task: TaskResult, lines: Sequence[Sequence[tuple[float, float, float]]]
) -> tuple[float, float]:
    """Return the range of an axis that shows all means, with some space for the bands."""
    means = [mean for line in lines for _, mean, _ in line]
    shown = [*means, *([] if task.human is None else [task.human])] or [0.0]
    low, high = min(shown), max(shown)
    room = 0.15 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _frame(x: Axis, y: Axis, columns: Sequence[float]) -> Iterator[str]:
    for value in svg.ticks(y):
        yield svg.line(x.start, y(value), x.end, y(value), svg.GRID)
        yield svg.text(
            x.start - 6, y(value) + 4, f"{value:g}", anchor="end", color=svg.PALE, size=11
        )
    for value in columns:
        yield svg.line(x(value), y.start, x(value), y.start + 4, svg.PALE)
        yield svg.text(
            x(value), y.start + 18, f"{value:g}", anchor="middle", color=svg.PALE, size=11
        )
    yield svg.line(x.start, y.start, x.end, y.start, svg.INK)


# Figures 4 and 5.


def _contour(
    name: str,
    title: str,
    runs: Sequence[Sequence[Trial]],
    styles: Sequence[Style],
    left: float,
    top: float,
) -> Iterator[str]:
    function = FUNCTIONS[name]
    first, second = (p for p in function.parameters if isinstance(p, Float))
    x = Axis(first.low, first.high, left, left + _HEIGHT)  # a square, so that circles stay circles
    y = Axis(second.low, second.high, top + _HEIGHT, top)
    yield svg.text(left + _HEIGHT / 2, top - 10, title, anchor="middle", weight="bold", size=12)
    yield from _levels(name, x, y)
    yield from _frame(x, y, svg.ticks(x))
    for trials, style in zip(runs, styles, strict=False):
        points = [_point(trial.config, first.name, second.name) for trial in trials]
        yield svg.curve(x, y, points, style, thick=1.4)
        for number, (a, b) in enumerate(points, start=1):
            yield f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{style.color}"/>'
            if number in (1, len(points)):
                yield svg.text(x(a) + 5, y(b) - 4, str(number), color=style.color, size=11)
    a, b = (float(value) for value in function.at)
    yield svg.line(x(a) - 5, y(b) - 5, x(a) + 5, y(b) + 5, svg.INK)
    yield svg.line(x(a) - 5, y(b) + 5, x(a) + 5, y(b) - 5, svg.INK)


def _point(config: Mapping[str, object], *names: str) -> tuple[float, float]:
    a, b = (float(str(config[name])) for name in names)
    return a, b


def _levels(name: str, x: Axis, y: Axis) -> Iterator[str]:
    """Yield level curves at equal distances, darker towards the optimum."""
    a, b = FUNCTIONS[name].at
    scale = (x.end - x.start) / (x.high - x.low)
    farthest = math.hypot(max(a - x.low, x.high - a), max(b - y.low, y.high - b))
    clip = f"inside-{x.start:g}-{y.end:g}"
    yield (
        f'<clipPath id="{clip}"><rect x="{x.start:.1f}" y="{y.end:.1f}" '
        f'width="{x.end - x.start:.1f}" height="{y.start - y.end:.1f}"/></clipPath>'
        f'<g clip-path="url(#{clip})">'
    )
    for level in range(_LEVELS, 0, -1):
        radius = scale * farthest * level / _LEVELS
        yield (
            f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="{radius:.1f}" fill="#0072b2" '
            f'fill-opacity="0.06" stroke="#0072b2" stroke-opacity="0.35" stroke-width="0.8"/>'
        )
    yield "</g>"
