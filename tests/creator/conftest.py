"""What the tests of the Creator share: a backend that answers by a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from localhpo.creator.prompt import Style
from localhpo.llm.protocol import Completion, GenerationRequest, Message, Model
from localhpo.space import Space

Answer = Callable[[int, int], str]
"""From (number of the call, number of the sample in it) to a text."""


class FakeBackend:
    """Answers by a function, and keeps what it was asked."""

    def __init__(
        self,
        answer: Answer,
        style: Style = "chat",
        context_length: int = 8192,
        known_parameters: frozenset[str] = frozenset(),
    ) -> None:
        self.answer = answer
        self.model = Model(
            "fake", "digest-of-fake", context_length, style, known_parameters=known_parameters
        )
        self.calls: list[GenerationRequest] = []
        self.closed = False
        self.server = None
        self.on_device = None

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) for message in messages) // 4

    def generate(self, request: GenerationRequest) -> list[Completion]:
        call = len(self.calls)
        self.calls.append(request)
        return [
            Completion(self.answer(call, sample), 100, 10, 0.5, request.seed + sample)
            for sample in range(request.n)
        ]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake_backend() -> type[FakeBackend]:
    return FakeBackend


@pytest.fixture
def chat_backend() -> Callable[[Space], FakeBackend]:
    """Make a chat model that answers with random configurations of a space, and a reason."""

    def make(space: Space) -> FakeBackend:
        rng = np.random.default_rng(0)

        def answer(call: int, sample: int) -> str:
            config = space.text(space.sample(rng))
            return f'{{"analysis":"A draw.","config":{config},"evidence":[]}}'

        return FakeBackend(answer, "chat")

    return make
