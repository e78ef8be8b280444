"""Tokens and seconds that requests to a language model have taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localhpo.llm.protocol import Completion


@dataclass
class ModelCost:
    """Tokens and seconds that requests to the model have taken so far."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    answers: int = 0

    def add(self, completions: Sequence[Completion]) -> None:
        """Count one call; its samples share the prompt."""
        self.prompt_tokens += max((one.prompt_tokens for one in completions), default=0)
        self.completion_tokens += sum(one.completion_tokens for one in completions)
        self.seconds += sum(one.seconds for one in completions)
        self.answers += len(completions)
