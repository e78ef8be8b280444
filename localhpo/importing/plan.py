"""What of a source goes into a study, and what does not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from localhpo.errors import ConfigurationError
from localhpo.importing.inferring import Inferred, infer
from localhpo.importing.source import Left, Row, Source
from localhpo.space import Categorical, Ordinal, Parameter, Space, Value
from localhpo.space.values import identity, shown
from localhpo.trial import Config, Trial


@dataclass(frozen=True, slots=True)
class Taken:
    """A row, with its configuration in the space."""

    row: Row
    config: Config


@dataclass(frozen=True, slots=True)
class Plan:
    """What an import would do."""

    space: Space
    fixed: Mapping[str, Value]
    """Hyperparameters with one value in all that is taken."""
    taken: tuple[Taken, ...]
    left: tuple[Left, ...]
    known: int
    """Rows whose configuration the study has already."""
    notes: tuple[str, ...]


def plan(
    source: Source,
    space: Space | None,
    trials: Sequence[Trial] = (),
    fixed: Mapping[str, Value] | None = None,
) -> Plan:
    """Return which rows go into a study.

    A configuration is taken once: its first complete row, else its first. What lies off the
    space, or was run with another value of what is fixed, is left, and listed.

    Args:
        source: what was read.
        space: of the study; None: as the file states it, or as its values tell.
        trials: what the study has already.
        fixed: in the study, beside a given space.

    Raises:
        SpaceError: there is nothing to tune.
    """
    if space is None:
        read = _read_off(source)
        space, fixed, notes = read.space, read.fixed, read.notes
    else:
        fixed = fixed or {}
        notes = (*source.notes, *_beside({*space.names, *fixed}, source.rows))
    fitting: list[Taken] = []
    left = list(source.left)
    for row in source.rows:
        try:
            _check_fixed(fixed, row.values)
            fitting.append(Taken(row, space.canonical(_fitted(space, row.values))))
        except ConfigurationError as error:
            left.append(Left(row.where, str(error)))
    have = {space.key(trial.config) for trial in trials}
    new = [one for one in fitting if space.key(one.config) not in have]
    taken, repeated = _once(space, new)
    return Plan(space, fixed, tuple(taken), (*left, *repeated), len(fitting) - len(new), notes)


def _read_off(source: Source) -> Inferred:
    if source.space is not None:
        return Inferred(source.space, source.fixed, source.notes)
    read = infer([row.values for row in source.rows])
    return replace(read, notes=(*source.notes, *read.notes))


def _check_fixed(fixed: Mapping[str, Value], values: Mapping[str, Any]) -> None:
    """Refuse a row that was run with another value; one that does not tell is believed.

    Raises:
        ConfigurationError: names the hyperparameter.
    """
    for name, value in fixed.items():
        given = values.get(name, value)
        if identity(given) != identity(value) and str(given) != str(value):
            raise ConfigurationError(f"{name} is fixed at {shown(value)}, got {shown(given)}")


def _once(space: Space, rows: Iterable[Taken]) -> tuple[list[Taken], list[Left]]:
    chosen: dict[str, Taken] = {}
    repeated: list[tuple[Taken, str]] = []
    for one in rows:
        key = space.key(one.config)
        if key in chosen and _is_good(one.row) and not _is_good(chosen[key].row):
            repeated.append((chosen[key], key))
            chosen[key] = one
        elif key in chosen:
            repeated.append((one, key))
        else:
            chosen[key] = one
    left = [
        Left(one.row.where, f"it has the configuration of {chosen[key].row.where}")
        for one, key in repeated
    ]
    return list(chosen.values()), left


def _is_good(row: Row) -> bool:
    return row.ending == "complete" and row.score is not None and math.isfinite(row.score)


def _fitted(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the active parameters; tables give those of the others too."""
    config: dict[str, Any] = {}
    for parameter in space:  # parents come before those that depend on them
        if parameter.name in values and space.is_active(parameter.name, config):
            config[parameter.name] = _choice(parameter, values[parameter.name])
    return config


def _choice(parameter: Parameter, value: Any) -> Any:
    """Return a choice by its spelling, where a table has another type."""
    if not isinstance(parameter, Categorical | Ordinal) or value in parameter.values:
        return value
    same = [choice for choice in parameter.values if str(choice) == str(value)]
    return same[0] if same else value


def _beside(known: Collection[str], rows: Iterable[Row]) -> tuple[str, ...]:
    names = dict.fromkeys(name for row in rows for name in row.values if name not in known)
    return (f"not in the space, and dropped: {', '.join(names)}",) if names else ()
