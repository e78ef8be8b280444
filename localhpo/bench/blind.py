"""A Creator whose model is shown no trials: what it is worth without reading the history.

All else stays: novelty is seen to, the engine of a hybrid knows every trial, and so does the
rule by which the two share them. So it is the prompt that is exchanged, on its way to the
backend.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from localhpo.creator import Creator, History, context, prompt
from localhpo.llm import Backend, Completion, Constraint, Message, Model
from localhpo.llm.placement import DeviceFootprint
from localhpo.llm.protocol import ModelServer
from localhpo.trial import Proposal


class BlindBackend:
    """A backend that is asked another prompt than it is given. It does not own the real one."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.asked: Sequence[Message] = ()
        """What the model is shown."""

    @property
    def model(self) -> Model:
        """What is served."""
        return self._backend.model

    @property
    def server(self) -> ModelServer | None:
        """The server of the real backend."""
        return self._backend.server

    @property
    def on_device(self) -> DeviceFootprint | None:
        """Device memory of the real backend's model."""
        return self._backend.on_device

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return the tokens of the prompt as given, which is no shorter."""
        return self._backend.count_tokens(messages)

    def generate(
        self,
        messages: Sequence[Message],  # noqa: ARG002 - what is not shown
        constraint: Constraint,
        *,
        n: int = 1,
        max_tokens: int = 1024,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[Completion]:
        """Return `n` completions of the prompt without trials. Raises as the backend does."""
        return self._backend.generate(
            self.asked, constraint, n=n, max_tokens=max_tokens, temperature=temperature, seed=seed
        )

    def close(self) -> None:
        """Close nothing: the backend is its owner's."""


class Blind:
    """A Creator over a `BlindBackend`."""

    def __init__(self, creator: Creator, backend: BlindBackend, name: str) -> None:
        self.name = name
        self._creator = creator
        self._backend = backend

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals. Raises as the Creator does."""
        hidden = dataclasses.replace(history, trials=())
        self._backend.asked = prompt.messages(context.facts(hidden), self._backend.model.prompt)
        return self._creator.propose(history, n)

    def close(self) -> None:
        """Close the Creator."""
        self._creator.close()
