"""Grids that numbers are rounded to, and the spelling of their points.

A point of a `DecimalGrid` is an integer times a power of ten, a point of a `LogGrid` a number
of three significant digits. Both are held as integers, so that counting, stepping and the
regular expressions of the grammar are exact; a float appears only at the end, by one
correctly rounded division. No point has more than 15 significant digits, so
decimal -> float -> `repr` gives the same decimal back.

An index counts the points of a grid from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

MAX_DIGITS = 15
"""Significant decimal digits that survive a round trip through a float (`sys.float_info.dig`)."""

MAX_POINT: int = 10**MAX_DIGITS
"""The largest integer that stands for a point."""

CELLS = 1000
"""A linear range without a step is cut into at least this many cells."""


@dataclass(frozen=True, slots=True)
class DecimalGrid:
    """The numbers n / 10**decimals for n = first, first + step, ..."""

    first: int
    step: int
    count: int
    decimals: int
    """May be negative: the grid of a huge range is a multiple of a power of ten."""

    def value(self, index: int) -> float:
        """Return the point at an index."""
        return scaled(self.first + index * self.step, self.decimals)

    @property
    def precise(self) -> bool:
        """Whether no point has more digits than a float keeps."""
        largest = max(abs(self.first), abs(self.first + (self.count - 1) * self.step))
        return largest <= MAX_POINT

    @property
    def endings(self) -> int:
        """Upper bound on the distinct sets of last digits that can follow a prefix.

        With j digits left, such a set depends only on the prefix modulo step / gcd(step, 10**j).
        """
        digits = len(str(self.step * self.count))
        return sum(
            min(self.step // math.gcd(self.step, 10**j), 10**j, self.count) for j in range(digits)
        )

    def part(self, start: int, stop: int) -> DecimalGrid:
        """Return the grid of the points from index `start` to `stop`, without `stop`."""
        first = self.first + start * self.step
        return DecimalGrid(first, self.step, stop - start, self.decimals)


@dataclass(frozen=True, slots=True)
class LogGrid:
    """The numbers of three significant digits, m * 10**(e - 2) with m in 100..999.

    Such a number has the position 900 * e + (m - 100) among all of them.
    """

    first: int
    """Position of the smallest point."""
    count: int

    def value(self, index: int) -> float:
        """Return the point at an index."""
        exponent, mantissa = divmod(self.first + index, 900)
        return scaled(mantissa + 100, 2 - exponent)


def scaled(n: int, decimals: int) -> float:
    """Return n / 10**decimals, correctly rounded."""
    return n / 10**decimals if decimals >= 0 else float(n * 10**-decimals)


def exact_fraction(value: float) -> Fraction:
    """Return the decimal number that `repr` prints, as a fraction."""
    return Fraction(repr(value))


def linear_grid(low: float, high: float) -> DecimalGrid:
    """Return the grid between two bounds: the fewest decimals that make `CELLS` cells.

    It is coarser where a float has too few digits for that.
    """
    least, most = exact_fraction(low), exact_fraction(high)
    if least == most:
        return DecimalGrid(first=0, step=1, count=0, decimals=0)
    decimals = max(0, ceil_log10(CELLS / (most - least)))
    largest = max(abs(least), abs(most))
    # At most 15 digits before and after the point, also for the largest magnitude.
    decimals = min(decimals, -ceil_log10(largest / MAX_POINT))
    scale = Fraction(10) ** decimals
    first, last = math.ceil(least * scale), math.floor(most * scale)
    return DecimalGrid(first=first, step=1, count=max(0, last - first + 1), decimals=decimals)


def step_grid(low: float, high: float, step: float) -> DecimalGrid:
    """Return the grid low, low + step, ..., up to `high`."""
    start, end, stride = exact_fraction(low), exact_fraction(high), exact_fraction(step)
    decimals = max(decimals_of(start), decimals_of(stride))
    scale = 10**decimals
    count = math.floor((end - start) / stride) + 1
    return DecimalGrid(
        first=int(start * scale), step=int(stride * scale), count=count, decimals=decimals
    )


def log_grid(low: float, high: float) -> LogGrid:
    """Return the grid of three significant digits between two positive bounds."""
    first = _log_position(exact_fraction(low), math.ceil)
    last = _log_position(exact_fraction(high), math.floor)
    return LogGrid(first=first, count=max(0, last - first + 1))


def _log_position(value: Fraction, rounding: Callable[[Fraction], int]) -> int:
    exponent = floor_log10(value)
    mantissa = value / Fraction(10) ** (exponent - 2)
    # A mantissa rounded up to 1000 is the first of the next decade: the formula agrees.
    return 900 * exponent + rounding(mantissa) - 100


def floor_log10(value: Fraction) -> int:
    """Return the largest e with 10**e <= value."""
    guess = len(str(value.numerator)) - len(str(value.denominator))
    return guess if Fraction(10) ** guess <= value else guess - 1


def ceil_log10(value: Fraction) -> int:
    """Return the smallest e with value <= 10**e."""
    floor = floor_log10(value)
    return floor if Fraction(10) ** floor == value else floor + 1


def decimals_of(value: Fraction) -> int:
    """Return the number of decimals of a terminating decimal fraction."""
    decimals = 0
    while (value * 10**decimals).denominator != 1:
        decimals += 1
    return decimals


def spell_plain(value: float) -> str:
    """Spell a number without exponent and without trailing zeros: `0.25`, `-3`, `0.00001`."""
    text = repr(value)
    if "e" in text:
        text = f"{Decimal(text):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def spell_scientific(value: float) -> str:
    """Spell a number with the shortest mantissa and exponent: `3.1e-4`, `1e0`."""
    mantissa, _, exponent = f"{Decimal(repr(value)).normalize():e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def spell_shortest(value: float) -> str:
    """Spell a number that stands in a list of values: plainly, unless it is tiny or huge."""
    return (
        spell_plain(value) if value == 0 or 1e-4 <= abs(value) < 1e15 else spell_scientific(value)
    )
