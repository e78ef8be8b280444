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

from localhpo.llm.placement import DeviceFootprint, MemoryRequest


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
    meta_data: Path | None = None
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


class ModelServer(Protocol):
    """A server of one model, which this process may start, stop and offload."""

    gpus: tuple[str, ...]
    """Devices on which it is started; set it to have a restart use the same ones."""

    @property
    def pid(self) -> int | None:
        """Process id of the server; None while it does not run."""
        ...

    @property
    def on_cpu(self) -> bool:
        """Whether it serves from host memory."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Size of the weights that it loads."""
        ...

    @property
    def memory_request(self) -> MemoryRequest:
        """What it asks for before it starts."""
        ...

    @property
    def shared(self) -> bool:
        """Whether others use it too."""
        ...

    @property
    def can_sleep(self) -> bool:
        """Whether it can free device memory without ending."""
        ...

    @property
    def sleeping(self) -> bool:
        """Whether it sleeps; it answers nothing then."""
        ...

    def start(self) -> None:
        """Start it; return when it answers."""
        ...

    def stop(self) -> None:
        """Stop using it; it ends unless others use it. May be called twice."""
        ...

    def sleep(self, level: int) -> None:
        """Free device memory; level 1 keeps the weights in host memory, 2 drops them."""
        ...

    def wake(self) -> None:
        """Have it answer again."""
        ...


class Backend(Protocol):
    """Produces text under a constraint. See the module for the laws."""

    @property
    def model(self) -> Model:
        """What is served."""
        ...

    @property
    def server(self) -> ModelServer | None:
        """Server process that LocalHPO runs for the model; None where there is none."""
        ...

    @property
    def on_device(self) -> DeviceFootprint | None:
        """Device memory of a model in this process; None for every other."""
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
