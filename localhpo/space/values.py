"""Values of hyperparameters: their types, when two are the same, and their spelling."""

from __future__ import annotations

import json
import math
from typing import Any, TypeAlias

from localhpo.space.grid import spell_scientific, spell_shortest

Value: TypeAlias = bool | int | float | str
"""The value of one hyperparameter."""

Identity: TypeAlias = tuple[bool, Value]


def identity_of(value: Any) -> Identity:
    """Return a key under which 1 and 1.0 are the same value, but True is another."""
    return isinstance(value, bool), value


def unbox_numpy(value: object) -> object:
    """Return the Python value of a NumPy scalar; anything else as it is."""
    if type(value).__module__ == "numpy" and hasattr(value, "item") and hasattr(value, "size"):
        item: object = value.item() if value.size == 1 else value
        return item
    return value


def as_float(value: object) -> float | None:
    """Return a number as a float; None for a boolean, a huge int, or anything but a number."""
    value = unbox_numpy(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def as_int(value: object) -> int | None:
    """Return a number as an int; None for a fraction, a boolean, or anything but a number."""
    value = unbox_numpy(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def spell_value(value: Value) -> str:
    """Return the JSON spelling of a finite value in a list, or of a name."""
    if isinstance(value, float):
        return spell_shortest(value)
    return json.dumps(value, ensure_ascii=False)


def spell_briefly(value: Value) -> str:
    """Return a value in at most three significant digits, for display.

    A small number has an exponent, as in a log range: `3.1e-2`.
    """
    if isinstance(value, float):
        value = float(f"{value:.3g}")
        return spell_scientific(value) if 0 < abs(value) < 0.1 else spell_shortest(value)
    return spell_value(value)


def show_value(value: object) -> str:
    """Return a value for an error message: as JSON where possible, at most 80 characters."""
    value = unbox_numpy(value)
    if isinstance(value, str) and not is_encodable(value):
        text = ascii(value)
    elif isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        text = spell_value(value)
    else:
        text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_encodable(text: str) -> bool:
    """Return whether a string can be encoded as UTF-8, that is, has no lone surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)
