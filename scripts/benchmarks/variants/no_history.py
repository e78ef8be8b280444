"""A Creator whose model sees no trials: the difference to the real one is what history tells it.

Everything else knows the trials: the duplicate filter, the engine of a hybrid and the rule that
chooses between model and engine. So only the prompt is replaced, on its way to the backend.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from localhpo.creator import Creator, History, context, prompt
from localhpo.llm import AnswerConstraint, Backend, Completion, Message, Model
from localhpo.llm.placement import DeviceFootprint
from localhpo.llm.protocol import ModelServer
from localhpo.trial import Proposal


class NoHistoryBackend:
    """Replaces each prompt by `prompt` and asks the real backend, which its owner closes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.prompt: Sequence[Message] = ()
        """The messages that the model is shown."""

    @property
    def model(self) -> Model:
        """The model of the real backend."""
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
        """Return the tokens of the given prompt, which is at least as long as the one shown."""
        return self._backend.count_tokens(messages)

    def generate(
        self,
        messages: Sequence[Message],  # noqa: ARG002 - replaced by `prompt`
        constraint: AnswerConstraint,
        *,
        n: int = 1,
        max_tokens: int = 1024,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[Completion]:
        """Return `n` completions of `prompt`. Raises as the real backend does."""
        return self._backend.generate(
            self.prompt, constraint, n=n, max_tokens=max_tokens, temperature=temperature, seed=seed
        )

    def close(self) -> None:
        """Do nothing: the owner of the real backend closes it."""


class NoHistoryCreator:
    """A Creator that asks a model without showing it trials."""

    def __init__(self, creator: Creator, backend: NoHistoryBackend, name: str) -> None:
        self.name = name
        self._creator = creator
        self._backend = backend

    @property
    def backend(self) -> Backend:
        """The backend that hides the trials."""
        return self._backend

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals. Raises as the wrapped Creator does."""
        hidden = dataclasses.replace(history, trials=())
        self._backend.prompt = prompt.render_messages(
            context.build_facts(hidden), self._backend.model.prompt
        )
        return self._creator.propose(history, n)

    def close(self) -> None:
        """Close the wrapped Creator."""
        self._creator.close()
