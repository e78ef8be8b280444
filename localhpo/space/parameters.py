"""The four kinds of hyperparameters: float, int, ordinal and categorical."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, TypeAlias

from localhpo.errors import ConfigurationError
from localhpo.space.base import BaseParameter, NumberPrior, When
from localhpo.space.grid import (
    DecimalGrid,
    LogGrid,
    linear_grid,
    log_grid,
    spell_plain,
    spell_scientific,
    step_grid,
)
from localhpo.space.values import (
    Identity,
    Value,
    as_float,
    as_int,
    identity_of,
    is_encodable,
    show_value,
    spell_value,
    unbox_numpy,
)

LARGEST_INT = 10**12
"""Largest bound of an int parameter: floats in [0, 1] cannot resolve much larger ranges."""

LARGEST_FLOAT = 1e300
"""Largest bound of a float parameter; its inverse is the smallest one above zero."""

_ABOVE_0 = math.nextafter(0.0, 1.0)
_BELOW_1 = math.nextafter(1.0, 0.0)

MAX_ENDINGS = 10_000
"""Most sets of last digits that a step may need; each is a terminal of the grammar."""


@dataclass(frozen=True)
class Float(BaseParameter):
    """A real number between two bounds, both included.

    With `log` the grid has the numbers of three significant digits, else the fewest decimals
    that divide the range into a thousand cells. A bound off the grid is a value too.
    """

    kind: ClassVar[str] = "float"

    name: str
    low: float
    high: float
    log: bool = False
    """Search by orders of magnitude."""
    step: float | None = None
    """Only low, low + step, and so on, up to `high`."""
    default: float | None = None
    prior: NumberPrior | None = None
    """Where good values are expected."""
    help: str = ""
    when: When = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        self.check_common()
        for key in ("low", "high", "step"):
            if key != "step" or self.step is not None:
                object.__setattr__(self, key, self._checked_number(key))
        _check_range(self)
        self.check_default()
        object.__setattr__(self, "prior", _checked_prior(self))

    def _checked_number(self, key: str) -> float:
        given = getattr(self, key)
        value = as_float(given)
        if value is None:
            raise self.error(f"{key} must be a number, got {show_value(given)}")
        if not math.isfinite(value):
            raise self.error(f"{key} must be finite, got {value}")
        if value != 0 and not 1 / LARGEST_FLOAT <= abs(value) <= LARGEST_FLOAT:
            raise self.error(
                f"{key} must be 0 or from 1e-300 to 1e300 in size, got {show_value(given)}",
                hint="choose another unit",
            )
        return value + 0.0  # no negative zero

    @cached_property
    def grid(self) -> DecimalGrid | LogGrid:
        """The values, except bounds that are off the grid."""
        if self.log:
            return log_grid(self.low, self.high)
        if self.step is not None:
            return step_grid(self.low, self.high, self.step)
        return linear_grid(self.low, self.high)

    @cached_property
    def off_grid_bounds(self) -> tuple[float, ...]:
        """The bounds that are off the grid, in ascending order."""
        if self.step is not None:
            return ()
        last = self.grid.count - 1
        on_grid = {self.grid.value(0), self.grid.value(last)} if last >= 0 else set()
        return tuple(sorted({self.low, self.high} - on_grid))

    @cached_property
    def top(self) -> float:
        """The largest value: `high`, or with a step the last multiple up to it."""
        return self.high if self.step is None else self.grid.value(self.grid.count - 1)

    @property
    def expected(self) -> float | None:
        """The center of the prior on the grid; None without one."""
        return None if self.prior is None else self.canonical(self.prior.center)

    @property
    def domain(self) -> str:
        """The values it can take, in words."""
        step = "" if self.step is None else f" in steps of {spell_plain(self.step)}"
        return f"a number from {self.spell(self.low)} to {self.spell(self.top)}{step}"

    @property
    def cardinality(self) -> int:
        """Number of values."""
        return self.grid.count + len(self.off_grid_bounds)

    def at(self, index: int) -> float:
        """Return the value at an index, in ascending order."""
        index -= self.low in self.off_grid_bounds
        if index < 0:
            return self.low
        return self.grid.value(index) if index < self.grid.count else self.high

    def canonical(self, value: object) -> float:
        """Return the number rounded to the grid."""
        number = value if type(value) is float else as_float(value)
        if number is None or not self.low <= number <= self.high:
            raise self.refusal(value)
        if number in (self.low, self.top):
            return number + 0.0
        return self._rounded(number)

    def _rounded(self, number: float) -> float:
        """Return the grid point nearest to a number, clipped to the bounds."""
        if self.log:
            number = float(f"{number:.2e}")
        elif self.step is None:
            number = round(number, self._decimals) + 0.0
        else:
            index = round((number - self.low) / self.step)
            number = self.grid.value(min(max(index, 0), self.grid.count - 1))
        return min(max(number, self.low), self.top)

    @cached_property
    def _decimals(self) -> int:
        return self.grid.decimals if isinstance(self.grid, DecimalGrid) else 0

    def spell(self, value: Value) -> str:
        """Return the JSON spelling of a canonical number."""
        return spell_scientific(float(value)) if self.log else spell_plain(float(value))

    def to_unit(self, value: Value) -> float:
        """Return the position of a canonical number in [0, 1]."""
        number = float(value)
        if self.low == self.top:
            return 0.5
        if number <= self.low:
            return 0.0
        if number >= self.top:
            return 1.0
        start, length = self._line
        unit = ((math.log(number) if self.log else number) - start) / length
        # Only the bounds are at 0 and 1, so that `from_unit` restores values very near to them.
        return min(max(unit, _ABOVE_0), _BELOW_1)

    def from_unit(self, unit: float) -> float:
        """Return the canonical number nearest to a position in [0, 1]."""
        if unit <= 0.0:
            return self.low
        if unit >= 1.0:
            return self.top
        start, length = self._line
        number = start + unit * length
        return self._rounded(math.exp(number) if self.log else number)

    @cached_property
    def _line(self) -> tuple[float, float]:
        """Start and length of the interval that [0, 1] is mapped to; of logarithms with `log`."""
        if not self.log:
            return self.low, self.top - self.low
        start = math.log(self.low)
        # The logarithms of two adjacent floats may be equal.
        return start, math.log(self.top) - start or 1.0

    def draw(self, uniform: float) -> float:
        """Turn a number drawn uniformly from [0, 1) into one drawn from the range."""
        if self.step is None:
            return self.from_unit(uniform)
        return self.at(int(uniform * self.grid.count))


@dataclass(frozen=True)
class Int(BaseParameter):
    """A whole number between two bounds, both included."""

    kind: ClassVar[str] = "int"

    name: str
    low: int
    high: int
    log: bool = False
    """Search by orders of magnitude."""
    step: int | None = None
    """Only low, low + step, and so on, up to `high`; None is 1."""
    default: int | None = None
    prior: NumberPrior | None = None
    """Where good values are expected."""
    help: str = ""
    when: When = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        self.check_common()
        for key in ("low", "high"):
            object.__setattr__(self, key, self._checked_number(key))
        if self.step is not None:
            step = self._checked_number("step")
            object.__setattr__(self, "step", None if step == 1 else step)
        _check_range(self)
        self.check_default()
        object.__setattr__(self, "prior", _checked_prior(self))

    def _checked_number(self, key: str) -> int:
        given = getattr(self, key)
        value = as_int(given)
        if value is None:
            raise self.error(
                f"{key} must be a whole number, got {show_value(given)}",
                hint='type = "float" takes fractions',
            )
        if abs(value) > LARGEST_INT:
            raise self.error(
                f"{key} must be at most 10^12 in size, got {show_value(value)}",
                hint="choose another unit",
            )
        return value

    @cached_property
    def grid(self) -> DecimalGrid:
        """The values."""
        step = self.step or 1
        return DecimalGrid(self.low, step, (self.high - self.low) // step + 1, decimals=0)

    @cached_property
    def top(self) -> int:
        """The largest value: `high`, or with a step the last multiple up to it."""
        return self.at(self.grid.count - 1)

    @property
    def expected(self) -> int | None:
        """The center of the prior on the grid; None without one."""
        return None if self.prior is None else self.canonical(round(self.prior.center))

    @property
    def domain(self) -> str:
        """The values it can take, in words."""
        step = "" if self.step is None else f" in steps of {self.step}"
        return f"a whole number from {self.low} to {self.top}{step}"

    @property
    def cardinality(self) -> int:
        """Number of values."""
        return self.grid.count

    def at(self, index: int) -> int:
        """Return the value at an index, in ascending order."""
        return self.grid.first + index * self.grid.step

    def index(self, value: object) -> int:
        """Return the index of a value that is on the grid.

        Raises:
            ConfigurationError: it is not.
        """
        number = self.canonical(value)
        if number != value:
            raise self.refusal(value)
        return (number - self.low) // self.grid.step

    def canonical(self, value: object) -> int:
        """Return the whole number rounded to the grid."""
        number = value if type(value) is int else as_int(value)
        if number is None or not self.low <= number <= self.high:
            raise self.refusal(value)
        return number if self.step is None else self._nearest(number)

    def _nearest(self, number: float) -> int:
        """Return the value nearest to a number."""
        index = round((number - self.low) / self.grid.step)
        return self.at(min(max(index, 0), self.grid.count - 1))

    def spell(self, value: Value) -> str:
        """Return the JSON spelling of a canonical number."""
        return str(value)

    def to_unit(self, value: Value) -> float:
        """Return the position of a canonical number in [0, 1]."""
        number = int(value)
        if self.low == self.top:
            return 0.5
        if self.log:
            return math.log(number / self.low) / math.log(self.top / self.low)
        return (number - self.low) / (self.top - self.low)

    def from_unit(self, unit: float) -> int:
        """Return the canonical number nearest to a position in [0, 1]."""
        unit = min(max(unit, 0.0), 1.0)
        if self.log:
            return self._nearest(self.low * (self.top / self.low) ** unit)
        return self._nearest(self.low + unit * (self.top - self.low))

    def draw(self, uniform: float) -> int:
        """Turn a number drawn uniformly from [0, 1) into one drawn from the range."""
        if not self.log:
            return self.at(int(uniform * self.grid.count))
        # Each n has the share of [n - 0.5, n + 0.5] on the logarithmic scale.
        low, high = self.low - 0.5, self.high + 0.5
        return self._nearest(low * (high / low) ** uniform)


def _checked_prior(parameter: Float | Int) -> NumberPrior | None:
    """Return the prior of a number, which may be given as a table."""
    given: object = parameter.prior
    if given is None or isinstance(given, NumberPrior):
        table: object = None if given is None else dataclasses.asdict(given)
    else:
        table = given
    if table is None:
        return None
    example = "prior = { center = 1e-3, spread = 3.0 }"
    if not isinstance(table, Mapping) or table.keys() != {"center", "spread"}:
        raise parameter.error("prior must have center and spread, and no more", hint=example)
    center, spread = as_float(table["center"]), as_float(table["spread"])
    if center is None or not parameter.low <= center <= parameter.high:
        raise parameter.error(
            f"prior center must be from {show_value(parameter.low)} to "
            f"{show_value(parameter.high)}, got {show_value(table['center'])}"
        )
    least = 1.0 if parameter.log else 0.0
    if spread is None or not math.isfinite(spread) or spread <= least:
        what = (
            "a factor above 1, as the parameter is on a log scale" if parameter.log else "above 0"
        )
        raise parameter.error(f"prior spread must be {what}, got {show_value(table['spread'])}")
    return NumberPrior(center, spread)


def _check_range(parameter: Float | Int) -> None:
    """Check that the fields of a numeric parameter agree with each other."""
    low, high = parameter.low, parameter.high
    if not isinstance(parameter.log, bool):
        raise parameter.error(f"log must be true or false, got {show_value(parameter.log)}")
    if low > high:
        raise parameter.error(
            f"low must not be above high, got low = {show_value(low)} "
            f"and high = {show_value(high)}",
            hint="exchange low and high",
        )
    if parameter.log and low <= 0:
        raise parameter.error(
            f"low must be above 0 where log = true, got {show_value(low)}",
            hint="raise low, or remove log",
        )
    if parameter.step is not None:
        _check_step(parameter, parameter.step)


def _check_step(parameter: Float | Int, step: float) -> None:
    if parameter.log:
        raise parameter.error("step and log exclude each other", hint="remove one of them")
    if step <= 0:
        raise parameter.error(f"step must be above 0, got {show_value(step)}")
    grid = parameter.grid
    if grid.count < 2 and parameter.low < parameter.high:
        raise parameter.error(
            f"step must not be larger than high - low, got {show_value(step)}",
            hint="make it smaller, or high equal to low",
        )
    if isinstance(grid, DecimalGrid) and not (grid.precise and grid.endings <= MAX_ENDINGS):
        raise parameter.error(
            f"low and step must be rounder numbers, got low = {show_value(parameter.low)} "
            f"and step = {show_value(step)}",
            hint="the grammar must list every value, with at most 15 digits",
        )


@dataclass(frozen=True)
class _Choice(BaseParameter):
    """One of the values of a list."""

    name: str
    values: tuple[Value, ...]
    default: Value | None = None
    likely: tuple[Value, ...] = ()
    """Values that are expected to be good."""
    help: str = ""
    when: When = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        self.check_common()
        object.__setattr__(self, "values", self._checked_values())
        self.check_default()
        object.__setattr__(self, "likely", self._checked_likely())

    def _checked_likely(self) -> tuple[Value, ...]:
        if not isinstance(self.likely, list | tuple):
            raise self.error(
                f"likely must be a list of values, got {show_value(self.likely)}",
                hint=f"likely = [{show_value(self.likely)}]",
            )
        try:
            return tuple(self.canonical(value) for value in self.likely)
        except ConfigurationError as error:
            message = str(error).removeprefix(f"{self.name} ")
            raise self.error(f"each value of likely {message}") from None

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
    def expected(self) -> Value | None:
        """The first likely value; None without one."""
        return self.likely[0] if self.likely else None

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


Parameter: TypeAlias = Float | Int | Ordinal | Categorical

Discrete: TypeAlias = Int | Ordinal | Categorical
"""A parameter on which others may depend."""
