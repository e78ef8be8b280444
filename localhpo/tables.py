"""Checks tables of TOML; what is invalid raises a `TaskError` that names its place."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from localhpo.errors import TaskError, did_you_mean


def table_of(
    table: Mapping[str, Any], key: str, where: str, *, required: bool = False
) -> Mapping[str, Any]:
    """Return the table below `key`; an empty one where it may be left out."""
    section = table.get(key, {})
    if not isinstance(section, Mapping):
        raise TaskError(f"{where} {key}: must be a table, [{key}]; got {section!r}")
    if required and not section:
        raise TaskError(f"{where}: must have a table [{key}] that is not empty")
    return section


def tables_of(table: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    """Return the list of tables below `key`; an empty one where it may be left out."""
    rows = table.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise TaskError(f"{where} {key}: must be a list of tables, [[{key}]]; got {rows!r}")
    return rows


def refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuse a key that is not known."""
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known) or f"known: {', '.join(known)}"
            raise TaskError(f"{where}: unknown key {key!r}", hint=hint)


def value_of(value: Any, hint: Any, where: str) -> Any:
    """Return `value` if it has the type `hint`, or refuse it; an int may stand for a float."""
    options = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise TaskError(
            f"{where}: must be one of {', '.join(map(repr, get_args(hint)))}; got {value!r}",
            hint=did_you_mean(str(value), get_args(hint)),
        )
    if get_origin(hint) is tuple:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
        hint = f"write {json.dumps(value.split())}" if isinstance(value, str) else None
        raise TaskError(f"{where}: must be a list of strings; got {value!r}", hint=hint)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if float in options and number and math.isfinite(value):
        return float(value)
    for option, word in ((bool, "true or false"), (int, "a whole number"), (str, "a string")):
        if option in options:
            if isinstance(value, option) and (option is bool or not isinstance(value, bool)):
                return value
            raise TaskError(f"{where}: must be {word}; got {value!r}")
    raise TaskError(f"{where}: must be a finite number; got {value!r}")


def scalar_of(value: Any, where: str) -> bool | int | float | str:
    """Return `value` if it can be that of a hyperparameter, or refuse it."""
    if not isinstance(value, int | str) and not (isinstance(value, float) and math.isfinite(value)):
        raise TaskError(f"{where}: must be a finite number, a text, true or false; got {value!r}")
    scalar: bool | int | float | str = value
    return scalar
