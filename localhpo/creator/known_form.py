"""A task in the form that a configuration model was trained on, and the way back.

Such a model knows hyperparameters by the names and kinds that it has seen: `learning_rate` as a
range on a log scale. The same thing as a list of ten numbers, or under another name, it has never
met, and answers at random or with the first value. So the model is asked about a task in which

- a list of at least three numbers is the range that they span, on a log scale where their ratios
  are more even than their differences;
- each hyperparameter has the name that the model knows for it, where it knows one: parameters that
  are one for each layer are asked for once, as one.

Its answers are put back: each number takes the nearest value of the list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np

from localhpo.space import Float, Int, Ordinal, Parameter, Space, Value
from localhpo.task import Task
from localhpo.transfer import find_known_name
from localhpo.trial import Config

_MIN_LIST = 3
"""Numbers that a list must have to be asked for as a range."""


class KnownForm:
    """A task as a model is asked about it.

    Attributes:
        task: the task to ask about.
        names: name of each hyperparameter there.
    """

    def __init__(self, task: Task, known: Collection[str]) -> None:
        """Rewrite a task.

        Args:
            task: a task of one objective.
            known: names of the hyperparameters that the model knows.
        """
        self._space = task.space
        self.names = _known_names(task.space, known)
        parents = {parent for parameter in task.space for parent in parameter.when}
        asked: dict[str, Parameter] = {}
        for parameter in task.space:
            rewritten = parameter if parameter.name in parents else _as_range(parameter)
            when = {self.names[parent]: values for parent, values in parameter.when.items()}
            name = self.names[parameter.name]
            asked.setdefault(name, dataclasses.replace(rewritten, name=name, when=when))
        space = Space(list(asked.values()))
        self.task = dataclasses.replace(task, space=space)

    def restore(self, config: Config) -> Config:
        """Return the configuration of the task itself that an answer stands for."""

        def value(_: int, parameter: Parameter) -> Value:
            name = self.names[parameter.name]
            if name not in config:  # of a layer whose condition differs from that of the first
                return parameter.start
            return _nearest(parameter, self.task.space[name], config[name])

        return self._space.build(value)


def _known_names(space: Space, known: Collection[str]) -> dict[str, str]:
    """Return the name under which each hyperparameter is asked for."""
    own = list(space.names)
    found = {name: find_known_name(name, known) or name for name in own}
    for asked in set(found.values()):
        alike = [name for name in own if found[name] == asked]
        if not _same_domain([space[name] for name in alike]):
            found.update({name: name for name in alike})
    return found


def _same_domain(parameters: Sequence[Parameter]) -> bool:
    """Return whether the parameters differ by name only."""
    first = dataclasses.replace(parameters[0], name="x", help="")
    return all(dataclasses.replace(one, name="x", help="") == first for one in parameters)


def _as_range(parameter: Parameter) -> Parameter:
    """Return a list of numbers as the range that it spans; any other parameter as it is."""
    if not isinstance(parameter, Ordinal) or len(parameter.values) < _MIN_LIST:
        return parameter
    values = [v for v in parameter.values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(values) < len(parameter.values) or sorted(values) != values:
        return parameter
    fields: Mapping[str, object] = {
        "name": parameter.name, "help": parameter.help, "when": parameter.when,
        "log": _is_geometric(values),
    }  # fmt: skip
    kind = Int if all(isinstance(value, int) for value in values) else Float
    return kind(low=values[0], high=values[-1], **fields)  # type: ignore[arg-type]


def _is_geometric(values: Sequence[float]) -> bool:
    """Return whether the ratios of neighbors are more even than their differences."""
    if values[0] <= 0.0:
        return False
    differences = np.array([b - a for a, b in pairwise(values)])
    ratios = np.log([b / a for a, b in pairwise(values)])
    return float(ratios.std() / ratios.mean()) < float(differences.std() / differences.mean())


def _nearest(parameter: Parameter, asked: Parameter, value: Value) -> Value:
    """Return the value of a parameter that is nearest to an answer."""
    if not isinstance(parameter, Ordinal) or isinstance(asked, Ordinal):
        return value
    target = asked.to_unit(value)
    return min(parameter.values, key=lambda one: abs(asked.to_unit(one) - target))
