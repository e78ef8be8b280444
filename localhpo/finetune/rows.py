"""Examples -> rows of tokens: a prompt, followed by answers that do not attend to each other.

The positions of each answer begin right after the prompt, so the prompt is read once for all its
answers. A model that cannot be packed in this way (`llm.transformers.network`) gets one answer per
row. Shapes: T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localhpo.finetune.dataset import TrainingExample
from localhpo.llm.protocol import Message

WEIGHT_VALUE, WEIGHT_REST = 1.0, 0.1
"""Weights in the loss: of values, and of other tokens, most of which the grammar forces."""

_VALUE = re.compile(r'(?<=":)(?:"[^"]*"|[^,{}\[\]"]+)')

Render = Callable[[Sequence[Message]], list[int]]


@dataclass(frozen=True)
class TokenRow:
    """Tokens of one forward pass."""

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    owner: NDArray[np.int64]
    """(T,): number of the answer that a token belongs to, from 1; 0 for the prompt."""
    source: NDArray[np.int64]
    """(T,): index of the token that predicts this one: the one before, or the prompt's last."""
    weights: NDArray[np.float32]
    """(T,): weight of each token in the loss; 0 for the prompt."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def visible(self) -> NDArray[np.bool_]:
        """(T, T): whether the token of the row attends to the token of the column."""
        own = (self.owner[None, :] == 0) | (self.owner[:, None] == self.owner[None, :])
        return np.asarray(own & np.tril(np.ones((len(self),) * 2, dtype=bool)))


@dataclass(frozen=True)
class EncodedExample:
    """An example as tokens."""

    study: str
    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]

    def rows(
        self, max_answers: int, max_tokens: int, rng: np.random.Generator | None = None
    ) -> Iterator[TokenRow]:
        """Yield rows that hold each answer once.

        Args:
            max_answers: largest number of answers in a row.
            max_tokens: largest number of tokens in a row; a single answer may exceed it.
            rng: shuffles the answers; None: in their order.
        """
        order = list(range(len(self.answers)))
        if rng is not None:
            order = [int(i) for i in rng.permutation(len(order))]
        taken: list[int] = []
        size = len(self.prompt)
        for which in order:
            length = len(self.answers[which])
            if taken and (len(taken) == max_answers or size + length > max_tokens):
                yield self._row(taken)
                taken, size = [], len(self.prompt)
            taken.append(which)
            size += length
        yield self._row(taken)

    def _row(self, which: Sequence[int]) -> TokenRow:
        ids, start = list(self.prompt), len(self.prompt)
        positions, owner = list(range(start)), [0] * start
        source, weights = [0] * start, [0.0] * start
        for number, one in enumerate(which, start=1):
            answer, first = self.answers[one], len(ids)
            ids += answer
            positions += range(start, start + len(answer))
            owner += [number] * len(answer)
            source += [start - 1, *range(first, first + len(answer) - 1)]
            weights += self.weights[one]
        return TokenRow(
            np.array(ids), np.array(positions), np.array(owner), np.array(source),
            np.array(weights, dtype=np.float32),
        )  # fmt: skip


def encode_example(example: TrainingExample, render: Render, tokenizer: Any) -> EncodedExample:
    """Return an example as tokens of a model.

    Args:
        example: the prompt and its answers.
        render: returns the tokens of a prompt, as at inference.
        tokenizer: a fast tokenizer, which returns offsets.
    """
    end = tokenizer.eos_token_id
    pieces = [
        tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        for text in example.answers
    ]
    return EncodedExample(
        study=example.study,
        prompt=tuple(render(example.messages)),
        answers=tuple((*piece["input_ids"], end) for piece in pieces),
        weights=tuple(
            (*value_weights(text, piece["offset_mapping"]), WEIGHT_REST)
            for text, piece in zip(example.answers, pieces, strict=True)
        ),
    )


def value_weights(text: str, offsets: Sequence[tuple[int, int]]) -> list[float]:
    """Return the weight of each token of an answer, given its span in the text."""
    start = max(0, text.find('"config":'))  # an analysis before it holds no values
    spans = [m.span() for m in _VALUE.finditer(text, start) if text[m.start()] != "{"]
    return [
        WEIGHT_VALUE if any(a < end and begin < b for a, b in spans) else WEIGHT_REST
        for begin, end in offsets
    ]
