"""Rounds values to a coarse grid, so that a small model can learn to answer with them."""

from __future__ import annotations

import math

import numpy as np

from localhpo.space import Float, Int, Space
from localhpo.trial import Config, Value

_MANTISSAS = np.array([1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0])


def quantize_config(space: Space, config: Config) -> dict[str, Value]:
    """Return the configuration with each number rounded to about twenty values of its range.

    A good value is not known more exactly than that, and short answers are cheap to learn and to
    generate.
    """
    out = dict(config)
    for name, value in config.items():
        parameter = space[name]
        if not isinstance(parameter, Float | Int) or isinstance(value, bool | str):
            continue
        if parameter.log or (isinstance(parameter, Int) and value >= 100):
            rounded = _round_log(float(value))
        elif isinstance(parameter, Int) and value <= 10:
            continue
        else:
            step = _step_size((parameter.high - parameter.low) / 25)
            step = max(1.0, step) if isinstance(parameter, Int) else step
            rounded = round(round(float(value) / step) * step, 12)
        if parameter.low <= rounded <= parameter.high:
            out[name] = round(rounded) if isinstance(parameter, Int) else rounded
    return space.canonical(out)


def _step_size(least: float) -> float:
    """Return the smallest step of ..., 0.5, 1, 2, 5, 10, ... that is at least `least`."""
    decade = 10.0 ** math.floor(math.log10(least))
    return next(m * decade for m in (1.0, 2.0, 5.0, 10.0) if m * decade >= least * 0.999)


def _round_log(value: float) -> float:
    """Return the nearest of the eleven round numbers of its decade."""
    if value <= 0:
        return value
    decade = 10.0 ** math.floor(math.log10(value))
    nearest = _MANTISSAS[np.abs(np.log(_MANTISSAS * decade / value)).argmin()]
    return float(f"{nearest * decade:.3g}")
