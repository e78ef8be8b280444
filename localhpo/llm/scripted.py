"""Backend with prepared answers instead of a model, for tests, simulations and examples."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from localhpo.errors import BackendError, ConstraintError, GenerationError, InputError
from localhpo.llm import tokens
from localhpo.llm.protocol import (
    AnswerConstraint,
    Completion,
    GenerationRequest,
    Message,
    Model,
    derive_seeds,
)

Script = Callable[[Sequence[Message], AnswerConstraint, int], str]
"""From messages, constraint and seed to an answer."""


def open_scripted(model: str | None, script: Sequence[str] | Script | None) -> ScriptedBackend:
    """Return a backend with the answers of a script, or of the file `model`."""
    if script is not None:
        return ScriptedBackend(script)
    if model is None:
        raise InputError("backend scripted needs a script, or model = a file with its answers")
    return ScriptedBackend.from_file(Path(model))


class ScriptedBackend:
    """Returns the answers of a list, in order, or those of a function.

    Each is checked against the grammar if llguidance is installed (the extra `local`), else it is
    not checked.
    """

    server = None
    on_device = None

    def __init__(self, script: Sequence[str] | Script, *, context_length: int = 8192) -> None:
        """Take answers, or a function that returns them."""
        self._script = script
        self._given = 0
        self._closed = False
        self.model = Model(
            name="scripted",
            digest="scripted",
            context_length=context_length,
            deterministic=callable(script),
        )

    @classmethod
    def from_file(cls, path: Path) -> ScriptedBackend:
        """Take the lines of a file as answers, each in JSON.

        Raises:
            InputError: the file cannot be read, or a line is not JSON.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise InputError(f"the answers cannot be read: {exc}") from exc
        for number, line in enumerate(lines, start=1):
            try:
                json.loads(line or "0")
            except ValueError as exc:
                raise InputError(f"{path}, line {number}: an answer must be JSON: {exc}") from exc
        return cls([line for line in lines if line])

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return an upper estimate of the tokens of the prompt."""
        return tokens.estimate_prompt_tokens(messages)

    def generate(self, request: GenerationRequest) -> list[Completion]:
        """Return the next answers. The temperature is ignored."""
        if self._closed:
            raise BackendError("the backend is closed")
        return [
            self._complete(request, answer_seed)
            for answer_seed in derive_seeds(request.seed, request.n)
        ]

    def close(self) -> None:
        """Refuse further requests."""
        self._closed = True

    def _complete(self, request: GenerationRequest, seed: int) -> Completion:
        started = time.perf_counter()
        text = self._next(request, seed)
        if (count := tokens.estimate_tokens(text)) > request.max_tokens:
            raise GenerationError(
                f"an answer of {count} tokens is over {request.max_tokens}: {text!r}"
            )
        _check(text, request.constraint.grammar)
        return Completion(
            text=text,
            prompt_tokens=self.count_tokens(request.messages),
            completion_tokens=count,
            seconds=time.perf_counter() - started,
            seed=seed,
        )

    def _next(self, request: GenerationRequest, seed: int) -> str:
        if callable(self._script):
            return self._script(request.messages, request.constraint, seed)
        if self._given == len(self._script):
            raise BackendError(
                f"the script has no more answers: it had {self._given}",
                hint="add answers to the script",
            )
        self._given += 1
        return self._script[self._given - 1]


def _check(text: str, grammar: str) -> None:
    try:
        from llguidance import LLMatcher, LLTokenizer
    except ImportError:
        return
    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0)
    if matcher.is_error():
        raise ConstraintError(f"the grammar cannot be compiled: {matcher.get_error()}")
    if not (matcher.consume_tokens(tokenizer.tokenize_str(text)) and matcher.is_accepting()):
        raise ConstraintError(f"the script's answer does not match the grammar: {text!r}")
