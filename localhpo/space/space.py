"""The search space: the set of configurations, and the canonical form of each.

A canonical configuration holds the active parameters only, in the order of the space, each
value on its grid. Two configurations are the same exactly when their texts are.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from localhpo.errors import ConfigurationError, SpaceError
from localhpo.space import table
from localhpo.space.base import EXPLAINING
from localhpo.space.conditions import Branch, Conditions, RuledOut, nearest_or_all, order_parameters
from localhpo.space.parameters import Categorical, Parameter
from localhpo.space.values import Value, identity_of, show_value, spell_value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

GRID_VERSION = 1
"""Part of the signature; increased when the grid or the spelling of values changes."""


class Space:
    """An ordered set of parameters, some of them active under a condition only.

    `parameters` keeps the order of declaration, except that parents come before the
    parameters whose condition names them.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        """Check that the parameters fit together.

        Raises:
            SpaceError: there is no parameter, a name is declared twice, or a condition cannot hold.
        """
        self.parameters: tuple[Parameter, ...] = order_parameters(list(parameters))
        if not self.parameters:
            raise SpaceError("a space must have at least one parameter")
        self.names: tuple[str, ...] = tuple(p.name for p in self.parameters)
        self._position = {name: index for index, name in enumerate(self.names)}
        self._conditions = Conditions(self.parameters)

    @classmethod
    def from_table(cls, source: Mapping[str, Any], where: str = "[space]") -> Space:
        """Read the `[space]` table of a task file.

        Args:
            source: a table per parameter, by name.
            where: what errors call the table, e.g. `task.toml [space]`.

        Raises:
            SpaceError: the table cannot be used; says where, what must hold and what came.
        """
        parameters = table.parse_parameters(source, where)
        try:
            return cls(parameters)
        except SpaceError as exc:
            raise SpaceError(f"{where} {exc}", hint=exc.hint) from None

    def to_table(self) -> dict[str, dict[str, Any]]:
        """Return the table that `from_table` reads as this space."""
        return table.build_table(self.parameters)

    def __getitem__(self, name: str) -> Parameter:
        return self.parameters[self._position[name]]

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __contains__(self, name: object) -> bool:
        return name in self._position

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self._written == other._written

    def __hash__(self) -> int:
        return hash(self._written)

    @cached_property
    def _written(self) -> str:
        """The table as text, in which 1 differs from True and the order of parameters counts."""
        return json.dumps(list(self.to_table().items()))

    def __repr__(self) -> str:
        return f"Space({list(self.parameters)!r})"

    @cached_property
    def conditional(self) -> bool:
        """Whether any parameter has a condition."""
        return any(parameter.when for parameter in self.parameters)

    @cached_property
    def has_defaults(self) -> bool:
        """Whether any parameter has a default, or a value that the user expects."""
        return any(p.default is not None or p.is_informed for p in self.parameters)

    @property
    def cardinality(self) -> int:
        """Number of distinct configurations."""
        return self._conditions.cardinality

    def branches(self, position: int, out: RuledOut) -> tuple[Branch, ...]:
        """Return the branches of the walk at a parameter (see `conditions`)."""
        return self._conditions.branches(position, out)

    def is_active(self, name: str, config: Mapping[str, Value]) -> bool:
        """Return whether a parameter is active under the values of its parents."""
        for parent, values in self[name].when.items():
            if parent not in config or not self.is_active(parent, config):
                return False
            if identity_of(config[parent]) not in map(identity_of, values):
                return False
        return True

    def canonical(self, config: Mapping[str, Value]) -> dict[str, Value]:
        """Return a configuration in its canonical form.

        Raises:
            ConfigurationError: an unknown or inactive key, a missing one, or a value that is
                not in the domain of its parameter.
        """
        if not config.keys() <= self._position.keys():
            self._refuse_unknown(config)
        result = self.build(lambda _, parameter: parameter.canonical(_given(parameter, config)))
        if len(result) < len(config):
            self._refuse_inactive(result, config)
        return result

    def build(self, value_of: Callable[[int, Parameter], Value]) -> dict[str, Value]:
        """Return the configuration made of a value per active parameter.

        Args:
            value_of: returns the canonical value of the parameter at a position; called for
                the active ones in order, each when the values of its parents are known.
        """
        result: dict[str, Value] = {}
        out: set[int] = set()
        for position, parameter in enumerate(self.parameters):
            if position in out:
                out.update(self._conditions.children(position))
            else:
                value = result[parameter.name] = value_of(position, parameter)
                out.update(self._conditions.ruled_out(position, value))
        return result

    def _refuse_unknown(self, config: Mapping[str, Value]) -> None:
        name = next(name for name in config if name not in self)
        raise ConfigurationError(
            f"{show_value(name)} is not a parameter of the space",
            hint=nearest_or_all(str(name), self.names),
        )

    def _refuse_inactive(self, active: Mapping[str, Value], config: Mapping[str, Value]) -> None:
        name = next(name for name in config if name not in active)
        raise ConfigurationError(
            f"{name} is given, but it is active only when {self.condition_text(name)}",
            hint=f"leave {name} out",
        )

    def condition_text(self, name: str) -> str:
        """Return the condition of a parameter in words; empty where it has none."""
        return " and ".join(
            f"{parent} is {' or '.join(self[parent].text(value) for value in values)}"
            for parent, values in self[name].when.items()
        )

    def validate(self, config: Mapping[str, Value]) -> None:
        """Check that a configuration is canonical.

        Raises:
            ConfigurationError: it is not; says what its canonical form would be.
        """
        canonical = self.canonical(config)
        if list(canonical) != list(config):
            raise ConfigurationError(
                f"the keys must be in the order {', '.join(canonical)}, got {', '.join(config)}"
            )
        for name, value in canonical.items():
            if identity_of(config[name]) != identity_of(value) or type(config[name]) is not type(
                value
            ):
                raise ConfigurationError(
                    f"{name} must be on its grid: {value!r} instead of {config[name]!r}"
                )

    def text(self, config: Mapping[str, Value]) -> str:
        """Return the canonical JSON of a configuration, without white space."""
        fields = (
            f"{key}:{self[name].spell(value)}"
            for (name, value) in self.canonical(config).items()
            for key in (self._keys[name],)
        )
        return "{" + ",".join(fields) + "}"

    @cached_property
    def _keys(self) -> dict[str, str]:
        return {name: spell_value(name) for name in self.names}

    def key(self, config: Mapping[str, Value]) -> str:
        """Return a hash of the canonical form: equal for equal configurations only."""
        return hashlib.sha256(self.text(config).encode()).hexdigest()

    def sample(self, rng: np.random.Generator) -> dict[str, Value]:
        """Draw a canonical configuration.

        Takes one number from `rng` per parameter, whichever are active.
        """
        uniform = rng.random(len(self.parameters)).tolist()
        return self.build(lambda position, parameter: parameter.draw(uniform[position]))

    def default(self) -> dict[str, Value]:
        """Return the configuration of the defaults; the center where there is none.

        Categories have no middle. The first parameter of a list of categories takes the first of
        them, the next one with the same list the second, and so on: where several choices are the
        same, all of them at the first value would be a corner of the space.
        """
        return self.build(self._start)

    def _start(self, position: int, parameter: Parameter) -> Value:
        is_open = parameter.default is None and not parameter.is_informed
        if is_open and isinstance(parameter, Categorical):
            return parameter.values[self._earlier_twins[position] % len(parameter.values)]
        return parameter.start

    @cached_property
    def _earlier_twins(self) -> tuple[int, ...]:
        """For each parameter, the number of earlier ones with the same categories."""
        counts: Counter[tuple[Value, ...]] = Counter()
        found = []
        for parameter in self.parameters:
            values: tuple[Value, ...] = ()
            if isinstance(parameter, Categorical) and parameter.default is None:
                values = parameter.values
            found.append(counts[values])
            counts[values] += 1
        return tuple(found)

    def configurations(self) -> Iterator[dict[str, Value]]:
        """Yield every canonical configuration once, the last parameter changing fastest."""
        indices: dict[int, int] | None = {}
        while indices is not None:
            chosen: dict[int, int] = {}
            yield self.build(partial(_value_at, indices, chosen))
            indices = self._following(chosen)

    def _following(self, indices: dict[int, int]) -> dict[int, int] | None:
        """Return the indices up to the first that differs in the next configuration, or None."""
        while indices:
            position, index = indices.popitem()
            if index + 1 < self.parameters[position].cardinality:
                return {**indices, position: index + 1}
        return None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the coordinates: one per parameter, but one per category as `name=value`."""
        names: list[str] = []
        for parameter in self.parameters:
            if isinstance(parameter, Categorical):
                names += [f"{parameter.name}={parameter.text(value)}" for value in parameter.values]
            else:
                names.append(parameter.name)
        return tuple(names)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """The columns of each parameter."""
        result: list[slice] = []
        start = 0
        for parameter in self.parameters:
            width = len(parameter.values) if isinstance(parameter, Categorical) else 1
            result.append(slice(start, start + width))
            start += width
        return tuple(result)

    def encode(self, config: Mapping[str, Value]) -> NDArray[np.float64]:
        """Return a canonical configuration as a point of the unit cube, shape (columns,).

        An inactive parameter is at 0.5, an inactive category 0 in all its columns.
        """
        import numpy as np  # here: a task is read where nothing else needs it

        point = [0.5] * len(self.columns)
        for parameter, columns in zip(self.parameters, self.slices, strict=True):
            value = config.get(parameter.name)
            if isinstance(parameter, Categorical):
                point[columns] = [0.0] * len(parameter.values)
                if value is not None:
                    point[columns.start + parameter.index(value)] = 1.0
            elif value is not None:
                point[columns.start] = parameter.to_unit(value)
        return np.array(point)

    def decode(self, vector: ArrayLike) -> dict[str, Value]:
        """Return the configuration nearest to a point of the unit cube.

        Raises:
            ConfigurationError: the vector has another shape, or is not finite.
        """
        import numpy as np

        point = np.asarray(vector, dtype=float)
        if point.shape != (len(self.columns),) or not np.isfinite(point).all():
            raise ConfigurationError(
                f"a point must have {len(self.columns)} finite coordinates, got {vector!r}"
            )
        coordinates: list[float] = point.tolist()

        def value(position: int, parameter: Parameter) -> Value:
            columns = self.slices[position]
            if isinstance(parameter, Categorical):
                weights = coordinates[columns]
                return parameter.at(weights.index(max(weights)))
            return parameter.from_unit(coordinates[columns.start])

        return self.build(value)

    def distance(self, a: Mapping[str, Value], b: Mapping[str, Value]) -> float:
        """Return how far apart two canonical configurations are, in [0, 1].

        The mean over the parameters that are active in either: the distance in the unit
        interval; 0 or 1 for a category; 1 where only one of the two has the parameter.
        """
        union = [
            parameter for parameter in self.parameters if parameter.name in a or parameter.name in b
        ]
        return sum(_parameter_distance(p, a.get(p.name), b.get(p.name)) for p in union) / len(union)

    def signature(self) -> str:
        """Return a hash of everything that changes what a configuration means."""
        rows = {
            name: {key: value for key, value in row.items() if key not in EXPLAINING}
            for name, row in self.to_table().items()
        }
        text = json.dumps([GRID_VERSION, list(rows.items())], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _value_at(
    indices: Mapping[int, int], chosen: dict[int, int], position: int, parameter: Parameter
) -> Value:
    """Return the value at the index for a position, else the first; store the index."""
    chosen[position] = indices.get(position, 0)
    return parameter.at(chosen[position])


def _given(parameter: Parameter, config: Mapping[str, Value]) -> Value:
    try:
        return config[parameter.name]
    except KeyError:
        raise ConfigurationError(
            f"{parameter.name} is missing: it must be {parameter.domain}"
        ) from None


def _parameter_distance(parameter: Parameter, a: Value | None, b: Value | None) -> float:
    if a is None or b is None:
        return 1.0
    if isinstance(parameter, Categorical):
        return float(parameter.index(a) != parameter.index(b))
    return abs(parameter.to_unit(a) - parameter.to_unit(b))
