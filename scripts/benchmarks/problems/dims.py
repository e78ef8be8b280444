"""A dimension of the full search space of a published table or surrogate.

Its range is wider than in a user's space, which takes a part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localhpo.space import Categorical, Float, Int, Parameter
from localhpo.trial import Value

Array = NDArray[Any]


@dataclass(frozen=True)
class Dim:
    """One dimension of a full search space."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    integer: bool = False
    values: tuple[str, ...] = ()
    """Choices; a dimension with choices has no range."""
    when: tuple[str, tuple[str, ...]] | None = None
    """Name of the parent and its values under which this one is active."""

    def draw(self, rng: np.random.Generator) -> float | int | str:
        """Return a random value; half of those of a range that starts at 0 are small."""
        if self.values:
            return str(rng.choice(self.values))
        if self.log:
            value = float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        else:
            share = rng.uniform()
            if self.low == 0.0 and self.high > 1.0 and rng.uniform() < 0.5:
                share = share**3
            value = self.low + share * (self.high - self.low)
        return round(value) if self.integer else value

    def parameter(self, when: Mapping[str, tuple[Value, ...]]) -> Parameter:
        """Return the dimension as a parameter, under a condition of a space."""
        if self.values:
            return Categorical(self.name, values=self.values, when=when)
        if self.integer:
            return Int(self.name, low=int(self.low), high=int(self.high), log=self.log, when=when)
        # The files have bounds like e^-7 in all digits, which no user would write.
        low, high = (float(f"{bound:.4g}") for bound in (self.low, self.high))
        return Float(self.name, low=low, high=high, log=self.log, when=when)
