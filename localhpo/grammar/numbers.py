r"""Regular expressions that match exactly the texts of a grid of numbers.

A point of a decimal grid is an integer n over 10**places, so its text is the digits of n with
a point before the last `places` of them, and without trailing zeros. The texts of all n of a
range are built digit by digit: what may follow a prefix is again such a set, with fewer
digits. One recursion handles integers, decimals and mantissas; for 0 to 0.5 with four places
`0(\.(0[0-9]{0,2}[1-9]|[1-4]([0-9]{0,2}[1-9])?|5))?`.

With a step, what may follow depends on the prefix modulo the step. Equal sets share one
terminal, so that the size of a grammar depends on the step, not on the number of points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from localhpo.space.grid import DecimalGrid, LogGrid

FEW = 50
"""Most multiples of a step that are written as one expression, without shared terminals."""


class _Rest(NamedTuple):
    """The texts that may follow a prefix: the last digits of the n with low <= n <= high.

    With a modulus, only those of the n with n % modulus == residue.
    """

    digits: int
    """Number of digits left, including those after the point."""
    low: int
    high: int
    modulus: int
    residue: int
    places: int
    """Digits after the point."""
    pointed: bool = False
    """Whether the prefix contains the point."""
    open: bool = False
    """Whether the text cannot end here, after a point or a zero behind it."""

    @property
    def smallest(self) -> int:
        """The smallest n; above `high` where there is none."""
        n = self.low + (self.residue - self.low) % self.modulus
        return self.modulus if self.open and n == 0 else n

    @property
    def ends(self) -> bool:
        """Whether the text may end here, since only zeros after the point are left."""
        return self.digits <= self.places and self.smallest == 0

    @property
    def is_unrestricted(self) -> bool:
        """Whether any digits may follow."""
        return self.modulus == 1 and self.low == 0 and self.high == 10**self.digits - 1

    def moves(self) -> Iterator[tuple[str, _Rest]]:
        """Yield each character that may come next, and what may follow it."""
        if self.digits == self.places and not self.pointed:
            characters = [(".", self._replace(pointed=True, open=True))] if self.places else []
        else:
            characters = [
                (str(digit), self._after(digit)) for digit in range(10 * (self.digits > 0))
            ]
        for character, rest in characters:
            if rest.smallest <= rest.high:
                yield character, rest

    def _after(self, digit: int) -> _Rest:
        digits = self.digits - 1
        skipped = digit * 10**digits
        return self._replace(
            digits=digits,
            low=max(self.low - skipped, 0),
            high=min(self.high - skipped, 10**digits - 1),
            residue=(self.residue - skipped) % self.modulus,
            open=self.pointed and digit == 0,
        )


class NumberGrammar:
    """Writes number grids as Lark expressions, and collects the terminals these refer to."""

    def __init__(self) -> None:
        self.terminals: dict[str, str] = {}
        """Expressions by name."""
        self._names: dict[_Rest, str] = {}

    def grid(self, grid: DecimalGrid | LogGrid) -> str:
        """Return a Lark expression for exactly the texts of a grid that is not empty."""
        return f"/{log_regex(grid)}/" if isinstance(grid, LogGrid) else self._decimal(grid)

    def _decimal(self, grid: DecimalGrid) -> str:
        n = range(grid.first, grid.first + grid.step * grid.count, grid.step)
        step = grid.step
        if grid.decimals < 0:
            scale = 10**-grid.decimals
            n, step = range(n.start * scale, n.stop * scale, step * scale), step * scale
        places = max(grid.decimals, 0)
        negative = n[: len(range(n.start, min(n.stop, 0), step))]
        alternatives = []
        for sign, part in (("-", negative[::-1]), ("", n[len(negative) :])):
            if part:
                alternatives += self._signed(sign, abs(part[0]), abs(part[-1]), step, places)
        return " | ".join(alternatives)

    def _signed(self, sign: str, low: int, high: int, step: int, places: int) -> list[str]:
        rests = list(_by_length(low, high, step, places))
        if step == 1 or (high - low) // step < FEW:
            return [f"/{sign}{_group([_regex(rest) for rest in rests])}/"]
        return [f'"{sign}" {self._terminal(rest)}'.removeprefix('"" ') for rest in rests]

    def _terminal(self, rest: _Rest) -> str:
        """Return the name of the terminal for these texts, which is added where it is new."""
        if rest not in self._names:
            name = self._names[rest] = f"N{len(self._names)}"
            following: dict[str, str] = {}
            for character, after in rest.moves():
                tail = self._terminal(after) if any(after.moves()) else ""
                following[tail] = following.get(tail, "") + character
            parts = [
                f"/{_class(characters)}/ {tail}".rstrip() for tail, characters in following.items()
            ]
            self.terminals[name] = f"({' | '.join(parts)})?" if rest.ends else " | ".join(parts)
        return self._names[rest]


def log_regex(grid: LogGrid) -> str:
    """Return a regular expression for exactly the texts of a grid of three digits."""
    (first, low), (last, high) = divmod(grid.first, 900), divmod(grid.first + grid.count - 1, 900)
    if first == last:
        return f"{_mantissas(low, high)}e{first}"
    parts = []
    if low > 0:
        parts.append(f"{_mantissas(low, 899)}e{first}")
        first += 1
    if high < 899:
        parts.append(f"{_mantissas(0, high)}e{last}")
        last -= 1
    if first <= last:
        parts.append(f"{_mantissas(0, 899)}e{_exponents(first, last)}")
    return "|".join(parts)


def _mantissas(low: int, high: int) -> str:
    return _unsigned(low + 100, high + 100, 2)


def _exponents(first: int, last: int) -> str:
    parts = []
    if first < 0:
        parts.append("-" + _unsigned(max(-last, 1), -first, 0))
    if last >= 0:
        parts.append(_unsigned(max(first, 0), last, 0))
    return _group(parts)


def _unsigned(low: int, high: int, places: int) -> str:
    return _group([_regex(rest) for rest in _by_length(low, high, 1, places)])


def _by_length(low: int, high: int, step: int, places: int) -> Iterator[_Rest]:
    """Split a range of n >= 0 by the number of digits, since there are no leading zeros."""
    for digits in range(places + 1, max(len(str(high)), places + 1) + 1):
        start = 10 ** (digits - 1) if digits > places + 1 else 0
        rest = _Rest(digits, max(low, start), min(high, 10**digits - 1), step, low % step, places)
        if rest.smallest <= rest.high:
            yield rest


def _regex(rest: _Rest) -> str:
    """Return a regular expression for these texts, of a grid without step."""
    if rest.is_unrestricted:
        return _full_regex(rest)
    following: dict[str, str] = {}
    for character, after in rest.moves():
        tail = _regex(after)
        following[tail] = following.get(tail, "") + character
    parts = [_class(characters) + tail for tail, characters in following.items()]
    return _optional(parts) if rest.ends else _group(parts)


def _full_regex(rest: _Rest) -> str:
    if rest.digits > rest.places:
        count = rest.digits - rest.places
        digits = "[0-9]" if count == 1 else f"[0-9]{{{count}}}"
        return digits + _full_regex(rest._replace(digits=rest.places))
    if not rest.digits:
        return ""
    fraction = {1: "", 2: "[0-9]?"}.get(rest.digits, f"[0-9]{{0,{rest.digits - 1}}}") + "[1-9]"
    if not rest.pointed:
        return rf"(\.{fraction})?"
    return fraction if rest.open else _optional([fraction])


def _class(characters: str) -> str:
    """Return the shortest character class for some digits, or for the point."""
    if characters == ".":
        return r"\."
    if len(characters) == 1:
        return characters
    consecutive = int(characters[-1]) - int(characters[0]) == len(characters) - 1
    if consecutive and len(characters) > 2:
        return f"[{characters[0]}-{characters[-1]}]"
    return f"[{characters}]"


def _optional(parts: list[str]) -> str:
    if not parts:
        return ""
    single = len(parts) == 1 and (len(parts[0]) == 1 or re.fullmatch(r"\[[^]]*\]", parts[0]))
    return f"{parts[0]}?" if single else f"({'|'.join(parts)})?"


def _group(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({'|'.join(parts)})"
