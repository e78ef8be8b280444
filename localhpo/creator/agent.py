"""The language model as a Creator.

It is shown the facts of the study and answers under a grammar, so its answers are valid; that
they are new is seen to here. A model that repeats what is known is asked again, with more
samples and a higher temperature. When it still does, or fails, the task's `on_model_error`
decides: stop, or let an engine stand in, under the engine's own name.

A model that can talk gives its reason with each answer. One that is too small to is asked for
many configurations at once, of which the most representative is taken: the middle of what a
small model has in mind is far better than what it finds most likely, which clings to the edges
of the ranges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from localhpo import grammar
from localhpo.creator import context, prompt, rationale
from localhpo.creator.batch import one_by_one
from localhpo.creator.choosing import representative
from localhpo.creator.guard import Guard, Verdict
from localhpo.creator.protocol import History
from localhpo.creator.seeds import derive
from localhpo.errors import ConfigurationError, GenerationError, ModelError
from localhpo.llm.protocol import Backend, Completion, Constraint, Message, Model
from localhpo.space import Categorical, Ordinal
from localhpo.space.values import spelled
from localhpo.trial import Config, Proposal

if TYPE_CHECKING:
    from localhpo.experience import Memory
    from localhpo.space import Parameter, Space

OnModelError = Literal["stop", "engine"]
StandIn = Callable[[History], Proposal]

ORIGIN = "model"


@dataclass(frozen=True, slots=True)
class Round:
    """One call of the backend; the next one comes when none of its answers was new."""

    samples: int
    temperature: float


ROUNDS: Mapping[prompt.Style, Sequence[Round]] = {
    "chat": (Round(1, 0.7), Round(2, 1.0), Round(4, 1.3)),
    "compact": (Round(24, 1.0), Round(24, 1.3), Round(24, 1.6)),
}

THOUGHTS = 32
"""Configurations that a small model is asked for at the start of a study."""

LIMITS: Mapping[prompt.Style, Sequence[int]] = {
    "chat": (context.DEFAULT_LIMIT, 24, 18, 12, 8, 5, 3, 2, 1, 0),
    "compact": (12, 8, 5, 3, 2, 1, 0),  # its template shows no more than twelve
}
"""Finished trials shown: the first number whose prompt fits the model is taken."""

_ANALYSIS_TOKENS = 700
"""One for each of 600 characters of analysis, and for keys and evidence. Words take fewer; what
takes more (600 rare characters) is cut short, and drawn again."""


@dataclass(frozen=True, slots=True)
class _Draw:
    completion: Completion
    answer: grammar.Answer


@dataclass(frozen=True, slots=True)
class _Question:
    """What the model is asked, and the room left for its answer."""

    messages: Sequence[Message]
    constraint: Constraint
    trials: tuple[int, ...]
    """Numbers of the trials that are shown: those that the answer may name."""
    max_tokens: int


@dataclass
class Spent:
    """What asking has cost so far."""

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


@dataclass(frozen=True, slots=True)
class Thoughts:
    """What a model would try before it has seen any trial, drawn many times."""

    configs: Sequence[Config]
    record: Proposal
    """How they came about: model, prompt, seed and cost; its configuration is the first drawn."""


class Agent:
    """A language model alone.

    Args:
        backend: asks the model. Closed with the agent when `owned`.
        on_model_error: what to do when it fails, or repeats itself without end.
        stand_in: makes the proposal then, for `engine`.
        owned: whether `close` closes the backend too.
        memories: what was good in past studies; shown to a model that talks.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        on_model_error: OnModelError,
        stand_in: StandIn,
        owned: bool = False,
        memories: Sequence[Memory] = (),
    ) -> None:
        self._backend = backend
        self._memories = memories
        self._on_model_error = on_model_error
        self._stand_in = stand_in
        self._owned = owned
        self._style: prompt.Style = backend.model.prompt
        self._thought: dict[str, Thoughts] = {}

    @property
    def thinks_in_numbers(self) -> bool:
        """Whether the model answers with bare configurations, so cheaply that many are drawn."""
        return self._style == "compact"

    @property
    def server(self) -> Any:
        """The server that this machine runs for the model; None where there is none."""
        return getattr(self._backend, "server", None)

    @property
    def on_device(self) -> Any:
        """What a model in this process takes of a device; None where it is on none."""
        return getattr(self._backend, "on_device", None)

    @property
    def model(self) -> Model:
        """The model that is asked."""
        return self._backend.model

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
        return one_by_one(self.propose_one, history, n)

    def propose_one(self, history: History) -> Proposal:
        """Return one new proposal. Raises as `propose` does."""
        guard = Guard(history)
        spent = Spent()
        try:
            return self._ask(history, guard, spent)
        except ModelError as error:
            return self.excused(history, error, spent)

    def thoughts(self, history: History, spent: Spent) -> Thoughts:
        """Return what the model would try before any trial; asked once, then remembered.

        Raises:
            ModelError: the model failed, or said nothing valid.
        """
        fresh = dataclasses.replace(history, trials=(), next_number=0)
        question = self._question(fresh)
        key = f"{fresh.seed} {prompt.sha256(question.messages)}"
        if key in self._thought:
            known = self._thought[key]
            free = dataclasses.replace(
                known.record, prompt_tokens=0, completion_tokens=0, seconds=0.0
            )
            return dataclasses.replace(known, record=free)
        draws: Sequence[_Draw] = ()
        cut_short: GenerationError | None = None
        for attempt in range(len(ROUNDS[self._style])):
            try:
                draws = self._draw(fresh, question, Round(THOUGHTS, 1.0), attempt, spent)
                break
            except GenerationError as error:
                cut_short = error
        else:
            raise cut_short or ModelError("no round was asked for")
        if not draws:
            raise ModelError(f"none of its {spent.answers} answers was a valid configuration")
        made = Thoughts(
            tuple(draw.answer.config for draw in draws),
            self._proposal(fresh, question, draws[0], len(draws), spent),
        )
        self._thought[key] = made
        return made

    def excused(self, history: History, error: ModelError, spent: Spent) -> Proposal:
        """Return what stands in for a model that failed.

        Raises:
            ModelError: the task says to stop then.
        """
        if self._on_model_error == "stop":
            raise error
        proposal = self._stand_in(history)
        note = f"stands in for the model: {error}"
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

    def _ask(self, history: History, guard: Guard, spent: Spent) -> Proposal:
        """Return the model's proposal.

        Raises:
            ModelError: it failed, or nothing it said was new.
        """
        question = self._question(history)
        near: _Draw | None = None
        cut_short: GenerationError | None = None
        tries = 0
        for attempt, plan in enumerate(ROUNDS[self._style]):
            try:
                draws = self._draw(history, question, plan, attempt, spent)
            except GenerationError as error:
                cut_short = error
                continue
            pick = guard.pick(draws, lambda draw: draw.answer.config)
            if pick is None:
                continue
            tries += pick.tries
            if pick.verdict is Verdict.NEW:
                return self._proposal(history, question, pick.drawn, tries, spent)
            if pick.verdict is Verdict.NEAR and near is None:
                near = pick.drawn
        if near is not None:
            return self._proposal(history, question, near, tries, spent, note="a near duplicate")
        if cut_short is not None and spent.answers == 0:
            raise cut_short
        raise ModelError(
            f"none of its {spent.answers} answers was a valid configuration that is new",
            hint="a larger model repeats itself less; the hybrid creator needs it less often",
        )

    def _question(self, history: History) -> _Question:
        """Return the prompt with as much history as the model can hold.

        Raises:
            ModelError: not even the prompt without history fits.
        """
        space, model, chat = history.task.space, self._backend.model, self._style == "chat"
        messages, numbers, room = fitted(
            history, model, self._backend.count_tokens, self._memories if chat else ()
        )
        constraint = Constraint(
            grammar=grammar.lark(space, rationale=chat, trials=numbers),
            schema=grammar.json_schema(space, rationale=chat, trials=numbers),
        )
        return _Question(messages, constraint, numbers, max_tokens=room)

    def _draw(
        self, history: History, question: _Question, plan: Round, attempt: int, spent: Spent
    ) -> Sequence[_Draw]:
        """Return the valid answers of one round, the most representative first.

        Raises:
            ModelError: the backend failed; a GenerationError may pass with other seeds.
        """
        space, chat = history.task.space, self._style == "chat"
        completions = self._backend.generate(
            question.messages,
            question.constraint,
            n=plan.samples,
            max_tokens=question.max_tokens,
            temperature=plan.temperature,
            seed=derive(history, ORIGIN, attempt),
        )
        spent.add(completions)
        draws = [
            _Draw(completion, answer)
            for completion in completions
            if (answer := _parse(completion.text, space, chat, question.trials)) is not None
        ]
        taken = [trial.config for trial in history.trials]
        order = representative(space, [draw.answer.config for draw in draws], taken)
        return [draws[index] for index in order]

    def _proposal(
        self,
        history: History,
        question: _Question,
        draw: _Draw,
        tries: int,
        spent: Spent,
        note: str = "",
    ) -> Proposal:
        config = draw.answer.config
        reason, evidence = draw.answer.analysis, draw.answer.evidence
        said = self._style == "chat"
        if not said:
            reason, evidence = rationale.compute(history, config)
        return Proposal(
            config=config,
            origin=ORIGIN,
            rationale=reason,
            rationale_by="model" if said else "computed",
            evidence=evidence,
            tries=tries,
            seed=draw.completion.seed,
            model_digest=self._backend.model.digest,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            seconds=spent.seconds,
            prompt=prompt.text(question.messages),
            prompt_sha256=prompt.sha256(question.messages),
            answer=draw.completion.text,
            note=note,
        )


