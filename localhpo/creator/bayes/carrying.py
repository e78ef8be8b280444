"""Points of one space as points of another: what is called alike has the nearest value there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from localhpo.creator.bayes.gp import Array
from localhpo.experience.recall import moved
from localhpo.experience.similarity import partners
from localhpo.space import Categorical, Parameter, Space
from localhpo.task import Task
from localhpo.trial import Value

_GRID = np.linspace(0.0, 1.0, 101)
"""Of a range; between these its values are interpolated."""


class Carrier:
    """Brings encoded points of a task's space into the space of another task.

    What the task fixes has its value there. What it does not know has the value that `usual` has,
    else the middle of its range.
    """

    def __init__(self, task: Task, other: Task, usual: Mapping[str, Value]) -> None:
        self._space, self._other = task.space, other.space
        names = partners(other.names, task.names)
        held = {name: task.fixed[own] for name, own in names.items() if own in task.fixed}
        self._tables: dict[int, tuple[int, Array]] = {}
        point = []
        for place, parameter in enumerate(other.space.parameters):
            own = names.get(parameter.name)
            if own is not None and own in task.space:
                table = _table(task.space[own], parameter)
                if table is not None:
                    self._tables[place] = task.space.names.index(own), table
            value = held.get(parameter.name, usual.get(parameter.name, parameter.center))
            near = moved(parameter, value)
            point.append(_columns(parameter, parameter.center if near is None else near[0]))
        self._point = np.concatenate(point)

    def __call__(self, x: Array) -> Array:
        """Return (m, columns there) for (m, columns here) points."""
        out = np.tile(self._point, (len(x), 1))
        for place, (own, table) in self._tables.items():
            columns = x[:, self._space.slices[own]]
            out[:, self._other.slices[place]] = (
                columns @ table if columns.shape[1] > 1 else _look_up(table, columns[:, 0])
            )
        return _without_inactive(self._other, out)


def _table(own: Parameter, other: Parameter) -> Array | None:
    """Return the columns of `other` by category, or on the grid, of `own`.

    None where a value of the one has no place in the other.
    """
    values: Sequence[Value] = (
        own.values if isinstance(own, Categorical) else [own.from_unit(u) for u in _GRID]
    )
    near = [moved(other, value) for value in values]
    if any(one is None for one in near):
        return None
    return np.array([_columns(other, one[0]) for one in near if one is not None])


def _columns(parameter: Parameter, value: Value) -> Array:
    """Return what a value is in the columns of its parameter."""
    if isinstance(parameter, Categorical):
        return np.asarray(np.eye(len(parameter.values))[parameter.index(value)])
    return np.array([parameter.to_unit(value)])


def _look_up(table: Array, units: Array) -> Array:
    return np.array([np.interp(units, _GRID, column) for column in table.T]).T


def _without_inactive(space: Space, x: Array) -> Array:
    """Put what is inactive where `Space.encode` has it."""
    for parameter, columns in zip(space.parameters, space.slices, strict=True):
        for name, values in parameter.when.items():
            parent, place = space[name], space.slices[space.names.index(name)]
            if isinstance(parent, Categorical):
                chosen = x[:, place][:, [parent.index(value) for value in values]]
                inactive = chosen.sum(axis=1) < 0.5
                x[inactive, columns] = 0.0 if isinstance(parameter, Categorical) else 0.5
    return x
