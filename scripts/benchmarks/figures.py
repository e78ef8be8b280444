"""Figures of comparisons and of the paper's experiment, drawn with Plotly as one HTML page each.

A page needs no network: `plotly.min.js` lies beside it, shared by the figures of a folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from localhpo.errors import StoreError
from localhpo.space import Float
from scripts.benchmarks import statistics
from scripts.benchmarks.agenthpo.results import ExperimentResult, TaskResult, describe_runs
from scripts.benchmarks.agenthpo.runner import ExperimentPlan, Studies
from scripts.benchmarks.comparison import CreatorComparison
from scripts.benchmarks.problems.functions import FUNCTIONS, Function
from scripts.benchmarks.results import TrialRow

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter

# Okabe and Ito's colors, which color-blind people tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES = ("solid", "dash", "dot")
_LONG = 20
"""Number of trials from which both axes of the curves are logarithmic."""
_ACROSS = 4
"""Panels in a row."""
_DRAWN_RUNS = 2
"""Number of runs of each Creator in a contour plot, as in the paper."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the same figure gives the same page.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent} cannot be made: {error.strerror}") from error
    try:
        figure.write_html(path, include_plotlyjs="directory", div_id=path.stem)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error


def draw_comparison(comparison: CreatorComparison) -> Figure:
    """Return the figure of a comparison.

    Left: regret by trial, the mean over problems and seeds, with a band of one standard error over
    seeds. Right: mean ranks after the last trial; the gray area is the critical difference from
    the best.
    """
    from plotly.subplots import make_subplots

    last = comparison.columns[-1]
    right = f"mean rank after {last.trial} trials"
    figure = make_subplots(cols=2, subplot_titles=("regret of the best so far", right))
    means = comparison.regrets.mean(axis=(1, 2))  # (C, T)
    by_seed = comparison.regrets.mean(axis=1)  # (C, S, T)
    trials = list(range(1, comparison.trials + 1))
    for c, name in enumerate(comparison.creators):
        errors = [statistics.standard_error(by_seed[c, :, t - 1]) or 0.0 for t in trials]
        for trace in _band(trials, means[c], errors, name, c):
            figure.add_trace(trace, row=1, col=1)
    ranks = [entry.rank for entry in last.entries]
    order = sorted(range(len(ranks)), key=lambda c: -ranks[c])  # the first is drawn lowest
    figure.add_scatter(
        x=[ranks[c] for c in order],
        y=[comparison.creators[c] for c in order],
        mode="markers",
        marker={"color": [_color(c) for c in order], "size": 12},
        showlegend=False,
        row=1,
        col=2,
    )
    if last.critical_difference is not None:
        end = min(ranks) + last.critical_difference
        figure.add_vrect(
            min(ranks), end, fillcolor="gray", opacity=0.2, line_width=0, layer="below",
            row=1, col=2,
        )  # fmt: skip
    size = f"{len(comparison.problems)} problems, {len(comparison.seeds)} seeds"
    if last.critical_difference is not None:
        size += f"; gray: critical difference {last.critical_difference:.2f} (Nemenyi, 5 %)"
    suite = comparison.suite
    figure.update_layout(title=f"{suite.name}: {suite.title}<br><sub>{size}</sub>", margin_t=130)
    figure.update_xaxes(title_text="trials", col=1)
    figure.update_xaxes(title_text="rank (1 is best)", range=[0.8, len(ranks) + 0.2], col=2)
    if comparison.trials >= _LONG:
        figure.update_xaxes(type="log", col=1)
        figure.update_yaxes(type="log", col=1)
    return figure


def draw_trajectories(result: ExperimentResult) -> Figure:
    """Return the paper's Figure 3: the best value so far by trial, a panel per task.

    Each line is the mean over runs, with a band of one standard deviation; the dashed line is the
    best of random search.
    """
    figure = _panels([task.subject.name for task in result.tasks])
    for index, task in enumerate(result.tasks):
        place = _place(index)
        for trace in _lines(result, task, show_names=index == 0):
            figure.add_trace(trace, **place)
        if task.human is not None:
            figure.add_hline(task.human, line_dash="dash", line_width=1, **place)
    figure.update_layout(title="Best so far by trial: mean over runs, band: standard deviation")
    return figure