def fitted(
    history: History,
    model: Model,
    count_tokens: Callable[[Sequence[Message]], int],
    memories: Sequence[Memory] = (),
) -> tuple[Sequence[Message], tuple[int, ...], int]:
    """Return the prompt with as much history as a model can hold: to ask it, or to train it.

    With the numbers of the trials that it shows, and the tokens left to an answer.

    Raises:
        ModelError: not even the prompt without history fits.
    """
    room = answer_tokens(history.task.space) + (_ANALYSIS_TOKENS if model.prompt == "chat" else 0)
    tokens = 0
    for limit in LIMITS[model.prompt]:
        facts = context.facts(history, limit=limit, memories=memories)
        messages = prompt.messages(facts, model.prompt)
        tokens = count_tokens(messages)
        if tokens + room <= model.context_length:
            return messages, tuple(sorted(trial.number for trial in facts.trials)), room
    raise ModelError(
        f"{model.name} holds {model.context_length} tokens; the prompt without any history "
        f"takes {tokens} and the answer up to {room}",
        hint="shorten the background, or choose a model with a longer context",
    )


def answer_tokens(space: Space) -> int:
    """Return more tokens than a configuration's text takes: one for each of its bytes.

    A tokenizer that does not know a script spells it byte by byte.
    """
    return 16 + sum(len(spelled(p.name).encode()) + 2 + _longest(p) for p in space.parameters)


def _longest(parameter: Parameter) -> int:
    """Return the bytes of the longest value, or more."""
    if isinstance(parameter, Categorical | Ordinal):
        return max(len(parameter.text(value).encode()) for value in parameter.values)
    bounds = (parameter.text(parameter.low), parameter.text(parameter.high))
    return max(16, 3 + max(map(len, bounds)))  # a thousandth of the range: three more digits


def _parse(text: str, space: Space, chat: bool, trials: tuple[int, ...]) -> grammar.Answer | None:
    """Return the answer; None where a server that takes only a schema let one slip."""
    try:
        return grammar.parse(text, space, rationale=chat, trials=trials)
    except ConfigurationError:
        return None
