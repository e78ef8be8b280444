"""Infers a space from values, where neither a task nor the file states one.

The ranges are those of the values seen: what was never tried is not in the space. That suffices to
learn from past trials; a study that continues should have a task file.
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
from localhpo.space.values import identity_of

MIN_LOG_RATIO = 100.0
"""Largest over smallest value, both positive, from which a range may be logarithmic."""

MIN_ORDINAL_VALUES = 3
"""Integers, each a multiple of the one before (16, 32, 64), from which they become an ordinal."""

_MAX_CHOICES = 64
"""Distinct texts of one hyperparameter: more are names or remarks, not choices."""

_Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class InferredSpace:
    """A space inferred from the values of some trials."""

    space: Space
    """Contains all of the trials."""
    fixed: Mapping[str, Value]
    """Hyperparameters with the same value in all of them."""
    notes: tuple[str, ...]
    """How it was inferred."""


def infer_space(rows: _Rows) -> InferredSpace:
    """Return a space that contains the rows, and the hyperparameters that never vary.

    Raises:
        SpaceError: no column varies, so there is nothing to tune.
    """
    parameters: list[Parameter] = []
    fixed: dict[str, Value] = {}
    notes: list[str] = []
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        if len({identity_of(value) for value in values}) < 2:
            if len(values) == len(rows):
                fixed[name] = values[0]
            else:
                notes.append(f"{name} is ignored: it is {values[0]!r} wherever it is given")
        elif (parameter := _parameter(name, values)) is None:
            notes.append(f"{name} is ignored: it has more than {_MAX_CHOICES} different texts")
        else:
            parameters.append(parameter)
    if not parameters:
        raise nothing_varies()
    notes += _explain(parameters)
    return InferredSpace(Space(with_conditions(parameters, rows)), fixed, tuple(notes))


def nothing_varies() -> SpaceError:
    """Return the error for trials whose hyperparameters all have one value."""
    return SpaceError(
        "a hyperparameter must have at least two values to be tuned; none here has",
        hint="give the space with --task task.toml",
    )


def _parameter(name: str, values: Sequence[Any]) -> Parameter | None:
    """Return the narrowest parameter that contains the values; None for too many texts."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        if all(float(value).is_integer() for value in values):
            return _integer_parameter(name, [int(value) for value in values])
        return Float(name, float(min(values)), float(max(values)), log=is_log_scaled(values))
    alike = len({type(value) for value in values}) == 1
    texts = dict.fromkeys(value if alike else str(value) for value in values)
    return Categorical(name, tuple(texts)) if len(texts) <= _MAX_CHOICES else None


def _integer_parameter(name: str, values: Sequence[int]) -> Ordinal | Int:
    seen = sorted(set(values))
    multiples = seen[0] > 0 and all(larger % smaller == 0 for smaller, larger in pairwise(seen))
    if multiples and len(seen) >= MIN_ORDINAL_VALUES:
        return Ordinal(name, tuple(seen))
    return Int(name, seen[0], seen[-1], log=is_log_scaled(values))


def is_log_scaled(values: Sequence[float]) -> bool:
    """Return whether values look as if drawn from a logarithmic range.

    They do where the log-uniform density, 1 / (x ln(high / low)), makes them likelier than the
    uniform one, 1 / (high - low). Few values suffice: uniform draws rarely span two orders of
    magnitude.
    """
    low, high = min(values), max(values)
    if low <= 0 or high / low < MIN_LOG_RATIO:
        return False
    return statistics.geometric_mean(values) < (high - low) / math.log(high / low)


def _explain(parameters: Sequence[Parameter]) -> list[str]:
    """Return in words how the parameters were inferred."""
    log = [p.name for p in parameters if isinstance(p, Float | Int) and p.log]
    ordinal = [p.name for p in parameters if isinstance(p, Ordinal)]
    notes = ["ranges are those of the values in the file"]
    if log:
        notes.append(f"logarithmic, by their values: {', '.join(log)}")
    if ordinal:
        notes.append(
            f"ordinal, since each value is a multiple of the one before: {', '.join(ordinal)}"
        )
    return notes


def with_conditions(parameters: Sequence[Parameter], rows: _Rows) -> list[Parameter]:
    """Return the parameters, with a condition where another one explains missing values.

    A hyperparameter that some rows lack depends on a categorical one that all rows have, if each
    value of that one occurs only in rows with it or only in rows without it.
    """
    always = [
        p for p in parameters if isinstance(p, Categorical) and all(p.name in row for row in rows)
    ]
    return [
        p
        if all(p.name in row for row in rows)
        else next((made for parent in always if (made := _conditioned(p, parent, rows))), p)
        for p in parameters
    ]


def _conditioned(child: Parameter, parent: Categorical, rows: _Rows) -> Parameter | None:
    """Return the child with a condition on the parent; None where that explains nothing."""
    having = {row[parent.name] for row in rows if child.name in row}
    lacking = {row[parent.name] for row in rows if child.name not in row}
    if having & lacking:
        return None
    return replace(child, when={parent.name: tuple(v for v in parent.values if v in having)})
