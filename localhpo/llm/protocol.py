"""What a backend is: text produced under a constraint.

A backend takes the constraint in two forms and uses the one that it can enforce; one that
can enforce neither refuses to open. To this package a grammar is text: it knows nothing of
search spaces.

Laws, which `tests/contracts/test_backend_contract.py` runs over every implementation:

- every completion that `generate` returns matches the constraint, and ended by itself
  (hitting `max_tokens` is a `GenerationError`, never a truncated text);
- the same request with the same seed gives the same texts, except where the server does
  not promise it (`Model.deterministic`);
- `n` completions come back in one call, each of its own draw;
- after `close`, `generate` raises `BackendError`; `close` may be called twice.

`generate` blocks, for seconds with a large model. One caller at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must look like, in two equivalent forms."""

    grammar: str
    """Lark grammar in llguidance's dialect: exact."""
    schema: Mapping[str, Any]
    """JSON Schema, for servers that take nothing else; answers are validated again."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a backend serves."""

    name: str
    digest: str
    """sha256 over the weights (from the card), or what the server calls its model."""
    context_length: int
    """Tokens of prompt and answer together."""
    prompt: Literal["chat", "compact"] = "chat"
    """Which templates of `prompts/` it is asked with."""
    deterministic: bool = True
    knows: frozenset[str] = frozenset()
    """Names of hyperparameters that it was trained on; empty: it does not tell."""
    lessons: Path | None = None
    """File of what it was trained on, case by case, where that comes with it."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """What its chat template is told beside the messages, so that it does not think aloud."""
    answer_prefix: str = ""
    """What a rendered prompt is followed by, where that leads past the place for thoughts."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished answer and its cost."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    """Its share of the time of the call."""
    seed: int
    logprob: float | None = None
    """Sum of log-probabilities of the tokens that were not forced, where known."""


class Backend(Protocol):
    """Produces text under a constraint. See the module for the laws."""

    @property
    def model(self) -> Model:
        """What is served."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return the tokens of the rendered prompt, or an upper estimate of them."""
        ...

    def generate(
        self,
        messages: Sequence[Message],
        constraint: Constraint,
        *,
        n: int = 1,
        max_tokens: int = 1024,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[Completion]:
        """Return `n` completions of the prompt, each of which matches the constraint.

        Raises:
            ConstraintError: the constraint cannot be compiled or held.
            GenerationError: an answer did not end within `max_tokens`.
            BackendError: the backend failed, or is closed.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...
