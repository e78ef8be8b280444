"""Reads what an OpenAI-compatible server answers: finished texts and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localhpo.errors import BackendError, GenerationError
from localhpo.llm import tokens
from localhpo.llm.protocol import Completion


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What of a request is needed to read its reply."""

    prompt_tokens: int
    """Where the server does not count them itself."""
    max_tokens: int
    seed: int
    seed_step: int = 0
    """From the seed of one answer to that of the next, where the server says how it seeds them."""


def parse_completions(reply: Any, asked: RequestInfo, seconds: float) -> list[Completion]:
    """Return the answers of a reply, to a chat or to a plain prompt.

    Args:
        reply: The JSON that came back.
        asked: What it answers.
        seconds: That the request took.

    Raises:
        GenerationError: an answer did not end within `max_tokens`.
        BackendError: this is no completion, or one that did not end by itself.
    """
    try:
        choices: list[Mapping[str, Any]] = reply["choices"]
        texts = [_finished(_text(c), c["finish_reason"], asked.max_tokens) for c in choices]
        usage = reply.get("usage") or {}
    except (KeyError, TypeError, AttributeError) as exc:
        raise BackendError(f"the server sent something else than a completion: {reply!r}") from exc
    if not choices:
        raise BackendError(f"the server sent a completion without an answer: {reply!r}")
    counts = _counts(choices, texts, usage.get("completion_tokens"))
    return [
        Completion(
            text=text,
            prompt_tokens=usage.get("prompt_tokens") or asked.prompt_tokens,
            completion_tokens=count,
            seconds=seconds / len(texts),
            seed=asked.seed + index * asked.seed_step,
        )
        for index, (text, count) in enumerate(zip(texts, counts, strict=True))
    ]


def _text(choice: Mapping[str, Any]) -> str | None:
    text: str | None = choice["message"]["content"] if "message" in choice else choice["text"]
    return text


def _counts(choices: list[Mapping[str, Any]], texts: list[str], total: int | None) -> list[int]:
    """Return the tokens of each answer."""
    if all(choice.get("token_ids") for choice in choices):  # vLLM tells, when asked
        return [len(choice["token_ids"]) for choice in choices]
    # Others count all answers of a request together.
    spent = total or sum(map(tokens.estimate_tokens, texts))
    return [spent // len(texts) + (i < spent % len(texts)) for i in range(len(texts))]


def _finished(text: str | None, reason: str, max_tokens: int) -> str:
    """Return the text of an answer that ended by itself."""
    if reason == "length":
        raise GenerationError(
            f"an answer did not end within {max_tokens} tokens: {text!r}",
            hint="if it is full of blanks, start vLLM with disable_any_whitespace",
        )
    if reason != "stop" or not text:
        raise BackendError(
            f"the server ended an answer for reason {reason!r}, with the text {text!r}",
            hint="where a model thinks before it answers, switch that off in the server",
        )
    return text
