"""Parameters that list their values: ordinal and categorical."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from localhpo.space.base import BaseParameter, When
from localhpo.space.values import (
    Identity,
    Value,
    as_float,
    identity_of,
    is_encodable,
    show_value,
    spell_value,
    unbox_numpy,
)


@dataclass(frozen=True)
class _Choice(BaseParameter):
    """One of the values of a list."""

    name: str
    values: tuple[Value, ...]
    default: Value | None = None
    help: str = ""
    when: When = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        self.check_common()
        object.__setattr__(self, "values", self._checked_values())
        self.check_default()

    def _checked_values(self) -> tuple[Value, ...]:
        if not isinstance(self.values, list | tuple) or not self.values:
            raise self.error(
                f"values must be a list of at least one value, got {show_value(self.values)}"
            )
        seen: dict[Value, Value] = {}
        for value in map(self._checked_value, self.values):
            if value in seen:
                # In Python True == 1 and False == 0: dicts would mix them up.
                mixed = isinstance(value, bool) is not isinstance(seen[value], bool)
                raise self.error(
                    f"values must differ, got {show_value(seen[value])} and {show_value(value)}",
                    hint="use only booleans, or only numbers" if mixed else None,
                )
            seen[value] = value
        return tuple(seen.values())

    def _checked_value(self, value: object) -> Value:
        value = unbox_numpy(value)
        if not isinstance(value, bool | int | float | str):
            raise self.error(
                f"values must be strings, numbers or booleans, got {show_value(value)}",
                hint='write a missing value as a string, such as "none"',
            )
        if isinstance(value, str):
            if "\0" in value or not is_encodable(value):
                raise self.error(f"values must be valid Unicode without NUL, got {value!a}")
        elif as_float(value) is None and not isinstance(value, bool):
            raise self.error(f"values must fit into a float, got {show_value(value)}")
        elif not math.isfinite(value):
            raise self.error(f"values must be finite, got {value}")
        elif isinstance(value, float):
            return value + 0.0  # no negative zero
        return value

    @cached_property
    def _indices(self) -> dict[Identity, int]:
        return {identity_of(value): index for index, value in enumerate(self.values)}

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        return tuple(spell_value(value) for value in self.values)

    @property
    def domain(self) -> str:
        """The values it can take, in words."""
        return "one of " + ", ".join(self._texts)

    @property
    def cardinality(self) -> int:
        """Number of values."""
        return len(self.values)

    def at(self, index: int) -> Value:
        """Return the value at an index."""
        return self.values[index]

    def index(self, value: object) -> int:
        """Return the index of a value.

        Raises:
            ConfigurationError: it is not in the list.
        """
        try:
            return self._indices[identity_of(unbox_numpy(value))]
        except (KeyError, TypeError):
            raise self.refusal(value) from None

    def canonical(self, value: object) -> Value:
        """Return a value as it is listed: 1 for 1.0, but not for True."""
        return self.values[self.index(value)]

    def spell(self, value: Value) -> str:
        """Return the JSON spelling of a value."""
        return self._texts[self.index(value)]

    def to_unit(self, value: Value) -> float:
        """Return the position of a value in [0, 1], by its index."""
        last = len(self.values) - 1
        return self.index(value) / last if last else 0.5

    def from_unit(self, unit: float) -> Value:
        """Return the value nearest to a position in [0, 1]."""
        return self.values[round(min(max(unit, 0.0), 1.0) * (len(self.values) - 1))]


@dataclass(frozen=True)
class Ordinal(_Choice):
    """One of a list of ordered values, such as batch sizes."""

    kind: ClassVar[str] = "ordinal"

    @property
    def center(self) -> Value:
        """The value in the middle; the lower one of two."""
        return self.values[(len(self.values) - 1) // 2]


@dataclass(frozen=True)
class Categorical(_Choice):
    """One of a list of values without order."""

    kind: ClassVar[str] = "categorical"

    @property
    def center(self) -> Value:
        """The first value, since there is no middle."""
        return self.values[0]
