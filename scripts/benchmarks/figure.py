"""The figure of a comparison, as one SVG; the same results give the same text.

Left: regret by trial, the mean over problems and seeds, with a band of one standard error over
seeds. Right: mean ranks after the last trial. The gray bar is the critical difference from the
best, and vertical bars join Creators that do not differ significantly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from scripts.benchmarks import statistics, svg
from scripts.benchmarks.comparison import CreatorComparison
from scripts.benchmarks.svg import Axis, Style

_ROW = 24
_TOP, _LEFT, _PLOT_WIDTH, _GAP = 74, 64, 440, 44
_NAMES_WIDTH, _RANKS_WIDTH, _RIGHT = 210, 190, 44
_LONG = 20
"""Number of trials from which both axes of the curves are logarithmic."""
_SMALLEST = 1e-3
"""Regret at the bottom of a logarithmic axis."""


def draw(comparison: CreatorComparison) -> str:
    """Return the figure as SVG."""
    rows = len(comparison.creators)
    height = max(300, _ROW * rows + 60)
    width = _LEFT + _PLOT_WIDTH + _GAP + _NAMES_WIDTH + _RANKS_WIDTH + _RIGHT
    styles = svg.styles(rows)
    body = [
        *_heading(comparison),
        *_curves(comparison, styles, height),
        *_ranks(comparison, styles),
    ]
    return svg.page(width, height + _TOP + 56, body)


def _heading(comparison: CreatorComparison) -> Iterator[str]:
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
    yield svg.text(_LEFT, 26, f"{suite.name}: {suite.title}", size=16, weight="bold")
    yield svg.text(_LEFT, 46, size + band, color=svg.PALE)


# Regret by trial.


def _curves(comparison: CreatorComparison, styles: Sequence[Style], height: float) -> Iterator[str]:
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
    x = Axis(1, max(2, comparison.trials), _LEFT + 8, _LEFT + _PLOT_WIDTH - 8, is_long)
    y = Axis(low, max(0.1, top * 1.04), bottom, _TOP, is_long)
    yield from _frame(x, y, comparison.trials)
    lines = [list(enumerate(means[c].tolist(), start=1)) for c in range(len(styles))]
    for c, style in enumerate(styles):
        yield svg.band(x, y, lines[c], errors[c], style)
    for c, style in reversed(list(enumerate(styles))):  # draws the first Creator on top
        yield svg.curve(x, y, lines[c], style, thick=2.6 if c == 0 else 1.8)


def _frame(x: Axis, y: Axis, trials: int) -> Iterator[str]:
    for value in svg.ticks(y):
        height = y(value)
        yield svg.line(_LEFT, height, _LEFT + _PLOT_WIDTH, height, svg.GRID)
        yield svg.text(_LEFT - 8, height + 4, f"{value:g}", anchor="end", color=svg.PALE)
    shown = range(1, trials + 1) if trials <= 12 else statistics.report_trials(trials)
    for trial in shown:
        yield svg.line(x(trial), y.start, x(trial), y.start + 5, svg.PALE)
        yield svg.text(x(trial), y.start + 20, str(trial), anchor="middle", color=svg.PALE)
    yield svg.line(_LEFT, y.start, _LEFT + _PLOT_WIDTH, y.start, svg.INK)
    yield svg.text(_LEFT + _PLOT_WIDTH / 2, y.start + 42, "trials", anchor="middle")
    middle = (y.start + y.end) / 2
    label = "normalized regret of the best so far"
    yield (
        f'<text transform="translate(18 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{label}</text>"
    )


# Ranks, with the key of the lines.


def _ranks(comparison: CreatorComparison, styles: Sequence[Style]) -> Iterator[str]:
    last = comparison.columns[-1]
    ranks = [entry.rank for entry in last.entries]
    order = sorted(range(len(ranks)), key=lambda c: ranks[c])
    left = _LEFT + _PLOT_WIDTH + _GAP
    x = Axis(1, max(2, len(ranks)), left + _NAMES_WIDTH, left + _NAMES_WIDTH + _RANKS_WIDTH)
    bottom = _TOP + 8 + _ROW * len(order)
    row_of = {c: _TOP + 20 + _ROW * place for place, c in enumerate(order)}
    yield svg.text(left, _TOP - 6, f"mean rank after {last.trial} trials (1 is best)")
    if last.critical_difference is not None:
        best = min(ranks)
        reach = x(best + last.critical_difference) - x(best)
        yield (
            f'<rect x="{x(best):.1f}" y="{_TOP + 6}" width="{reach:.1f}" '
            f'height="{bottom - _TOP - 4:.1f}" fill="#eeeeee"/>'
        )
    for c in order:
        yield from _rank_row(comparison.creators[c], ranks[c], styles[c], x, row_of[c], left)
    yield svg.line(x.start, bottom + 4, x.end, bottom + 4, svg.INK)
    for rank in range(1, max(2, len(ranks)) + 1):
        yield svg.line(x(rank), bottom + 4, x(rank), bottom + 9, svg.PALE)
        yield svg.text(x(rank), bottom + 24, str(rank), anchor="middle", color=svg.PALE)
    yield from _joined(last, ranks, row_of, x.end + 12)
    if last.critical_difference is not None:
        words = f"gray: critical difference {last.critical_difference:.2f} (Nemenyi, 5 %)"
        yield svg.text(left, bottom + 46, words, color=svg.PALE, size=12)


def _rank_row(
    name: str, rank: float, style: Style, x: Callable[[float], float], y: float, left: float
) -> Iterator[str]:
    yield (
        f'<line x1="{left:.1f}" y1="{y:.1f}" x2="{left + 26:.1f}" y2="{y:.1f}" '
        f'stroke="{style.color}" stroke-width="3" stroke-dasharray="{style.dashes or "none"}"/>'
    )
    yield svg.text(left + 34, y + 4, svg.shorten(name))
    yield f'<circle cx="{x(rank):.1f}" cy="{y:.1f}" r="5" fill="{style.color}"/>'


def _joined(
    column: statistics.Column, ranks: Sequence[float], row_of: dict[int, int], x: float
) -> Iterator[str]:
    """Yield a vertical bar beside each group of Creators that do not differ."""
    if column.critical_difference is None:
        return
    for place, group in enumerate(statistics.find_cliques(ranks, column.critical_difference)):
        rows = [row_of[c] for c in group]
        at = x + 7 * (place % 4)
        yield (
            f'<line x1="{at:.1f}" y1="{min(rows) - 6}" x2="{at:.1f}" y2="{max(rows) + 6}" '
            f'stroke="{svg.INK}" stroke-width="3" stroke-linecap="round"/>'
        )
