"""Parses the text of an answer into a checked configuration.

Under the exact grammar every text is already canonical. Under a JSON Schema a server may write
0.000312345 where the grid has 3.12e-4, so numbers within the bounds are rounded to the grid
here; anything else that differs (keys, types, bounds) is refused.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from localhpo.errors import ConfigurationError
from localhpo.grammar.lark import MAX_ANALYSIS, MAX_EVIDENCE
from localhpo.space import Space, Value
from localhpo.space.values import is_encodable, show_value

_KEYS = ("analysis", "config", "evidence")


@dataclass(frozen=True, slots=True)
class Answer:
    """A parsed answer of a model."""

    config: dict[str, Value]
    """Canonical configuration."""
    analysis: str = ""
    evidence: tuple[int, ...] = ()
    """Numbers of the cited trials, which exist; each once."""


def parse_answer(
    text: str, space: Space, *, rationale: bool = False, trials: Collection[int] = ()
) -> Answer:
    """Parse an answer; the arguments are those of `lark_grammar`.

    Raises:
        ConfigurationError: it is not JSON, has other keys, or a value that is not allowed.
    """
    answer = _object("the answer", _loaded(text))
    if not rationale:
        return Answer(space.canonical(answer))
    if set(answer) != set(_KEYS):
        raise ConfigurationError(
            f"the answer must have the keys {', '.join(_KEYS)}, got {', '.join(answer) or 'none'}"
        )
    return Answer(
        config=space.canonical(_object("config", answer["config"])),
        analysis=_analysis(answer["analysis"]),
        evidence=_evidence(answer["evidence"], trials),
    )


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_pairs, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(
            f"the answer must be JSON: {exc}, got {show_value(text)}"
        ) from None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ConfigurationError(f"{show_value(twice)} is given twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise ConfigurationError(f"a value must be finite, got {name}")


def _object(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{name} must be a JSON object, got {show_value(value)}")
    return value


def _analysis(value: Any) -> str:
    if not isinstance(value, str) or not is_encodable(value):
        raise ConfigurationError(f"analysis must be a string, got {show_value(value)}")
    if not 1 <= len(value) <= MAX_ANALYSIS:
        raise ConfigurationError(
            f"analysis must have 1 to {MAX_ANALYSIS} characters, got {len(value)}"
        )
    # A schema allows line breaks and other control characters, which must not reach a terminal.
    return "".join(char if char.isprintable() else " " for char in value)


def _evidence(value: Any, trials: Collection[int]) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_EVIDENCE:
        raise ConfigurationError(
            f"evidence must be a list of at most {MAX_EVIDENCE} trial numbers, "
            f"got {show_value(value)}"
        )
    for number in value:
        if type(number) is not int or number not in trials:
            raise ConfigurationError(
                f"evidence must cite trials that exist and were shown, got {show_value(number)}"
            )
    return tuple(dict.fromkeys(value))
