"""The four kinds of hyperparameters, each with its grid, its spelling and its unit interval.

What a parameter promises, for every `value` that it accepts:

- `canonical(value)` is on the grid and within the bounds, and is its own canonical value;
- `text(value)` is JSON, and the only spelling of `canonical(value)`;
- `from_unit(to_unit(v)) == v` for canonical `v`, and `from_unit` of any number in [0, 1] is
  canonical.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

from localhpo.errors import ConfigurationError, SpaceError
from localhpo.space.grid import (
    DecimalGrid,
    LogGrid,
    linear_grid,
    log_grid,
    plain,
    scientific,
    shortest,
    step_grid,
)

Value: TypeAlias = bool | int | float | str
When: TypeAlias = Mapping[str, tuple[Value, ...]]

LARGEST_INT = 10**12
"""Bound of an int parameter: beyond it the unit interval cannot tell neighbours apart."""

LARGEST_FLOAT = 1e300
"""Bound of a float parameter; 1 / LARGEST_FLOAT is the smallest that is not zero."""


class _Parameter:
    """What the four kinds share."""

    kind: ClassVar[str]
    name: str
    default: Value | None
    help: str
    when: When

    def _check_common(self) -> None:
        _check_name(self.name)
        if not isinstance(self.help, str):
            raise self._error(f"help must be a string, got {self.help!r}")
        object.__setattr__(self, "when", self._checked_when())

    def _checked_when(self) -> When:
        if not isinstance(self.when, Mapping):
            raise self._error(
                f"when must map a parameter to a list of its values, got {self.when!r}",
                hint='for instance when = { booster = ["dart"] }',
            )
        checked = {}
        for parent, values in self.when.items():
            if not isinstance(values, list | tuple) or not values:
                raise self._error(
                    f"when.{parent} must be a list of at least one value, got {values!r}",
                    hint=f"for instance when = {{ {parent} = [{_toml(values)}] }}",
                )
            checked[parent] = tuple(values)
        return checked

    def _check_default(self) -> None:
        if self.default is None:
            return
        try:
            self.canonical(self.default)
        except ConfigurationError as exc:
            message = str(exc).removeprefix(f"{self.name} ")
            raise self._error(f"default {message}") from None

    def _error(self, message: str, hint: str | None = None) -> SpaceError:
        return SpaceError(f"{self.name}: {message}", hint=hint)

    def _refusal(self, value: object) -> ConfigurationError:
        return ConfigurationError(f"{self.name} must be {self.domain}, got {shown(value)}")

    @property
    def domain(self) -> str:
        """The values it can take, in words: `a number from 1e-4 to 1e-1`."""
        raise NotImplementedError

    @property
    def cardinality(self) -> int:
        """Points of the grid."""
        raise NotImplementedError

    def canonical(self, value: object) -> Value:
        """Return the value on the grid.

        Raises:
            ConfigurationError: the value is of another type, or not in the domain.
        """
        raise NotImplementedError

    def text(self, value: object) -> str:
        """Return the one JSON spelling of a value."""
        return self.spell(self.canonical(value))

    def spell(self, value: Value) -> str:
        """Return the JSON spelling of a value that is canonical already."""
        raise NotImplementedError

    def at(self, index: int) -> Value:
        """Return the point of the grid at an index, from 0, in ascending or declared order."""
        raise NotImplementedError

    def to_unit(self, value: Value) -> float:
        """Return the place of a canonical value in [0, 1]; the only value is at 0.5."""
        raise NotImplementedError

    def from_unit(self, unit: float) -> Value:
        """Return the canonical value nearest to a place in [0, 1]."""
        raise NotImplementedError

    def draw(self, uniform: float) -> Value:
        """Turn a number drawn uniformly from [0, 1) into a value drawn from the domain.

        Unlike `from_unit` it gives each point of a discrete grid its full share.
        """
        return self.at(int(uniform * self.cardinality))

    @property
    def centre(self) -> Value:
        """The middle of the range: geometric with `log`."""
        return self.from_unit(0.5)


@dataclass(frozen=True)
class Float(_Parameter):
    """A real number between two bounds, both included."""

    kind: ClassVar[str] = "float"

    name: str
    low: float
    high: float
    log: bool = False
    """Search by orders of magnitude; values have three significant digits."""
    step: float | None = None
    """Only low, low + step, ... up to `high`."""
    default: float | None = None
    help: str = ""
    when: When = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        self._check_common()
        for key in ("low", "high"):
            object.__setattr__(self, key, self._checked_number(key))
        _check_range(self)
        if self.step is not None:
            object.__setattr__(self, "step", self._checked_number("step"))
            _check_step(self)
            _ = self.grid
        self._check_default()

    def _checked_number(self, key: str) -> float:
        value = unboxed(getattr(self, key))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._error(f"{key} must be a number, got {shown(value)}")
        if not math.isfinite(value):
            raise self._error(f"{key} must be finite, got {value}")
        if value != 0 and not 1 / LARGEST_FLOAT <= abs(value) <= LARGEST_FLOAT:
            raise self._error(
                f"{key} must be zero or between 1e-300 and 1e300 in size, got {value!r}",
                hint="choose a larger or smaller unit",
            )
        return float(value) + 0.0  # no negative zero

    @cached_property
    def grid(self) -> DecimalGrid | LogGrid:
        """The points, but for the bounds off the grid (`loose`)."""
        if self.log:
            return log_grid(self.low, self.high)
        if self.step is None:
            return linear_grid(self.low, self.high)
        try:
            return step_grid(self.low, self.high, self.step)
        except ValueError as exc:
            raise self._error(str(exc), hint="round low and step to fewer digits") from None

    @cached_property
    def loose(self) -> tuple[float, ...]:
        """The bounds that are off the grid, and allowed as themselves."""
        if self.step is not None:
            return ()
        count = self.grid.count
        on_grid = {self.grid.value(0), self.grid.value(count - 1)} if count else set()
        return tuple(sorted({self.low, self.high} - on_grid))

    @cached_property
    def top(self) -> float:
        """The largest value: `high`, or with a step the last multiple below it."""
        return self.high if self.step is None else self.grid.value(self.grid.count - 1)

    @cached_property
    def _line(self) -> tuple[float, float]:
        """Start and length of the line that the unit interval is mapped to."""
        if self.log:
            return math.log(self.low), math.log(self.top) - math.log(self.low)
        return self.low, self.top - self.low

    @property
    def domain(self) -> str:
        """The values it can take, in words."""
        step = "" if self.step is None else f" in steps of {plain(self.step)}"
        return f"a number from {self.spell(self.low)} to {self.spell(self.top)}{step}"

    @property
    def cardinality(self) -> int:
        """Points of the grid."""
        return self.grid.count + len(self.loose)

    def canonical(self, value: object) -> float:
        """Return the value on the grid."""
        if type(value) is not float:
            value = unboxed(value)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self._refusal(value)
        if not self.low <= value <= self.high:
            raise self._refusal(value)
        return float(value) + 0.0 if value in (self.low, self.top) else self._rounded(float(value))

    def _rounded(self, value: float) -> float:
        grid = self.grid
        if isinstance(grid, LogGrid):
            value = float(f"{value:.2e}")
        elif self.step is None:
            value = round(value, grid.decimals) + 0.0
        else:
            index = round((value - self.low) / self.step)
            value = grid.value(min(max(index, 0), grid.count - 1))
        return min(max(value, self.low), self.top)

    def spell(self, value: Value) -> str:
        """Return the JSON spelling of a canonical value."""
        return scientific(float(value)) if self.log else plain(float(value))

    def at(self, index: int) -> float:
        """Return the point of the grid at an index, in ascending order."""
        if self.loose and index == 0 and self.loose[0] == self.low:
            return self.low
        index -= bool(self.loose) and self.loose[0] == self.low
        return self.grid.value(index) if index < self.grid.count else self.high

    def to_unit(self, value: Value) -> float:
        """Return the place of a canonical value in [0, 1]."""
        value = float(value)
        if self.low == self.top:
            return 0.5
        if value <= self.low:
            return 0.0
        if value >= self.top:
            return 1.0
        start, length = self._line
        unit = ((math.log(value) if self.log else value) - start) / (length or 1.0)
        # What is not a bound is never at 0 or 1, however near: `from_unit` must find it again.
        return min(max(unit, _ABOVE_0), _BELOW_1)

    def from_unit(self, unit: float) -> float:
        """Return the canonical value nearest to a place in [0, 1]."""
        if unit <= 0.0:
            return self.low
        if unit >= 1.0:
            return self.top
        start, length = self._line
        place = start + unit * length
        return self._rounded(math.exp(place) if self.log else place)

    def draw(self, uniform: float) -> float:
        """Turn a number drawn uniformly from [0, 1) into a value drawn from the domain."""
        return (
            self.from_unit(uniform) if self.step is None else float(_Parameter.draw(self, uniform))
        )


@dataclass(frozen=True)
class Int(_Parameter):
    """A whole number between two bounds, both included."""

    kind: ClassVar[str] = "int"

    name: str
    low: int
    high: int
    log: bool = False
    """Search by orders of magnitude."""
    step: int | None = None
    """Only low, low + step, ... up to `high`; None is 1."""
    default: int | None = None
    help: str = ""
    when: When = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        self._check_common()
        for key in ("low", "high"):
            object.__setattr__(self, key, self._checked_number(key))
        _check_range(self)
        if self.step is not None:
            object.__setattr__(self, "step", self._checked_number("step"))
            _check_step(self)
        self._check_default()

    def _checked_number(self, key: str) -> int:
        number = whole(getattr(self, key))
        if number is None:
            raise self._error(
                f"{key} must be a whole number, got {shown(getattr(self, key))}",
                hint='a parameter with fractions is of type "float"',
            )
        if abs(number) > LARGEST_INT:
            raise self._error(f"{key} must be at most 10^12 in size, got {number}")
        return number

    @cached_property
    def grid(self) -> DecimalGrid:
        """The points."""
        step = self.step or 1
        return DecimalGrid(self.low, step, (self.high - self.low) // step + 1, decimals=0)

    @cached_property
    def top(self) -> int:
        """The largest value: `high`, or with a step the last multiple below it."""
        return self.at(self.grid.count - 1)

    @property
    def domain(self) -> str:
        """The values it can take, in words."""
        step = f" in steps of {self.step}" if self.grid.step > 1 else ""
        return f"a whole number from {self.low} to {self.top}{step}"

    @property
    def cardinality(self) -> int:
        """Points of the grid."""
        return self.grid.count

    def canonical(self, value: object) -> int:
        """Return the value on the grid."""
        number = value if type(value) is int else whole(value)
        if number is None or not self.low <= number <= self.high:
            raise self._refusal(value)
        return self.at(self._nearest_index(number))

    def _nearest_index(self, number: float) -> int:
        grid = self.grid
        index = number - self.low if grid.step == 1 else (number - self.low) / grid.step
        return min(max(round(index), 0), grid.count - 1)

    def spell(self, value: Value) -> str:
        """Return the JSON spelling of a canonical value."""
        return str(value)

    def at(self, index: int) -> int:
        """Return the point of the grid at an index."""
        return self.grid.first + index * self.grid.step

    def index(self, value: object) -> int:
        """Return the index of a value that is on the grid.

        Raises:
            ConfigurationError: it is not.
        """
        number = self.canonical(value)
        if number != value:
            raise self._refusal(value)
        return (number - self.low) // self.grid.step

    def to_unit(self, value: Value) -> float:
        """Return the place of a canonical value in [0, 1]."""
        value = float(value)
        if self.low == self.top:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.top / self.low)
        return (value - self.low) / (self.top - self.low)

    def from_unit(self, unit: float) -> int:
        """Return the canonical value nearest to a place in [0, 1]."""
        unit = min(max(unit, 0.0), 1.0)
        if self.log:
            place = self.low * (self.top / self.low) ** unit
        else:
            place = self.low + unit * (self.top - self.low)
        return self.at(self._nearest_index(place))

    def draw(self, uniform: float) -> int:
        """Turn a number drawn uniformly from [0, 1) into a value drawn from the domain."""
        if not self.log:
            return self.at(int(uniform * self.grid.count))
        # Each number has the share of [n - 0.5, n + 0.5] on the logarithmic line.
        low, high = self.low - 0.5, self.high + 0.5
        return self.at(self._nearest_index(low * (high / low) ** uniform))


class _Choice(_Parameter):
    """A parameter that lists its values."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        self._check_common()
        object.__setattr__(self, "values", self._checked_values())
        self._check_default()

    def _checked_values(self) -> tuple[Value, ...]:
        if not isinstance(self.values, list | tuple) or not self.values:
            raise self._error(f"values must be a list of at least one value, got {self.values!r}")
        values = tuple(self._checked_value(value) for value in self.values)
        seen: dict[Value, Value] = {}
        for value in values:
            if value in seen:
                raise self._error(
                    f"values must differ, got {shown(seen[value])} and {shown(value)}",
                    hint=""
                    if isinstance(value, bool) == isinstance(seen[value], bool)
                    else "a boolean equals 0 or 1 in Python: use only booleans or only numbers",
                )
            seen[value] = value
        return values

    def _checked_value(self, value: object) -> Value:
        value = unboxed(value)
        if isinstance(value, str):
            if "\0" in value or not encodable(value):
                raise self._error(f"values must be text, got {value!r}")
            return value
        if not isinstance(value, bool | int | float):
            raise self._error(
                f"values must be strings, numbers or booleans, got {value!r}",
                hint='spell the absence of a value as a string such as "none"',
            )
        if not math.isfinite(value):
            raise self._error(f"values must be finite, got {value}")
        return value if value != 0 or isinstance(value, bool) else type(value)(0)

    @cached_property
    def _indices(self) -> dict[tuple[bool, Value], int]:
        return {identity(value): index for index, value in enumerate(self.values)}

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        return tuple(spelled(value) for value in self.values)

    @property
    def domain(self) -> str:
        """The values it can take, in words."""
        return "one of " + ", ".join(self._texts)

    @property
    def cardinality(self) -> int:
        """Number of values."""
        return len(self.values)

    def index(self, value: object) -> int:
        """Return the place of a value in the list.

        Raises:
            ConfigurationError: it is not in the list.
        """
        try:
            return self._indices[identity(unboxed(value))]
        except (KeyError, TypeError):
            raise self._refusal(value) from None

    def canonical(self, value: object) -> Value:
        """Return the value as it is listed."""
        return self.values[self.index(value)]

    def spell(self, value: Value) -> str:
        """Return the JSON spelling of a canonical value."""
        return self._texts[self.index(value)]

    def at(self, index: int) -> Value:
        """Return the value at an index."""
        return self.values[index]

    def to_unit(self, value: Value) -> float:
        """Return the place of a value in [0, 1], by index."""
        last = len(self.values) - 1
        return self.index(value) / last if last else 0.5

    def from_unit(self, unit: float) -> Value:
        """Return the value nearest to a place in [0, 1]."""
        return self.values[round(min(max(unit, 0.0), 1.0) * (len(self.values) - 1))]


