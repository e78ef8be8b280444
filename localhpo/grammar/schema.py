"""Builds a JSON Schema of the answers for a space, for servers without grammars.

It enforces keys, types, bounds and conditions, but not the grid: servers either ignore
`multipleOf` or get it wrong. `parse_answer` rounds values to the grid.

Conditions are an `anyOf` of objects, one per combination of branches, which differ in the
values of the parents. (`if`/`then` is refused by some servers, and silently ignored by others.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from localhpo.grammar.lark import MAX_ANALYSIS, MAX_EVIDENCE
from localhpo.space import Float, Int, Parameter, Space
from localhpo.space.conditions import RuledOut, Spans

MAX_ENUM = 100
"""Most values of a stepped parameter that are listed; with more, only its bounds hold."""


def json_schema(
    space: Space, *, rationale: bool = False, trials: Sequence[int] = ()
) -> dict[str, Any]:
    """Return a schema that every canonical answer fulfills; arguments as for `lark_grammar`.

    `x-guidance` switches off optional white space where the server runs llguidance: otherwise
    small models fill their answers with blanks.
    """
    config = _config(space)
    if rationale:
        config = _object(
            {
                "analysis": {"type": "string", "minLength": 1, "maxLength": MAX_ANALYSIS},
                "config": config,
                "evidence": _evidence(sorted(set(trials))),
            }
        )
    return {"x-guidance": {"whitespace_flexible": False}, **config}


def _evidence(trials: Sequence[int]) -> dict[str, Any]:
    if not trials:
        return {"type": "array", "maxItems": 0}
    return {"type": "array", "items": {"enum": list(trials)}, "maxItems": MAX_EVIDENCE}


def _config(space: Space) -> dict[str, Any]:
    objects = [_object(properties) for properties in _properties(space, 0, frozenset())]
    return objects[0] if len(objects) == 1 else {"anyOf": objects}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _properties(space: Space, position: int, out: RuledOut) -> Iterator[dict[str, Any]]:
    """Yield the properties from a position on, for each combination of branches."""
    head: dict[str, Any] = {}
    for index in range(position, len(space)):
        parameter = space.parameters[index]
        branches = space.branches(index, out)
        if len(branches) > 1:
            for branch in branches:
                value = {parameter.name: _value(parameter, branch.spans)}
                for tail in _properties(space, index + 1, branch.out):
                    yield {**head, **value, **tail}
            return
        if index not in out:
            head[parameter.name] = _value(parameter, branches[0].spans)
        out = branches[0].out
    yield head


def _value(parameter: Parameter, spans: Spans) -> dict[str, Any]:
    """Return the schema of some values of a parameter."""
    if isinstance(parameter, Float):
        return _float(parameter)
    if isinstance(parameter, Int):
        parts = [_int(parameter, *span) for span in spans]
        return parts[0] if len(parts) == 1 else {"anyOf": parts}
    return {"enum": [parameter.at(index) for span in spans for index in range(*span)]}


def _float(parameter: Float) -> dict[str, Any]:
    stepped = parameter.step is not None and parameter.cardinality <= MAX_ENUM
    if stepped or parameter.cardinality == 1:
        return {"enum": [parameter.at(index) for index in range(parameter.cardinality)]}
    return {"type": "number", "minimum": parameter.low, "maximum": parameter.top}


def _int(parameter: Int, start: int, stop: int) -> dict[str, Any]:
    stepped = parameter.grid.step > 1 and stop - start <= MAX_ENUM
    if stepped or stop - start == 1:
        return {"enum": [parameter.at(index) for index in range(start, stop)]}
    return {
        "type": "integer",
        "minimum": parameter.at(start),
        "maximum": parameter.at(stop - 1),
    }
