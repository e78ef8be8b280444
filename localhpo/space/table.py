"""Converts the `[space]` table of a task file to parameters and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from localhpo.errors import SpaceError
from localhpo.space.base import NumberPrior
from localhpo.space.conditions import nearest_or_all
from localhpo.space.parameters import Categorical, Float, Int, Ordinal, Parameter
from localhpo.space.values import show_value

KINDS: Mapping[str, type[Parameter]] = {
    kind.kind: kind for kind in (Float, Int, Ordinal, Categorical)
}


def parse_parameters(source: Mapping[str, Any], where: str) -> list[Parameter]:
    """Return the parameters of a table, each checked by itself.

    Raises:
        SpaceError: names `where`, the parameter, what must hold and what came.
    """
    if not isinstance(source, Mapping):
        raise SpaceError(f"{where} must be a table of parameters, got {source!r}")
    return [_parameter(name, row, where) for name, row in source.items()]


def _parameter(name: str, row: Any, where: str) -> Parameter:
    if not isinstance(row, Mapping):
        raise SpaceError(
            f"{where} {name}: must be a table, got {row!r}",
            hint=f'for instance {name} = {{ type = "float", low = 0.0, high = 1.0 }}',
        )
    if "type" not in row:
        raise SpaceError(f"{where} {name}: type is missing", hint=f"one of {', '.join(KINDS)}")
    if row["type"] not in list(KINDS):
        raise SpaceError(
            f"{where} {name}: type must be one of {', '.join(KINDS)}, "
            f"got {show_value(row['type'])}",
            hint=_kind_hint(row["type"]),
        )
    kind = KINDS[row["type"]]
    given = {key: value for key, value in row.items() if key != "type"}
    _check_keys(kind, given, f"{where} {name}")
    try:
        return kind(name=name, **given)
    except SpaceError as exc:
        raise SpaceError(f"{where} {exc}", hint=exc.hint) from None


def _check_keys(kind: type[Parameter], given: Mapping[str, Any], where: str) -> None:
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name != "name"}
    for key in given:
        if key not in fields:
            raise SpaceError(
                f"{where}: {show_value(key)} is not a key of type {kind.kind}",
                hint=nearest_or_all(key, ["type", *fields]),
            )
    for key in ("low", "high", "values"):
        if key in fields and key not in given:
            raise SpaceError(f"{where}: {key} is missing", hint=f"type {kind.kind} needs it")


_OTHER_NAMES = {
    "integer": "int",
    "real": "float",
    "double": "float",
    "uniform": "float",
    "choice": "categorical",
    "category": "categorical",
    "bool": "categorical",
    "boolean": "categorical",
}
"""What other tools call them."""


def _kind_hint(kind: object) -> str | None:
    if kind in ("loguniform", "log_uniform"):
        return 'did you mean type = "float" with log = true?'
    if kind in ("bool", "boolean"):
        return 'did you mean type = "categorical" with values = [true, false]?'
    if isinstance(kind, str) and kind in _OTHER_NAMES:
        return f"did you mean {_OTHER_NAMES[kind]!r}?"
    return nearest_or_all(kind, KINDS) if isinstance(kind, str) else None


def build_table(parameters: Sequence[Parameter]) -> dict[str, dict[str, Any]]:
    """Return the `[space]` table of the parameters, without keys that have their default."""
    return {parameter.name: _row(parameter) for parameter in parameters}


def _row(parameter: Parameter) -> dict[str, Any]:
    row: dict[str, Any] = {"type": parameter.kind}
    for field in dataclasses.fields(parameter):
        value = getattr(parameter, field.name)
        if field.name == "name" or value is field.default or value in ({}, ()):
            continue
        row[field.name] = _plain(value)
    return row


def _plain(value: Any) -> Any:
    if isinstance(value, NumberPrior):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {key: list(values) for key, values in value.items()}
    return list(value) if isinstance(value, tuple) else value
