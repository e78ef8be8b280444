"""Maps points of one space to points of another, by parameters of the same name.

A value takes the nearest value of the other parameter; values outside its range are clipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from localhpo.creator.bo.gp import Array
from localhpo.space import Categorical, Parameter, Space
from localhpo.task import Task
from localhpo.transfer.projection import project_value
from localhpo.transfer.similarity import match_parameters
from localhpo.trial import Value

_GRID = np.linspace(0.0, 1.0, 101)
"""Points of a range at which the mapping is tabulated; between them it is interpolated."""


class SpaceMapping:
    """Maps encoded points of a task's space to the space of another task.

    A parameter of the other space that the task fixes has its fixed value. One that the task does
    not have, and one whose values cannot be mapped, has the value that `usual` has, else the
    middle of its range.

    Args:
        task: the task whose points are mapped.
        other: the task to whose space they are mapped.
        usual: a good configuration of the other task.
    """

    def __init__(self, task: Task, other: Task, usual: Mapping[str, Value]) -> None:
        self._space, self._other = task.space, other.space
        own_names = match_parameters(other.names, task.names)
        fixed = {name: task.fixed[own] for name, own in own_names.items() if own in task.fixed}
        # Index of a parameter there -> index of its parameter here, and its table.
        self._tables: dict[int, tuple[int, Array]] = {}
        columns = []
        for index, parameter in enumerate(other.space.parameters):
            own = own_names.get(parameter.name)
            if own is not None and own in task.space:
                table = _tabulate(task.space[own], parameter)
                if table is not None:
                    self._tables[index] = task.space.names.index(own), table
            value = fixed.get(parameter.name, usual.get(parameter.name, parameter.center))
            near = project_value(parameter, value)
            columns.append(_encode(parameter, parameter.center if near is None else near[0]))
        self._constant = np.concatenate(columns)

    def __call__(self, x: Array) -> Array:
        """Return (m, d there) for (m, d here) points."""
        out = np.tile(self._constant, (len(x), 1))
        for index, (own_index, table) in self._tables.items():
            own = x[:, self._space.slices[own_index]]
            out[:, self._other.slices[index]] = (
                own @ table if own.shape[1] > 1 else _interpolate(table, own[:, 0])
            )
        return _reset_inactive(self._other, out)


def _tabulate(own: Parameter, other: Parameter) -> Array | None:
    """Return the columns of `other` for each category of `own`, or on the grid of its range.

    None where a value of `own` has no place in `other`.
    """
    values: Sequence[Value] = (
        own.values if isinstance(own, Categorical) else [own.from_unit(u) for u in _GRID]
    )
    projected = [project_value(other, value) for value in values]
    if any(one is None for one in projected):
        return None
    return np.array([_encode(other, one[0]) for one in projected if one is not None])


def _encode(parameter: Parameter, value: Value) -> Array:
    """Return the columns of a value."""
    if isinstance(parameter, Categorical):
        return np.asarray(np.eye(len(parameter.values))[parameter.index(value)])
    return np.array([parameter.to_unit(value)])


def _interpolate(table: Array, units: Array) -> Array:
    return np.array([np.interp(units, _GRID, column) for column in table.T]).T


def _reset_inactive(space: Space, x: Array) -> Array:
    """Put inactive parameters where `Space.encode` puts them: the middle, or no category."""
    for parameter, columns in zip(space.parameters, space.slices, strict=True):
        for name, values in parameter.when.items():
            parent, parent_columns = space[name], space.slices[space.names.index(name)]
            if isinstance(parent, Categorical):
                chosen = x[:, parent_columns][:, [parent.index(value) for value in values]]
                inactive = chosen.sum(axis=1) < 0.5
                x[inactive, columns] = 0.0 if isinstance(parameter, Categorical) else 0.5
    return x
