"""Packs questions into rows of tokens, with several questions per row.

A question is its prompt followed by its answers. Each answer attends to the prompt and to itself,
not to other answers, and its positions continue those of the prompt. So a prompt is read once for
all its answers. Shapes: B rows, T tokens per row.
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
"""Lengths of rows. A question goes into the shortest that it fits in; longer ones are dropped.

Rows are short, because the cost of attention grows with the length of the row."""

WEIGHT_VALUE, WEIGHT_FORCED, WEIGHT_PROMPT = 1.0, 0.1, 0.03
"""Weights in the loss: values matter; the grammar forces most other tokens of an answer."""

_VALUE = re.compile(r'(?<=":)[^,}]+')


@dataclass(frozen=True)
class Tokens:
    """The tokens of one question: its prompt and its answers."""

    prompt: list[int]
    answers: list[list[int]]
    weights: list[list[float]]
    """Loss weights of the tokens of each answer."""

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
    """(B, T): the next token."""
    weights: Array
    """(B, T): weights in the loss."""
    question: Array
    """(B, T): number of the question in the row, 0 for padding."""
    answer: Array
    """(B, T): number of the answer of the question, 0 for its prompt."""


def weigh_tokens(text: str, offsets: Sequence[tuple[int, int]]) -> list[float]:
    """Return the loss weight of each token of an answer, by its (start, end) in the text."""
    spans = [match.span() for match in _VALUE.finditer(text)]
    return [
        WEIGHT_VALUE if any(a < end and start < b for a, b in spans) else WEIGHT_FORCED
        for start, end in offsets
    ]


def tokenize_questions(questions: Sequence[Question], tokenizer: Any) -> list[Tokens]:
    """Return the tokens of questions.

    The quality digit and the colon at the end of a prompt are part of each answer here, because
    answers of one question differ in the digit.
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
            # The digit and the colon are given, so their weight is 0.
            weights.append([0.0, 0.0, *weigh_tokens(text, piece.offsets)[2:], WEIGHT_FORCED])
        out.append(Tokens([bos, *prompt.ids], answers, weights))
    return out


def pack_rows(questions: Iterable[Tokens], length: int) -> list[list[Tokens]]:
    """Pack questions first-fit into rows of some length."""
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


def make_batch(packed: Sequence[Sequence[Tokens]], length: int, pad: int) -> Batch:
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


def attention_mask(batch: Batch) -> Array:
    """Return (B, 1, T, T): whether the token of the row attends to that of the column."""
    same = batch.question[:, :, None] == batch.question[:, None, :]
    own = (batch.answer[:, None, :] == 0) | (batch.answer[:, :, None] == batch.answer[:, None, :])
    causal = np.tril(np.ones((batch.ids.shape[1],) * 2, dtype=bool))
    return np.asarray((same & own & causal)[:, None])
