"""The language model as a Creator.

It is given the facts of the study and answers under a grammar, so its answers are valid; this
module checks that they are new. A model that repeats known configurations is asked again, with
more samples and a higher temperature. If it still does, or fails, the task's `on_model_error`
decides: stop, or take the proposal of an engine, under the engine's own name.

A chat model gives its reason with each answer. A configuration model answers with bare
configurations. It is asked for many at once, of which the medoid is taken: the middle of what a
small model samples is far better than its likeliest answer, which clings to the edges of the
ranges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from localhpo import grammar
from localhpo.creator import prompt, rationale
from localhpo.creator.candidates import CandidateStatus, DuplicateFilter, medoid_order
from localhpo.creator.model_source import ModelCost
from localhpo.creator.protocol import History, derive_seed, propose_one_by_one
from localhpo.errors import ConfigurationError, GenerationError, ModelError
from localhpo.llm.protocol import AnswerConstraint, Backend, Completion, GenerationRequest, Message
from localhpo.trial import LLM, Proposal

if TYPE_CHECKING:
    from localhpo.space import Space
    from localhpo.transfer import RetrievedConfig


_SEED_LABEL = "model"
"""Part of every sampling seed; its text may not change, or seeds would."""


@dataclass(frozen=True, slots=True)
class SamplingRound:
    """One call of the backend; the next round follows when none of its answers was new."""

    samples: int
    temperature: float


ROUNDS: Mapping[prompt.Style, Sequence[SamplingRound]] = {
    "chat": (SamplingRound(1, 0.7), SamplingRound(2, 1.0), SamplingRound(4, 1.3)),
    "compact": (SamplingRound(24, 1.0), SamplingRound(24, 1.3), SamplingRound(24, 1.6)),
}


@dataclass(frozen=True, slots=True)
class _ValidAnswer:
    completion: Completion
    answer: grammar.Answer


@dataclass(frozen=True, slots=True)
class _ModelRequest:
    """What the model is asked, and the tokens left for its answer."""

    history: History
    messages: Sequence[Message]
    constraint: AnswerConstraint
    trials: tuple[int, ...]
    """Numbers of the trials in the prompt: those that the answer may name."""
    max_tokens: int


class Agent:
    """A language model alone.

    Args:
        backend: asks the model. Closed with the agent when `owned`.
        on_model_error: what to do when the model fails, or only repeats known configurations.
        fallback: makes the proposal then, if that is `engine`.
        owned: whether `close` closes the backend too.
        retrieved: what was good in past studies; shown to a chat model.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        on_model_error: Literal["stop", "engine"],
        fallback: Callable[[History], Proposal],
        owned: bool = False,
        retrieved: Sequence[RetrievedConfig] = (),
    ) -> None:
        self._backend = backend
        self._retrieved = retrieved
        self._on_model_error = on_model_error
        self._fallback = fallback
        self._owned = owned
        self._style: prompt.Style = backend.model.prompt

    @property
    def backend(self) -> Backend:
        """Backend of the model."""
        return self._backend

    @property
    def name(self) -> str:
        """The name by which a user selects it."""
        return "agent"

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals.

        Raises:
            SpaceExhaustedError: nothing new is left.
            ModelError: the model failed, and the task says to stop then.
        """
        return propose_one_by_one(self.propose_one, history, n)

    def propose_one(self, history: History) -> Proposal:
        """Return one new proposal. Raises as `propose` does."""
        duplicates = DuplicateFilter(history)
        spent = ModelCost()
        try:
            return self._ask(history, duplicates, spent)
        except ModelError as error:
            return self.fall_back(history, error, spent)

    def fall_back(self, history: History, error: ModelError, spent: ModelCost) -> Proposal:
        """Return the proposal of the engine in place of a model that failed.

        Raises:
            ModelError: `on_model_error` is `stop`.
        """
        if self._on_model_error == "stop":
            raise error
        proposal = self._fallback(history.first_objective())
        note = f"fallback for the model: {error}"
        return dataclasses.replace(
            proposal,
            note="; ".join(filter(None, (note, proposal.note))),
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            seconds=proposal.seconds + spent.seconds,
        )

    def close(self) -> None:
        """Close the backend, if it is this agent's own."""
        if self._owned:
            self._backend.close()

    def _ask(self, history: History, duplicates: DuplicateFilter, spent: ModelCost) -> Proposal:
        """Return the model's proposal.

        Raises:
            ModelError: it failed, or none of its answers was new.
        """
        request = self._build_request(history)
        near: _ValidAnswer | None = None
        cut_short: GenerationError | None = None
        tries = 0
        for attempt, sampling in enumerate(ROUNDS[self._style]):
            try:
                draws = self._draw_answers(request, sampling, attempt, spent)
            except GenerationError as error:
                cut_short = error
                continue
            selection = duplicates.select(draws, lambda draw: draw.answer.config)
            if selection is None:
                continue
            tries += selection.tries
            if selection.status is CandidateStatus.NEW:
                return self._make_proposal(request, selection.candidate, tries, spent)
            if selection.status is CandidateStatus.NEAR_DUPLICATE and near is None:
                near = selection.candidate
        if near is not None:
            note = "near duplicate of an earlier trial"
            return self._make_proposal(request, near, tries, spent, note)
        if cut_short is not None and spent.answers == 0:
            raise cut_short
        raise ModelError(
            f"none of its {spent.answers} answers was a valid configuration that is new",
            hint='use a larger model, which repeats itself less, or the creator "hybrid"',
        )

    def _build_request(self, history: History) -> _ModelRequest:
        """Return the prompt with as much history as fits into the model's context.

        Raises:
            ModelError: not even the prompt without history fits.
        """
        space, model, chat = history.task.space, self._backend.model, self._style == "chat"
        messages, numbers, answer_tokens = prompt.fit_prompt(
            history, model, self._backend.count_tokens, self._retrieved if chat else ()
        )
        constraint = AnswerConstraint(
            grammar=grammar.lark_grammar(space, rationale=chat, trials=numbers),
            schema=grammar.json_schema(space, rationale=chat, trials=numbers),
        )
        return _ModelRequest(history, messages, constraint, numbers, max_tokens=answer_tokens)

    def _draw_answers(
        self, request: _ModelRequest, sampling: SamplingRound, attempt: int, spent: ModelCost
    ) -> Sequence[_ValidAnswer]:
        """Return the valid answers of one round, in medoid order.

        Raises:
            ModelError: the backend failed; a GenerationError may pass with other seeds.
        """
        history, space = request.history, request.history.task.space
        chat = self._style == "chat"
        completions = self._backend.generate(
            GenerationRequest(
                request.messages,
                request.constraint,
                n=sampling.samples,
                max_tokens=request.max_tokens,
                temperature=sampling.temperature,
                seed=derive_seed(history, _SEED_LABEL, attempt),
            )
        )
        spent.add(completions)
        draws = [
            _ValidAnswer(completion, answer)
            for completion in completions
            if (answer := _parse(completion.text, space, chat, request.trials)) is not None
        ]
        tried = [trial.config for trial in history.trials]
        order = medoid_order(space, [draw.answer.config for draw in draws], tried)
        return [draws[index] for index in order]

    def _make_proposal(
        self,
        request: _ModelRequest,
        draw: _ValidAnswer,
        tries: int,
        spent: ModelCost,
        note: str = "",
    ) -> Proposal:
        config = draw.answer.config
        reason, evidence = draw.answer.analysis, draw.answer.evidence
        has_reason = self._style == "chat"
        if not has_reason:
            reason, evidence = rationale.compute_rationale(request.history, config)
        return Proposal(
            config=config,
            origin=LLM,
            rationale=reason,
            rationale_by="model" if has_reason else "computed",
            evidence=evidence,
            tries=tries,
            seed=draw.completion.seed,
            model_digest=self._backend.model.digest,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            seconds=spent.seconds,
            prompt=prompt.join_messages(request.messages),
            prompt_sha256=prompt.sha256(request.messages),
            answer=draw.completion.text,
            note=note,
        )


def _parse(text: str, space: Space, chat: bool, trials: tuple[int, ...]) -> grammar.Answer | None:
    """Return the answer; None for an invalid one (of a server that takes only a schema)."""
    try:
        return grammar.parse_answer(text, space, rationale=chat, trials=trials)
    except ConfigurationError:
        return None