def draw_contours(plan: ExperimentPlan, studies: Studies) -> Figure | None:
    """Return the paper's Figures 4 and 5: the first runs on the quadratics; None without any."""
    panels = [
        (name, choice.name)
        for name, subject in plan.subjects.items()
        if subject.function is not None
        for choice in plan.creators
    ]
    if not panels:
        return None
    figure = _panels([f"{name}: {creator}" for name, creator in panels])
    for corner, (name, creator) in enumerate(panels):
        function = FUNCTIONS[name]
        place = _place(corner)
        figure.add_trace(_levels(function), **place)
        for number in range(min(_DRAWN_RUNS, plan.runs)):
            if (name, creator, number) in studies:
                trials = studies[name, creator, number].trials
                figure.add_trace(_route(function, trials, number, show_name=corner == 0), **place)
        a, b = function.at
        figure.add_scatter(
            x=[a], y=[b], mode="markers", marker={"symbol": "x", "color": "black", "size": 10},
            name="optimum", showlegend=corner == 0, **place,
        )  # fmt: skip
    # A unit is as long on both axes, so that the level curves are circles.
    for axis in figure.select_yaxes():
        axis.update(scaleanchor=axis.anchor, constrain="domain")
    figure.update_xaxes(constrain="domain")
    figure.update_layout(title="Trials on the quadratics, in order, and level curves")
    return figure


def _panels(titles: Sequence[str]) -> Figure:
    from plotly.subplots import make_subplots

    down, across = math.ceil(len(titles) / _ACROSS), min(_ACROSS, len(titles))
    figure = make_subplots(rows=down, cols=across, subplot_titles=titles)
    return figure.update_layout(height=max(400, 320 * down))


def _place(index: int) -> dict[str, int]:
    down, across = divmod(index, _ACROSS)
    return {"row": down + 1, "col": across + 1}


def _lines(result: ExperimentResult, task: TaskResult, *, show_names: bool) -> list[Scatter]:
    traces = []
    for c, (name, line) in enumerate(zip(result.creators, task.lines, strict=True)):
        found = [(t + 1, describe_runs(line.best[:, t])) for t in range(result.trials)]
        known = [
            (t, runs.mean, runs.deviation or 0.0) for t, runs in found if runs.mean is not None
        ]
        trials, means, deviations = zip(*known, strict=True) if known else ((), (), ())
        traces += _band(trials, means, deviations, name, c, show_name=show_names)
    return traces


def _band(
    trials: Sequence[int], means: Sequence[float], errors: Sequence[float], name: str, index: int,
    *, show_name: bool = True,
) -> list[Scatter]:  # fmt: skip
    """Return a line and, below it, the area within an error of it."""
    from plotly.graph_objects import Scatter

    color = _color(index)
    upper = [mean + error for mean, error in zip(means, errors, strict=True)]
    lower = [mean - error for mean, error in zip(means, errors, strict=True)]
    return [
        Scatter(
            x=[*trials, *reversed(trials)], y=[*upper, *reversed(lower)], mode="lines",
            fill="toself", fillcolor=color, opacity=0.13, line_width=0, hoverinfo="skip",
            showlegend=False, legendgroup=name,
        ),
        Scatter(
            x=list(trials), y=[float(mean) for mean in means], name=name, legendgroup=name,
            showlegend=show_name,
            line={"color": color, "dash": _DASHES[index // len(COLORS) % len(_DASHES)]},
        ),
    ]  # fmt: skip


def _route(
    function: Function, trials: Sequence[TrialRow], number: int, *, show_name: bool
) -> Scatter:
    from plotly.graph_objects import Scatter

    first, second = _axes(function)
    configs = [json.loads(trial.config) for trial in trials]
    return Scatter(
        x=[config[first.name] for config in configs],
        y=[config[second.name] for config in configs], mode="lines+markers",
        name=f"run {number}", line_color=COLORS[number + 1], showlegend=show_name,
        text=[f"trial {n}" for n in range(1, len(configs) + 1)],
    )  # fmt: skip


def _levels(function: Function) -> object:
    """Return level curves of the distance to the optimum: circles, as of a sum of squares."""
    from plotly.graph_objects import Contour

    first, second = _axes(function)
    x, y = (np.linspace(axis.low, axis.high, 41) for axis in (first, second))
    a, b = function.at
    distance = np.hypot(x[None, :] - float(a), y[:, None] - float(b))
    return Contour(x=x, y=y, z=distance, ncontours=8, showscale=False, colorscale="Blues_r")


def _axes(function: Function) -> tuple[Float, Float]:
    first, second = (p for p in function.parameters if isinstance(p, Float))
    return first, second


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]
