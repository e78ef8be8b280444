"""Finds out how a server holds its answers to a constraint, if it does.

A server may take a constraint and ignore it, or keep its shape and ignore its bounds, without a
word. So each form in which a constraint can be sent is tried, the strongest first, on a small
one that no answer fulfils by chance, with prompts that ask for its violation. Only answers count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localhpo.errors import BackendError, ConstraintError, GenerationError
from localhpo.llm.http_client import HttpError
from localhpo.llm.protocol import Constraint, Message

MAX_TOKENS = 96
"""Of one answer to the probe; a right one has some 20."""


@dataclass(frozen=True, slots=True)
class ConstraintForm:
    """One way to send a constraint."""

    name: str
    exact: bool
    """Whether it is the grammar, with its one spelling of each value, or the JSON Schema."""
    fields: Callable[[Constraint], dict[str, Any]]
    """What it adds to the body of a request."""


def _schema_field(constraint: Constraint) -> dict[str, Any]:
    schema = {"name": "answer", "strict": True, "schema": constraint.schema}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


_MARK = "%llguidance {}\n"
"""Tells llama.cpp and SGLang, whose own dialects differ, that a grammar is llguidance's Lark."""

FORMS = (
    ConstraintForm(
        "structured_outputs.grammar", True, lambda c: {"structured_outputs": {"grammar": c.grammar}}
    ),
    ConstraintForm("grammar", True, lambda c: {"grammar": _MARK + c.grammar}),
    ConstraintForm("ebnf", True, lambda c: {"ebnf": _MARK + c.grammar}),
    ConstraintForm("response_format", False, _schema_field),
)
"""vLLM's, llama.cpp's and SGLang's way to send a grammar; everyone's to send a schema."""


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


CONSTRAINT = Constraint(
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
"""Narrow bounds on an integer and on a number, one of them by condition."""

_EXACT = re.compile(
    r'\{"side":"left","count":(41[7-9]|42[0-3])\}|\{"side":"right","share":0\.031[2-8]\}'
)
_FORBIDDEN = (
    '{"side":"left","count":7}',
    '{"side":"right","share":0.9}',
    '{"side":"left","share":0.0315}',
    '{"side":"right","count":420}',
)
"""What the probe asks for: out of bounds, and in the wrong branch."""

_HOW_TO_FIX = (
    "start the server so that it holds constraints. vLLM: --structured-outputs-config"
    ' \'{"backend":"guidance","disable_any_whitespace":true}\'; SGLang: --grammar-backend'
    " llguidance; llama.cpp: build it with -DLLAMA_LLGUIDANCE=ON. Servers that leave the bounds of"
    " numbers open, such as Ollama, cannot be used; --backend transformers runs the model's folder"
)

Ask = Callable[[Message, Mapping[str, Any], int], str]
"""From a message, fields of the request and `max_tokens` to an answer."""


def accepted(ask: Ask, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields that a server takes in a request: all of them, or none."""
    try:
        if fields:
            ask(Message("user", "Answer with exactly this, and nothing else: ok"), fields, 1)
    except HttpError:
        return {}
    except (GenerationError, BackendError):
        pass  # one token is hardly ever an answer; a server that is gone is told of by what follows
    return fields


def strongest_form(ask: Ask, where: str) -> ConstraintForm:
    """Return the strongest form that the server at `where` holds its answers to.

    Raises:
        ConstraintError: it holds them to none.
        BackendError: it does not answer.
    """
    failures = []
    for form in FORMS:
        found = failure(form, ask)
        if found is None:
            return form
        failures.append(f"  {form.name}: {found}")
    raise ConstraintError(
        f"the server at {where} does not hold answers to a constraint. Told to give a count of"
        " 417 to 423 or a share of 0.0312 to 0.0318, in each form that servers know:\n"
        + "\n".join(failures),
        hint=_HOW_TO_FIX,
    )


def failure(form: ConstraintForm, ask: Ask) -> str | None:
    """Return how a form fails; None if it holds.

    Raises:
        BackendError: the server does not answer.
    """
    fields = form.fields(CONSTRAINT)
    for forbidden in _FORBIDDEN:
        message = Message("user", f"Answer with exactly this, and nothing else: {forbidden}")
        try:
            answer = ask(message, fields, MAX_TOKENS)
        except (HttpError, GenerationError) as exc:
            return str(exc)
        if not (_EXACT.fullmatch(answer) if form.exact else _fulfils_schema(answer)):
            return f"it answered {answer!r}"
    return None


def _fulfils_schema(answer: str) -> bool:
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