@dataclass(frozen=True)
class Ordinal(_Choice):
    """One of a list of values, in an order that means something."""

    kind: ClassVar[str] = "ordinal"

    name: str
    values: tuple[Value, ...]
    default: Value | None = None
    help: str = ""
    when: When = field(default_factory=dict, hash=False)

    @property
    def centre(self) -> Value:
        """The value in the middle; of two, the former."""
        return self.values[(len(self.values) - 1) // 2]


@dataclass(frozen=True)
class Categorical(_Choice):
    """One of a list of values without order."""

    kind: ClassVar[str] = "categorical"

    name: str
    values: tuple[Value, ...]
    default: Value | None = None
    help: str = ""
    when: When = field(default_factory=dict, hash=False)

    @property
    def centre(self) -> Value:
        """The first value: a category has no middle."""
        return self.values[0]


Parameter: TypeAlias = Float | Int | Ordinal | Categorical

_ABOVE_0 = math.nextafter(0.0, 1.0)
_BELOW_1 = math.nextafter(1.0, 0.0)


def identity(value: Any) -> tuple[bool, Any]:
    """Return a key under which 1 and 1.0 are the same value, and True is another."""
    return isinstance(value, bool), value


def unboxed(value: object) -> object:
    """Return the Python value of a NumPy scalar; anything else as it is."""
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        return value.item()
    return value


def whole(value: object) -> int | None:
    """Return the integer that a number is; None for a fraction, a boolean or no number."""
    value = unboxed(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def spelled(value: Value) -> str:
    """Return the one JSON spelling of a value in a list."""
    if isinstance(value, float):
        return shortest(value)
    return json.dumps(value, ensure_ascii=False)


def shown(value: object) -> str:
    """Return a value as an error message shows it: as JSON where it can be, not too long."""
    text = spelled(value) if isinstance(value, bool | int | str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def encodable(text: str) -> bool:
    """Return whether a string can be written as UTF-8 (no lone surrogates)."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise SpaceError(f"the name of a parameter must be a non-empty string, got {name!r}")
    if any(char in "{}" or ord(char) < 32 or ord(char) == 127 for char in name) or not encodable(
        name
    ):
        raise SpaceError(
            f"{name!r}: the name of a parameter must hold no control characters and no braces",
            hint="it becomes the option --name of the script",
        )


def _check_range(parameter: Float | Int) -> None:
    low, high = parameter.low, parameter.high
    if not isinstance(parameter.log, bool):
        raise parameter._error(f"log must be true or false, got {shown(parameter.log)}")
    if low > high:
        raise parameter._error(
            f"low must not be above high, got low = {low!r} and high = {high!r}",
            hint="exchange the two",
        )
    if parameter.log and low <= 0:
        raise parameter._error(
            f"low must be above 0 where log = true, got {low!r}",
            hint="raise low, or drop log",
        )


def _check_step(parameter: Float | Int) -> None:
    step = parameter.step
    assert step is not None
    if parameter.log:
        raise parameter._error("step and log exclude each other", hint="drop one of them")
    if step <= 0:
        raise parameter._error(f"step must be above 0, got {step!r}")
    if step > parameter.high - parameter.low > 0:
        raise parameter._error(
            f"step must not be larger than high - low, got {step!r}",
            hint="make step smaller, or high equal to low",
        )


def _toml(value: object) -> str:
    return shown(value) if isinstance(value, bool | int | float | str) else "..."
