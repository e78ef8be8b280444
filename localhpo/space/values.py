"""What a value is: its types, when two are the same, and how it is spelled."""

from __future__ import annotations

import json
import math
from typing import Any, TypeAlias

from localhpo.space.grid import scientific, shortest

Value: TypeAlias = bool | int | float | str
"""The value of one hyperparameter."""

Identity: TypeAlias = tuple[bool, Value]


def identity(value: Any) -> Identity:
    """Return a key under which 1 and 1.0 are the same value, but True is another."""
    return isinstance(value, bool), value


def unboxed(value: object) -> object:
    """Return the Python value of a NumPy scalar; anything else as it is."""
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        item: object = value.item()
        return item
    return value


def as_float(value: object) -> float | None:
    """Return the float that a number is; None for a boolean, a huge int or no number."""
    value = unboxed(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def as_int(value: object) -> int | None:
    """Return the integer that a number is; None for a fraction, a boolean or no number."""
    value = unboxed(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def spelled(value: Value) -> str:
    """Return the one JSON spelling of a finite value in a list, or of a name."""
    if isinstance(value, float):
        return shortest(value)
    return json.dumps(value, ensure_ascii=False)


def brief(value: Value) -> str:
    """Return a value in at most three digits, for a reader who need not have them all.

    A small number is spelled as those of a log range are: `3.1e-2`.
    """
    if isinstance(value, float):
        value = float(f"{value:.3g}")
        return scientific(value) if 0 < abs(value) < 0.1 else shortest(value)
    return spelled(value)


def shown(value: object) -> str:
    """Return a value as an error message shows it: as JSON where that can be, not too long."""
    value = unboxed(value)
    if isinstance(value, str) and not encodable(value):
        text = ascii(value)
    elif isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        text = spelled(value)
    else:
        text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def encodable(text: str) -> bool:
    """Return whether a string can be written as UTF-8: it holds no lone surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)
