"""Elements of figures, written as SVG text: no library, and a browser shows the result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#4d4d4d",
)  # fmt: skip
"""Colors that color-blind readers can tell apart (Okabe and Ito)."""

DASHES = ("", "6 3", "2 3", "8 3 2 3")

INK, PALE, GRID = "#222222", "#666666", "#e4e4e4"


@dataclass(frozen=True, slots=True)
class Style:
    """Color and dashes of a line."""

    color: str
    dashes: str


def styles(count: int) -> list[Style]:
    """Return `count` styles, the first of which are the easiest to tell apart."""
    return [
        Style(COLORS[c % len(COLORS)], DASHES[c // len(COLORS) % len(DASHES)]) for c in range(count)
    ]


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to positions on the page; callable."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the position of a value; values beyond an end are moved to it."""
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / ((high - low) or 1.0) * (self.end - self.start)


def ticks(axis: Axis) -> list[float]:
    """Return round values along an axis, at most seven where it is linear."""
    if axis.log:
        steps = [m * 10.0**e for e in range(-3, 1) for m in (1, 2, 5)]
        return [step for step in steps if axis.low <= step <= axis.high]
    span = axis.high - axis.low
    unit = 10.0 ** math.floor(math.log10(span / 3))
    step = next(unit * m for m in (1, 2, 5, 10) if span / (unit * m) <= 6)
    first, last = math.ceil(axis.low / step), math.floor(axis.high / step)
    return [round(i * step, 10) for i in range(first, last + 1)]


def page(width: float, height: float, body: Iterable[str]) -> str:
    """Return a figure of this size."""
    lines = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="Helvetica, Arial, sans-serif" font-size="13" '
        f'fill="{INK}">\n<rect width="100%" height="100%" fill="white"/>\n{lines}\n</svg>\n'
    )


def curve(
    x: Axis, y: Axis, points: Iterable[tuple[float, float]], style: Style, *, thick: float
) -> str:
    """Return a line through points."""
    coordinates = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    return (
        f'<polyline points="{coordinates}" fill="none" stroke="{style.color}" '
        f'stroke-width="{thick}" stroke-dasharray="{style.dashes or "none"}"/>'
    )


def band(
    x: Axis, y: Axis, points: Sequence[tuple[float, float]], errors: Sequence[float], style: Style
) -> str:
    """Return the area within an error of a line through points."""
    pairs = list(zip(points, errors, strict=True))
    upper = [f"{x(a):.1f},{y(b + e):.1f}" for (a, b), e in pairs]
    lower = [f"{x(a):.1f},{y(b - e):.1f}" for (a, b), e in reversed(pairs)]
    coordinates = " ".join(upper + lower)
    return f'<polygon points="{coordinates}" fill="{style.color}" opacity="0.13"/>'


def shorten(name: str, limit: int = 24) -> str:
    """Return a name of at most `limit` characters: its beginning and its end."""
    return name if len(name) <= limit else f"{name[:8]}…{name[-(limit - 9) :]}"


def line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    """Return a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    color: str = INK,
    size: int = 13,
    weight: str = "normal",
) -> str:
    """Return a text; `anchor` says which part of it is at the position."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" '
        f'font-size="{size}" font-weight="{weight}">{escape(words)}</text>'
    )
