"""The base class of the four kinds of parameters.

For every value that a parameter accepts:

- `canonical(value)` is on the grid and within the bounds, and `canonical` leaves it as it is;
- `text(value)` is JSON, and the only spelling of `canonical(value)`;
- `from_unit(to_unit(v)) == v` for canonical `v`, and `from_unit` of any number is canonical.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from localhpo.errors import ConfigurationError, SpaceError
from localhpo.space.grid import spell_scientific
from localhpo.space.values import Value, is_encodable, show_value

When: TypeAlias = Mapping[str, tuple[Value, ...]]
"""Parent -> its values under which a parameter is active."""

EXPLAINING = ("help", "default", "prior", "likely")
"""Keys of a parameter that change no configuration: they help to choose one."""

_LONG = 24
"""Characters of a number above which `brief_text` uses an exponent."""


@dataclass(frozen=True, slots=True)
class NumberPrior:
    """Where the user expects good values of a number: about `center`, within `spread`."""

    center: float
    spread: float
    """Standard deviation: a factor above 1 with `log`, else in the unit of the parameter."""


class BaseParameter(ABC):
    """A named set of values, in an order, mapped onto the unit interval."""

    kind: ClassVar[str]
    name: str
    default: Value | None
    """Value to start with; None where the task gives none."""
    help: str
    """What it does, in plain words, for the Creator."""
    when: When

    @property
    @abstractmethod
    def domain(self) -> str:
        """The values it can take, in words: `a number from 1e-4 to 1e-1`."""

    @property
    @abstractmethod
    def cardinality(self) -> int:
        """Number of values."""

    @property
    def center(self) -> Value:
        """The middle of the range: geometric with `log`."""
        return self.from_unit(0.5)

    @property
    @abstractmethod
    def expected(self) -> Value | None:
        """The value that the user expects to be best; None where nothing is expected."""

    @property
    def is_informed(self) -> bool:
        """Whether the user said which values are expected to be good."""
        return self.expected is not None

    @property
    def start(self) -> Value:
        """The default on the grid, else the expected value, else the center."""
        if self.default is not None:
            return self.canonical(self.default)
        return self.center if self.expected is None else self.expected

    @abstractmethod
    def at(self, index: int) -> Value:
        """Return the value at an index, from 0, in ascending or declared order."""

    @abstractmethod
    def canonical(self, value: object) -> Value:
        """Return the value rounded to the grid.

        Raises:
            ConfigurationError: the value is of another type, or not in the domain.
        """

    def text(self, value: object) -> str:
        """Return the JSON spelling of a value, after rounding it to the grid."""
        return self.spell(self.canonical(value))

    def brief_text(self, value: object) -> str:
        """Return the spelling for display: with an exponent where a number has many digits."""
        value = self.canonical(value)
        text = self.spell(value)
        is_long = isinstance(value, float) and len(text) > _LONG
        return spell_scientific(float(value)) if is_long else text

    @abstractmethod
    def spell(self, value: Value) -> str:
        """Return the JSON spelling of a value that is canonical already."""

    @abstractmethod
    def to_unit(self, value: Value) -> float:
        """Return the position of a canonical value in [0, 1]; 0.5 where it is the only one."""

    @abstractmethod
    def from_unit(self, unit: float) -> Value:
        """Return the canonical value nearest to a position in [0, 1]."""

    def draw(self, uniform: float) -> Value:
        """Turn a number drawn uniformly from [0, 1) into a value drawn from the domain.

        Unlike with `from_unit`, the first and the last value are as likely as the others.
        """
        return self.at(int(uniform * self.cardinality))

    def error(self, message: str, hint: str | None = None) -> SpaceError:
        """Return the error for a parameter whose fields are invalid."""
        return SpaceError(f"{self.name}: {message}", hint=hint)

    def refusal(self, value: object) -> ConfigurationError:
        """Return the error for a value that is not in the domain."""
        return ConfigurationError(f"{self.name} must be {self.domain}, got {show_value(value)}")

    def check_common(self) -> None:
        """Check the name, `help` and the form of `when`."""
        _check_name(self.name)
        if not isinstance(self.help, str):
            raise self.error(f"help must be a string, got {show_value(self.help)}")
        if not isinstance(self.when, Mapping):
            raise self.error(
                f"when must map each parent to a list of its values, got {show_value(self.when)}",
                hint='for instance when = { booster = ["dart"] }',
            )
        for parent, values in self.when.items():
            self._check_parent(parent, values)
        when = {parent: tuple(values) for parent, values in self.when.items()}
        object.__setattr__(self, "when", when)

    def _check_parent(self, parent: object, values: Any) -> None:
        if not isinstance(values, list | tuple) or not values:
            value = show_value(values) if isinstance(values, bool | int | float | str) else "..."
            raise self.error(
                f"when.{parent} must be a list of at least one value, got {show_value(values)}",
                hint=f"for instance when = {{ {parent} = [{value}] }}",
            )

    def check_default(self) -> None:
        """Check that the default is in the domain."""
        if self.default is None:
            return
        try:
            self.canonical(self.default)
        except ConfigurationError as exc:
            message = str(exc).removeprefix(f"{self.name} ")
            raise self.error(f"default {message}") from None


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise SpaceError(
            f"the name of a parameter must be a non-empty string, got {show_value(name)}"
        )
    allowed = is_encodable(name) and not any(
        char in "{}" or char < " " or "\x7f" <= char <= "\x9f" for char in name
    )
    if not allowed:
        raise SpaceError(
            f"{name!a}: the name of a parameter must not contain braces or control characters",
            hint="the name becomes the option --NAME of the script",
        )
