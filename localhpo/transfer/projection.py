"""Projects a configuration of one task onto the space of another.

Every value is put on the new grid:

- a number outside the new bounds is clipped to the nearer bound; a category that the new task
  lacks has no nearest one, so the configuration is not projected at all;
- a hyperparameter that the other task fixed has the value that it had there;
- a hyperparameter that the other task did not have takes its default, or the center;
- a hyperparameter that is fixed here, and was tuned there, is dropped; the nearer the other
  value was to the fixed one, the better.

The share of what survived unchanged tells how much the projected configuration still says.
"""

from __future__ import annotations

import statistics
from typing import NamedTuple

from localhpo.errors import ConfigurationError
from localhpo.space import Categorical, Float, Int, Parameter
from localhpo.task import Task
from localhpo.transfer.names import match_parameters
from localhpo.transfer.similarity import normalized_text, numeric_bounds
from localhpo.trial import Config, Value


class Projection(NamedTuple):
    """A configuration of another task in the space of this one."""

    config: Config
    """Canonical and complete."""
    transferred: Config
    """The part that comes from the other task; the rest is default."""
    share: float
    """0 to 1: how much of what could be chosen, here or there, survived unchanged."""


def project_config(task: Task, source: Task, config: Config) -> Projection | None:
    """Return a configuration of `source` in the space of `task`; None where it has no place."""
    space, names = task.space, match_parameters(task.names, source.names)
    values = {**source.fixed, **config}
    given: dict[str, Value] = {}
    unchanged: set[str] = set()
    for parameter in space:
        value = values.get(names.get(parameter.name, ""))
        if value is None:
            continue
        projected = project_value(parameter, value)
        if projected is None:
            return None
        given[parameter.name], same = projected
        if same:
            unchanged.add(parameter.name)
    complete = space.build(lambda _, parameter: given.get(parameter.name, parameter.start))
    chosen = [name for name in complete if space[name].cardinality > 1]
    kept = [float(name in unchanged) for name in chosen]
    kept += [
        _closeness(source.space[names[name]], config[names[name]], value)
        for name, value in task.fixed.items()
        if names.get(name) in config
    ]
    return Projection(
        config=complete,
        transferred={name: value for name, value in complete.items() if name in given},
        share=statistics.fmean(kept) if kept else 1.0,
    )


def project_value(parameter: Parameter, value: Value) -> tuple[Value, bool] | None:
    """Return the nearest canonical value and whether it is the same; None where there is none."""
    if isinstance(parameter, Float | Int):
        return _clip(parameter, value)
    equal = [one for one in parameter.values if normalized_text(one) == normalized_text(value)]
    if equal:  # `a` and `A` may both be there
        return max(equal, key=lambda one: (one == value, type(one) is type(value))), True
    if isinstance(parameter, Categorical) or not _is_number(value):
        return None
    if numeric_bounds(parameter) is None:
        return None
    return min(parameter.values, key=lambda one: abs(float(one) - float(value))), False


def _closeness(parameter: Parameter, value: Value, fixed: Value) -> float:
    """Return how close a tuned value was to a fixed one, or to its nearest: 1 equal, 0 far."""
    projected = project_value(parameter, fixed)
    if projected is None or (isinstance(parameter, Categorical) and projected[0] != value):
        return 0.0
    return 1.0 - abs(parameter.to_unit(projected[0]) - parameter.to_unit(value))


def _clip(parameter: Float | Int, value: Value) -> tuple[Value, bool] | None:
    if not _is_number(value):
        return None
    number = float(value)
    clipped = min(max(number, parameter.low), parameter.high)
    try:
        on_grid = parameter.canonical(round(clipped) if isinstance(parameter, Int) else clipped)
    except ConfigurationError:
        return None
    return on_grid, clipped == number


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
