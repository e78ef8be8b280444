"""Requests and replies of OpenAI-compatible servers, from and to those of a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localhpo.errors import BackendError, GenerationError
from localhpo.llm import tokens
from localhpo.llm.protocol import Completion, GenerationRequest


def sampling_fields(request: GenerationRequest) -> dict[str, Any]:
    """Return the fields of a request besides its prompt and its constraint."""
    return {
        "n": request.n,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
    }


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """The part of a request that is needed to parse its reply."""

    prompt_tokens: int
    """Tokens of the prompt, for servers that do not report them."""
    max_tokens: int
    seed: int
    seed_step: int = 0
    """Difference between the seeds of successive answers, where it is documented."""


def parse_completions(reply: Any, request: RequestInfo, seconds: float) -> list[Completion]:
    """Return the completions of a reply to a chat or a plain prompt.

    Args:
        reply: The JSON of the reply.
        request: The request.
        seconds: Duration of the request.

    Raises:
        GenerationError: an answer did not end within `max_tokens`.
        BackendError: the reply is no completion, or an answer was cut off.
    """
    try:
        choices: list[Mapping[str, Any]] = reply["choices"]
        texts = [_finished(_text(c), c["finish_reason"], request.max_tokens) for c in choices]
        usage = reply.get("usage") or {}
    except (KeyError, TypeError, AttributeError) as exc:
        raise BackendError(f"the reply of the server is no completion: {reply!r}") from exc
    if not choices:
        raise BackendError(f"the reply of the server has no answer: {reply!r}")
    counts = _counts(choices, texts, usage.get("completion_tokens"))
    return [
        Completion(
            text=text,
            prompt_tokens=usage.get("prompt_tokens") or request.prompt_tokens,
            completion_tokens=count,
            seconds=seconds / len(texts),
            seed=request.seed + index * request.seed_step,
        )
        for index, (text, count) in enumerate(zip(texts, counts, strict=True))
    ]


def _text(choice: Mapping[str, Any]) -> str | None:
    text: str | None = choice["message"]["content"] if "message" in choice else choice["text"]
    return text


def _counts(choices: list[Mapping[str, Any]], texts: list[str], total: int | None) -> list[int]:
    """Return the number of tokens of each answer."""
    if all(choice.get("token_ids") for choice in choices):  # vLLM returns them on request
        return [len(choice["token_ids"]) for choice in choices]
    # Other servers report the sum over the answers of a request.
    total = total or sum(map(tokens.estimate_tokens, texts))
    return [total // len(texts) + (i < total % len(texts)) for i in range(len(texts))]


def _finished(text: str | None, reason: str, max_tokens: int) -> str:
    """Return the text of an answer, if it is complete."""
    if reason == "length":
        raise GenerationError(
            f"an answer did not end within {max_tokens} tokens: {text!r}",
            hint="if the answer is mostly white space, start vLLM with disable_any_whitespace",
        )
    if reason != "stop" or not text:
        raise BackendError(
            f"the server ended an answer with reason {reason!r} and text {text!r}",
            hint="if the model reasons before it answers, switch reasoning off in the server",
        )
    return text
