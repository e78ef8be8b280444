"""Questions -> rows of tokens: many questions in a row, each seen by its own answers alone.

A question lies in a row as its prompt and then its answers, each of which continues the prompt:
answers see the prompt and themselves, not each other, and take up their positions right after
it. So a prompt is read once for all its answers. Shapes: B rows, T tokens a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .corpus import Question
from .learners import Array

ROW_LENGTHS = (256, 384, 640, 1024)
"""A question goes into the shortest kind of row that holds it; one that fits none is dropped.

Short rows, since attention pays for the whole row."""

WEIGHT_VALUE, WEIGHT_FORCED, WEIGHT_PROMPT = 1.0, 0.1, 0.03
"""Weights in the loss: values are what is asked for; the grammar forces most of the rest."""

_VALUE = re.compile(r'(?<=":)[^,}]+')


@dataclass(frozen=True)
class Tokens:
    """One question in tokens: the prompt and its answers."""

    prompt: list[int]
    answers: list[list[int]]
    weights: list[list[float]]
    """Of the answers' tokens."""

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass(frozen=True)
class Batch:
    """Rows for one step."""

    ids: Array
    """(B, T)"""
    positions: Array
    """(B, T)"""
    targets: Array
    """(B, T): the token that follows."""
    weights: Array
    """(B, T) in the loss."""
    question: Array
    """(B, T): which question of the row, 0 for padding."""
    answer: Array
    """(B, T): which answer of the question, 0 for its prompt."""


def value_weights(text: str, offsets: Sequence[tuple[int, int]]) -> list[float]:
    """Return the weight of each token of an answer, given where it lies in the text."""
    spans = [match.span() for match in _VALUE.finditer(text)]
    return [
        WEIGHT_VALUE if any(a < end and start < b for a, b in spans) else WEIGHT_FORCED
        for start, end in offsets
    ]


def tokens(questions: Sequence[Question], tokenizer: Any) -> list[Tokens]:
    """Return the questions in tokens; a question's last token is given to each of its answers.

    The request's quality digit and colon are part of each answer here: answers of one question
    differ in the digit.
    """
    bos, eos = tokenizer.token_to_id("<bos>"), tokenizer.token_to_id("<eos>")
    prompts = tokenizer.encode_batch([q.prompt.removesuffix("9:") for q in questions])
    flat = [
        f"{quality}:{answer}"
        for q in questions
        for quality, answer in zip(q.qualities, q.answers, strict=True)
    ]
    encoded = iter(tokenizer.encode_batch(flat))
    texts = iter(flat)
    out = []
    for question, prompt in zip(questions, prompts, strict=True):
        answers, weights = [], []
        for _ in question.answers:
            piece, text = next(encoded), next(texts)
            answers.append([*piece.ids, eos])
            # Nobody is asked to guess the request's digit and colon.
            weights.append([0.0, 0.0, *value_weights(text, piece.offsets)[2:], WEIGHT_FORCED])
        out.append(Tokens([bos, *prompt.ids], answers, weights))
    return out


def rows(questions: Iterable[Tokens], length: int) -> list[list[Tokens]]:
    """Return the questions packed first-fit into rows of a length."""
    filled: list[tuple[int, list[Tokens]]] = []
    open_rows: list[tuple[int, list[Tokens]]] = []
    for question in questions:
        size = len(question)
        for i, (used, row) in enumerate(open_rows):
            if used + size <= length:
                open_rows[i] = (used + size, [*row, question])
                break
        else:
            open_rows.append((size, [question]))
            if len(open_rows) > 8:
                open_rows.sort(key=lambda pair: pair[0])
                filled.append(open_rows.pop())
    return [row for _, row in [*filled, *open_rows]]


def batch(packed: Sequence[Sequence[Tokens]], length: int, pad: int) -> Batch:
    """Return the arrays of some rows."""
    shape = (len(packed), length)
    ids, targets = np.full(shape, pad), np.full(shape, pad)
    positions, question, answer = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    weights = np.zeros(shape, dtype=np.float32)
    for b, row in enumerate(packed):
        at = 0
        for number, item in enumerate(row, start=1):
            parts = [item.prompt, *item.answers]
            part_weights = [[WEIGHT_PROMPT] * len(item.prompt), *item.weights]
            for which, (part, weight) in enumerate(zip(parts, part_weights, strict=True)):
                end = at + len(part)
                first = len(item.prompt) if which else 0
                ids[b, at:end] = part
                positions[b, at:end] = np.arange(first, first + len(part))
                question[b, at:end], answer[b, at:end] = number, which
                # The token before predicts the token here; a part's first token has none.
                targets[b, at : end - 1] = part[1:]
                weights[b, at : end - 1] = weight[1:]
                at = end
    return Batch(ids, positions, targets, weights, question, answer)


def visible(of: Batch) -> Array:
    """Return (B, 1, T, T): whether the row's token attends to the column's."""
    same = of.question[:, :, None] == of.question[:, None, :]
    own = (of.answer[:, None, :] == 0) | (of.answer[:, :, None] == of.answer[:, None, :])
    causal = np.tril(np.ones((of.ids.shape[1],) * 2, dtype=bool))
    return np.asarray((same & own & causal)[:, None])
