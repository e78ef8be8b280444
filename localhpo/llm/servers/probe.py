"""Tests whether a server enforces constraints, and in which form they must be sent.

A server may accept a constraint and silently ignore it, or enforce its shape but not its bounds. So
each form of sending a constraint is tried, the strictest first, with a small constraint that no
answer meets by chance, and with prompts that ask for its violation. Only the answers decide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localhpo.errors import BackendError, ConstraintError, GenerationError
from localhpo.llm.protocol import AnswerConstraint, Message
from localhpo.llm.servers.http_client import HttpError

MAX_TOKENS = 96
"""Limit for an answer to the probe; a correct one has about 20 tokens."""


@dataclass(frozen=True, slots=True)
class ConstraintForm:
    """A way to send a constraint."""

    name: str
    exact: bool
    """Whether it sends the grammar, which fixes the spelling of values, or the JSON Schema."""
    fields: Callable[[AnswerConstraint], dict[str, Any]]
    """Returns the fields to add to the body of a request."""


def _schema_field(constraint: AnswerConstraint) -> dict[str, Any]:
    schema = {"name": "answer", "strict": True, "schema": constraint.schema}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


_MARK = "%llguidance {}\n"
"""Marks a grammar as llguidance's Lark for llama.cpp and SGLang, whose own dialects differ."""

FORMS = (
    ConstraintForm(
        "structured_outputs.grammar", True, lambda c: {"structured_outputs": {"grammar": c.grammar}}
    ),
    ConstraintForm("grammar", True, lambda c: {"grammar": _MARK + c.grammar}),
    ConstraintForm("ebnf", True, lambda c: {"ebnf": _MARK + c.grammar}),
    ConstraintForm("response_format", False, _schema_field),
)
"""Fields for a grammar in vLLM, llama.cpp and SGLang; then that for a schema in all servers."""


def _branch(side: str, key: str, kind: str, low: float, high: float) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "side": {"enum": [side]},
            key: {"type": kind, "minimum": low, "maximum": high},
        },
        "required": ["side", key],
        "additionalProperties": False,
    }


CONSTRAINT = AnswerConstraint(
    grammar=r"""start: "{\"side\":\"left\",\"count\":" /41[7-9]|42[0-3]/ "}"
    | "{\"side\":\"right\",\"share\":" /0\.031[2-8]/ "}"
""",
    schema={
        "x-guidance": {"whitespace_flexible": False},
        "anyOf": [
            _branch("left", "count", "integer", 417, 423),
            _branch("right", "share", "number", 0.0312, 0.0318),
        ],
    },
)
"""Narrow bounds on an integer or on a number, depending on another value."""

_EXACT = re.compile(
    r'\{"side":"left","count":(41[7-9]|42[0-3])\}|\{"side":"right","share":0\.031[2-8]\}'
)
_FORBIDDEN = (
    '{"side":"left","count":7}',
    '{"side":"right","share":0.9}',
    '{"side":"left","share":0.0315}',
    '{"side":"right","count":420}',
)
"""Answers that the probe asks for: out of bounds, or of the wrong branch."""

_HOW_TO_FIX = (
    "start the server with support for constraints. vLLM: --structured-outputs-config"
    ' \'{"backend":"guidance","disable_any_whitespace":true}\'; SGLang: --grammar-backend'
    " llguidance; llama.cpp: build it with -DLLAMA_LLGUIDANCE=ON. Servers that do not enforce the"
    " bounds of numbers, such as Ollama, cannot be used; --backend transformers runs a model folder"
)

Ask = Callable[[Message, Mapping[str, Any]], str]
"""From a message and all other fields of a request to an answer."""


def _bounded(fields: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
    return {"n": 1, "max_tokens": max_tokens, "temperature": 1.0, "seed": 0, **fields}


def filter_accepted(ask: Ask, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields if the server accepts them in a request, else none."""
    try:
        if fields:
            message = Message("user", "Answer with exactly this, and nothing else: ok")
            ask(message, _bounded(fields, 1))
    except HttpError:
        return {}
    except (GenerationError, BackendError):
        pass  # one token is rarely an answer; if the server is gone, the next request fails
    return fields


def find_strictest_form(ask: Ask, where: str) -> ConstraintForm:
    """Return the strictest form that the server at `where` enforces.

    Raises:
        ConstraintError: it enforces none.
        BackendError: it does not answer.
    """
    failures = []
    for form in FORMS:
        found = find_failure(form, ask)
        if found is None:
            return form
        failures.append(f"  {form.name}: {found}")
    raise ConstraintError(
        f"the server at {where} does not enforce constraints. Asked for a count of 417 to 423 or a"
        " share of 0.0312 to 0.0318, in each form that servers know:\n" + "\n".join(failures),
        hint=_HOW_TO_FIX,
    )


def find_failure(form: ConstraintForm, ask: Ask) -> str | None:
    """Return how a form fails; None if it is enforced.

    Raises:
        BackendError: the server does not answer.
    """
    fields = _bounded(form.fields(CONSTRAINT), MAX_TOKENS)
    for forbidden in _FORBIDDEN:
        message = Message("user", f"Answer with exactly this, and nothing else: {forbidden}")
        try:
            answer = ask(message, fields)
        except (HttpError, GenerationError) as exc:
            return str(exc)
        if not (_EXACT.fullmatch(answer) if form.exact else _meets_schema(answer)):
            return f"it answered {answer!r}"
    return None


def _meets_schema(answer: str) -> bool:
    try:
        value = json.loads(answer)
    except ValueError:
        return False
    match value:
        case {"side": "left", "count": int(count), **rest} if not rest:
            return 417 <= count <= 423
        case {"side": "right", "share": float(share), **rest} if not rest:
            return 0.0312 <= share <= 0.0318
    return False
