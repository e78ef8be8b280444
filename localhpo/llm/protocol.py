"""The protocol of a backend, which generates text under a constraint.

A backend is given the constraint in two forms and uses the one that it can enforce; a backend that
can enforce neither refuses to open. In this package a grammar is just text: search spaces are
unknown here.

Rules, which `localhpo.testing` has as tests:

- every completion that `generate` returns matches the constraint and is complete (reaching
  `max_tokens` is a `GenerationError`, never a truncated text);
- the same request with the same seed gives the same texts, unless the server does not guarantee it
  (`Model.deterministic`);
- one call returns `n` completions, which are sampled independently;
- after `close`, `generate` raises `BackendError`; `close` may be called twice.

`generate` blocks, for seconds with a large model. It is not thread-safe.
"""

from __future__ import annotations

import hashlib
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
class AnswerConstraint:
    """The format of answers, in two equivalent forms."""

    grammar: str
    """Lark grammar in llguidance's dialect; exact."""
    schema: Mapping[str, Any]
    """JSON Schema, for servers without grammars; answers are validated again."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a backend is asked for: `n` answers to a prompt, under a constraint."""

    messages: Sequence[Message]
    constraint: AnswerConstraint
    n: int = field(default=1, kw_only=True)
    """Number of answers, which are sampled independently."""
    max_tokens: int = field(default=1024, kw_only=True)
    """Limit of each answer; reaching it is an error."""
    temperature: float = field(default=1.0, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    """Seed of the first answer; those of the others are derived from it."""


@dataclass(frozen=True, slots=True)
class Model:
    """The model of a backend."""

    name: str
    digest: str
    """Digest of the files (from the card), or the server's name of the model."""
    context_length: int
    """Tokens of prompt and answer together."""
    prompt: Literal["chat", "compact"] = "chat"
    """Style of its prompts: the templates in `prompts/`."""
    deterministic: bool = True
    """Whether equal requests give equal answers."""
    known_parameters: frozenset[str] = frozenset()
    """Names of the hyperparameters that it was trained on; empty where they are not known."""
    meta_data: Path | None = None
    """File with the meta-data of its training data sets; None if it has none."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of its chat template that switch reasoning off."""
    answer_prefix: str = ""
    """Text behind the rendered prompt that skips the reasoning; empty if none is needed."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A complete answer and its cost."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    """Share of the call's time."""
    seed: int
    logprob: float | None = None
    """Sum of the log-probabilities of tokens that the grammar did not force; None if not known."""


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
    """Generates text under a constraint. See the module for the rules."""

    @property
    def model(self) -> Model:
        """The model that it serves."""
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
        """Return the number of tokens of the rendered prompt, or an upper estimate."""
        ...

    def generate(self, request: GenerationRequest) -> list[Completion]:
        """Return `request.n` completions of the prompt that match the constraint.

        Raises:
            ConstraintError: the constraint cannot be compiled or enforced.
            GenerationError: an answer did not end within `max_tokens`.
            BackendError: the backend failed, or is closed.
        """
        ...

    def close(self) -> None:
        """Free its resources. May be called twice."""
        ...


def derive_seeds(seed: int, n: int) -> list[int]:
    """Return the seeds of `n` answers; the first is `seed` itself.

    So an answer can be generated again alone, with its own seed. The others are hashed, so that
    calls with neighboring seeds share none. They have 31 bits, the limit of servers.
    """
    return [seed, *(_hash(seed, index) for index in range(1, n))]


def _hash(seed: int, index: int) -> int:
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1
