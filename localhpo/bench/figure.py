"""The figure of a comparison: one SVG that needs nothing else, the same for the same results.

Left, regret by trial: means over problems and seeds, with a band of one standard error over
seeds. Right, mean ranks after the last trial: the grey bar is the critical difference from the
best, and upright bars join Creators that do not differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from localhpo.bench import statistics
from localhpo.bench.comparison import Comparison

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#4d4d4d",
)  # fmt: skip
"""Of Okabe and Ito, told apart by those who see fewer colours; then in dashes."""

DASHES = ("", "6 3", "2 3", "8 3 2 3")

_INK, _PALE, _GRID = "#222222", "#666666", "#e4e4e4"
_ROW = 24
_TOP, _LEFT, _PLOT_WIDTH, _GAP = 74, 64, 440, 44
_NAMES_WIDTH, _RANKS_WIDTH, _RIGHT = 210, 190, 44
_LONG = 20
"""Trials from which both axes of the curves are logarithmic."""
_SMALLEST = 1e-3
"""Regret at the bottom of a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class _Style:
    colour: str
    dashes: str


@dataclass(frozen=True, slots=True)
class _Axis:
    """From a value to a place on the page."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / ((high - low) or 1.0) * (self.end - self.start)


def draw(comparison: Comparison) -> str:
    """Return the figure as SVG."""
    rows = len(comparison.creators)
    height = max(300, _ROW * rows + 60)
    width = _LEFT + _PLOT_WIDTH + _GAP + _NAMES_WIDTH + _RANKS_WIDTH + _RIGHT
    styles = [
        _Style(COLOURS[c % len(COLOURS)], DASHES[c // len(COLOURS) % len(DASHES)])
        for c in range(rows)
    ]
    body = [
        *_heading(comparison),
        *_curves(comparison, styles, height),
        *_ranks(comparison, styles),
    ]
    page = height + _TOP + 56
    lines = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {page}" width="{width}" '
        f'height="{page}" font-family="Helvetica, Arial, sans-serif" font-size="13" '
        f'fill="{_INK}">\n<rect width="100%" height="100%" fill="white"/>\n{lines}\n</svg>\n'
    )


def _heading(comparison: Comparison) -> Iterator[str]:
    suite = comparison.suite
    size = ", ".join(
        f"{count} {noun}" + "s" * (count != 1)
        for count, noun in (
            (len(comparison.problems), "problem"),
            (len(comparison.seeds), "seed"),
            (comparison.trials, "trial"),
        )
    )
    band = ". Band: one standard error over seeds." if len(comparison.seeds) > 1 else "."
    yield _text(_LEFT, 26, f"{suite.name}: {suite.title}", size=16, weight="bold")
    yield _text(_LEFT, 46, size + band, colour=_PALE)


# Regret by trial.


def _curves(comparison: Comparison, styles: Sequence[_Style], height: float) -> Iterator[str]:
    means = comparison.regrets.mean(axis=(1, 2))  # (C, T)
    by_seed = comparison.regrets.mean(axis=1)  # (C, S, T)
    errors = [
        [statistics.standard_error(by_seed[c, :, t]) or 0.0 for t in range(comparison.trials)]
        for c in range(len(styles))
    ]
    is_long = comparison.trials >= _LONG
    bottom = _TOP + height
    top = max(float(means[c][0]) + errors[c][0] for c in range(len(styles)))
    low = max(_SMALLEST, float(means.min()) / 1.3) if is_long else 0.0
    x = _Axis(1, max(2, comparison.trials), _LEFT + 8, _LEFT + _PLOT_WIDTH - 8, is_long)
    y = _Axis(low, max(0.1, top * 1.04), bottom, _TOP, is_long)
    yield from _frame(x, y, comparison.trials)
    for c, style in enumerate(styles):
        yield _band(x, y, means[c].tolist(), errors[c], style)
    for c, style in reversed(list(enumerate(styles))):  # the first one lies on top
        points = " ".join(f"{x(t + 1):.1f},{y(m):.1f}" for t, m in enumerate(means[c].tolist()))
        thick = 2.6 if c == 0 else 1.8
        yield (
            f'<polyline points="{points}" fill="none" stroke="{style.colour}" '
            f'stroke-width="{thick}" stroke-dasharray="{style.dashes or "none"}"/>'
        )


def _band(
    x: _Axis, y: _Axis, means: Sequence[float], errors: Sequence[float], style: _Style
) -> str:
    there = list(enumerate(zip(means, errors, strict=True)))
    upper = [f"{x(t + 1):.1f},{y(m + e):.1f}" for t, (m, e) in there]
    lower = [f"{x(t + 1):.1f},{y(m - e):.1f}" for t, (m, e) in reversed(there)]
    points = " ".join(upper + lower)
    return f'<polygon points="{points}" fill="{style.colour}" opacity="0.13"/>'


def _frame(x: _Axis, y: _Axis, trials: int) -> Iterator[str]:
    for value in _ticks(y):
        place = y(value)
        yield _line(_LEFT, place, _LEFT + _PLOT_WIDTH, place, _GRID)
        yield _text(_LEFT - 8, place + 4, f"{value:g}", anchor="end", colour=_PALE)
    shown = range(1, trials + 1) if trials <= 12 else statistics.columns_of(trials)
    for trial in shown:
        yield _line(x(trial), y.start, x(trial), y.start + 5, _PALE)
        yield _text(x(trial), y.start + 20, str(trial), anchor="middle", colour=_PALE)
    yield _line(_LEFT, y.start, _LEFT + _PLOT_WIDTH, y.start, _INK)
    yield _text(_LEFT + _PLOT_WIDTH / 2, y.start + 42, "trials", anchor="middle")
    middle = (y.start + y.end) / 2
    label = "normalised regret of the best so far"
    yield (
        f'<text transform="translate(18 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{label}</text>"
    )


def _ticks(axis: _Axis) -> list[float]:
    if axis.log:
        steps = [m * 10.0**e for e in range(-3, 1) for m in (1, 2, 5)]
        return [step for step in steps if axis.low <= step <= axis.high]
    unit = 10.0 ** math.floor(math.log10(axis.high / 3))
    step = next(unit * m for m in (1, 2, 5, 10) if axis.high / (unit * m) <= 6)
    return [round(i * step, 10) for i in range(int(axis.high / step) + 1)]


# Ranks, and which line is whose.


def _ranks(comparison: Comparison, styles: Sequence[_Style]) -> Iterator[str]:
    last = comparison.columns[-1]
    ranks = [entry.rank for entry in last.entries]
    order = sorted(range(len(ranks)), key=lambda c: ranks[c])
    left = _LEFT + _PLOT_WIDTH + _GAP
    x = _Axis(1, max(2, len(ranks)), left + _NAMES_WIDTH, left + _NAMES_WIDTH + _RANKS_WIDTH)
    bottom = _TOP + 8 + _ROW * len(order)
    row_of = {c: _TOP + 20 + _ROW * place for place, c in enumerate(order)}
    yield _text(left, _TOP - 6, f"mean rank after {last.trial} trials (1 is best)")
    if last.critical_difference is not None:
        best = min(ranks)
        reach = x(best + last.critical_difference) - x(best)
        yield (
            f'<rect x="{x(best):.1f}" y="{_TOP + 6}" width="{reach:.1f}" '
            f'height="{bottom - _TOP - 4:.1f}" fill="#eeeeee"/>'
        )
    for c in order:
        yield from _rank_row(comparison.creators[c], ranks[c], styles[c], x, row_of[c], left)
    yield _line(x.start, bottom + 4, x.end, bottom + 4, _INK)
    for rank in range(1, max(2, len(ranks)) + 1):
        yield _line(x(rank), bottom + 4, x(rank), bottom + 9, _PALE)
        yield _text(x(rank), bottom + 24, str(rank), anchor="middle", colour=_PALE)
    yield from _joined(last, ranks, row_of, x.end + 12)
    if last.critical_difference is not None:
        words = f"grey: critical difference {last.critical_difference:.2f} (Nemenyi, 5 %)"
        yield _text(left, bottom + 46, words, colour=_PALE, size=12)


def _rank_row(
    name: str, rank: float, style: _Style, x: Callable[[float], float], y: float, left: float
) -> Iterator[str]:
    yield (
        f'<line x1="{left:.1f}" y1="{y:.1f}" x2="{left + 26:.1f}" y2="{y:.1f}" '
        f'stroke="{style.colour}" stroke-width="3" stroke-dasharray="{style.dashes or "none"}"/>'
    )
    yield _text(left + 34, y + 4, _shortened(name))
    yield f'<circle cx="{x(rank):.1f}" cy="{y:.1f}" r="5" fill="{style.colour}"/>'


def _joined(
    column: statistics.Column, ranks: Sequence[float], row_of: dict[int, int], x: float
) -> Iterator[str]:
    """Draw an upright bar beside each group that does not differ."""
    if column.critical_difference is None:
        return
    for place, group in enumerate(statistics.cliques(ranks, column.critical_difference)):
        rows = [row_of[c] for c in group]
        at = x + 7 * (place % 4)
        yield (
            f'<line x1="{at:.1f}" y1="{min(rows) - 6}" x2="{at:.1f}" y2="{max(rows) + 6}" '
            f'stroke="{_INK}" stroke-width="3" stroke-linecap="round"/>'
        )


def _shortened(name: str, limit: int = 24) -> str:
    """Return a name that fits; of a path the end says more."""
    return name if len(name) <= limit else f"{name[:8]}…{name[-(limit - 9) :]}"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    colour: str = _INK,
    size: int = 13,
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
        f'font-size="{size}" font-weight="{weight}">{escape(words)}</text>'
    )
