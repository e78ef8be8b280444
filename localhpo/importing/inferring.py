"""Distributions and conditions, read off values where nobody stated them.

The ranges are those of the values seen: what was never tried is not in the space. So the space
is good for looking back, and a study that goes on should have a task file.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from localhpo.errors import SpaceError
from localhpo.space import Categorical, Float, Int, Ordinal, Parameter, Space, Value
from localhpo.space.values import identity

LOG_FROM = 100.0
"""Largest over smallest value, both positive, from which a range may be searched by orders."""

LEAST_LISTED = 3
"""Whole numbers, each a multiple of the one before (16, 32, 64), that are taken for a list."""

_MOST_CHOICES = 64
"""Distinct texts of one hyperparameter: more are names or remarks, not choices."""

_Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Inferred:
    """What the values of some rows tell."""

    space: Space
    """Holds the rows."""
    fixed: Mapping[str, Value]
    """What has the same value in all of them."""
    notes: tuple[str, ...]
    """How it was read."""


def infer(rows: _Rows) -> Inferred:
    """Return a space that holds the rows, and what is fixed beside it.

    Raises:
        SpaceError: no column varies, so there is nothing to tune.
    """
    parameters: list[Parameter] = []
    fixed: dict[str, Value] = {}
    notes: list[str] = []
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        if len({identity(value) for value in values}) < 2:
            if len(values) == len(rows):
                fixed[name] = values[0]
            else:
                notes.append(f"{name} is left out: it is {values[0]!r} wherever it is given")
        elif (parameter := _parameter(name, values)) is None:
            notes.append(f"{name} is left out: more than {_MOST_CHOICES} texts are no choices")
        else:
            parameters.append(parameter)
    if not parameters:
        raise nothing_varies()
    notes += _manners(parameters)
    return Inferred(Space(with_conditions(parameters, rows)), fixed, tuple(notes))


def nothing_varies() -> SpaceError:
    """Return what to raise where every hyperparameter has one value."""
    return SpaceError(
        "a hyperparameter must have at least two values to be tuned; none here has",
        hint="give the space with --task task.toml",
    )


def _parameter(name: str, values: Sequence[Any]) -> Parameter | None:
    """Return the narrowest parameter that holds the values; None where they are no choices."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        if all(float(value).is_integer() for value in values):
            return _whole(name, [int(value) for value in values])
        return Float(name, float(min(values)), float(max(values)), log=by_orders(values))
    alike = len({type(value) for value in values}) == 1
    texts = dict.fromkeys(value if alike else str(value) for value in values)
    return Categorical(name, tuple(texts)) if len(texts) <= _MOST_CHOICES else None


def _whole(name: str, values: Sequence[int]) -> Ordinal | Int:
    seen = sorted(set(values))
    multiples = seen[0] > 0 and all(larger % smaller == 0 for smaller, larger in pairwise(seen))
    if multiples and len(seen) >= LEAST_LISTED:
        return Ordinal(name, tuple(seen))
    return Int(name, seen[0], seen[-1], log=by_orders(values))


def by_orders(values: Sequence[float]) -> bool:
    """Return whether values span orders of magnitude, and are spread over them.

    They are where draws by orders, of density 1 / (x ln(high / low)), make them likelier than
    even draws, of density 1 / (high - low). Few values speak for orders: evenly drawn, they
    rarely span two.
    """
    low, high = min(values), max(values)
    if low <= 0 or high / low < LOG_FROM:
        return False
    return statistics.geometric_mean(values) < (high - low) / math.log(high / low)


def _manners(parameters: Sequence[Parameter]) -> list[str]:
    """Return what was taken for what, in words."""
    orders = [p.name for p in parameters if isinstance(p, Float | Int) and p.log]
    lists = [p.name for p in parameters if isinstance(p, Ordinal)]
    said = ["ranges are those of the values seen"]
    if orders:
        said.append(f"values spread over orders of magnitude make a log range: {', '.join(orders)}")
    if lists:
        said.append(f"values that are multiples of each other make a list: {', '.join(lists)}")
    return said


def with_conditions(parameters: Sequence[Parameter], rows: _Rows) -> list[Parameter]:
    """Return the parameters, with a condition where values of another one explain the gaps.

    A hyperparameter that some rows lack depends on a categorical one that all rows have when no
    value of that goes with rows of both kinds.
    """
    always = [
        p for p in parameters if isinstance(p, Categorical) and all(p.name in row for row in rows)
    ]
    return [
        p
        if all(p.name in row for row in rows)
        else next((made for parent in always if (made := _given(p, parent, rows))), p)
        for p in parameters
    ]


def _given(child: Parameter, parent: Categorical, rows: _Rows) -> Parameter | None:
    """Return the child under a condition on the parent; None where that explains nothing."""
    having = {row[parent.name] for row in rows if child.name in row}
    lacking = {row[parent.name] for row in rows if child.name not in row}
    if having & lacking:
        return None
    return replace(child, when={parent.name: tuple(v for v in parent.values if v in having)})
