"""The language model and Bayesian optimization, together: the default Creator.

A small model that answers with bare configurations is asked once, before any trial, for many
of them. The most representative one opens the study, unless the task names a default, and all
of them together are an opinion on every point of the space. From then on each proposal is that
of the largest expected improvement under a process whose mean leans on the opinion (`bayes`).
How much it leans is inferred from the trials: agreement strengthens the opinion, and what
contradicts it wears it down. And a process without the opinion proposes in its place as often as
it explains the trials better. A model that is unsure has no opinion to speak of, and the center
of the space opens the study. One that does not know most of the hyperparameters by name is not
asked at all.

A model that talks reads the history and gives its reasons, so it proposes itself, by turns with
the optimizer. Whose turn it is is computed from the trials' origins and outcomes, and those of the
past studies that are remembered (`policy`), and drawn under a seed of the trial's number, so a
resumed study goes on alike.

What was good in the owner's past studies opens the study together with the model's thoughts, and
joins the opinion; where there is no model, it is the opinion (`remembering`).

What the built-in model was taught comes along, case by case. Where the task is of a kind that it
was taught, that opens the study and is the opinion (`teaching`); its thoughts are candidates beside
it, tried where they promise more. It serves a model that talks too, by turns, and where there is no
model. Where the owner has past studies to remember, or has fine-tuned the model, what was taught
joins those instead.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from localhpo.creator import rationale, remembering
from localhpo.creator.agent import Spent
from localhpo.creator.batch import one_by_one
from localhpo.creator.bayes import Bayes, Opinion
from localhpo.creator.choosing import representative
from localhpo.creator.guard import Guard, Verdict
from localhpo.creator.policy import SURE, TRUST, is_strange, model_share, standing, strangers
from localhpo.creator.protocol import History
from localhpo.creator.seeds import derive
from localhpo.errors import ModelError
from localhpo.trial import Proposal

if TYPE_CHECKING:
    from localhpo.creator.agent import Agent, Thoughts
    from localhpo.creator.policy import Standing
    from localhpo.creator.teaching import Teacher
    from localhpo.experience import Memory, Past
    from localhpo.trial import Config

CENTER = "the center of the space"

NOTHING_SIMILAR = "no past study that counts is similar enough to be remembered"

LEANING = "model+bo"
"""Origin of a proposal of the optimizer that leans on the model's opinion."""


class Hybrid:
    """Model and optimizer together; the task's default first.

    Args:
        agent: asks the model. None: there is no model, and the optimizer makes all proposals.
        note: with each of them then: why.
        memories: what was good in past studies, in this task's space.
        teacher: has what was taught of the task's kind, where there is something.
        pasts: studies whose record tells a model that talks from the optimizer.
    """

    def __init__(
        self,
        agent: Agent | None,
        *,
        note: str = "",
        memories: Sequence[Memory] = (),
        teacher: Teacher | None = None,
        pasts: Sequence[Past] = (),
    ) -> None:
        self._agent = agent
        self._note = note
        self._memories = memories
        self._teacher = teacher
        self._pasts = pasts
        self._standing: Standing | None = None

    @property
    def name(self) -> str:
        """The name by which a user selects it."""
        return "hybrid"

    @property
    def server(self) -> Any:
        """The server that this machine runs for the model; None where there is none."""
        return None if self._agent is None else self._agent.server

    @property
    def on_device(self) -> Any:
        """What a model in this process takes of a device; None where it is on none."""
        return None if self._agent is None else self._agent.on_device

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals.

        Raises:
            SpaceExhaustedError: nothing new is left.
            ModelError: the model failed, and the task says to stop then.
        """
        return one_by_one(self._one, history, n)

    def close(self) -> None:
        """Close the agent."""
        if self._agent is not None:
            self._agent.close()

    def _one(self, history: History) -> Proposal:
        proposal = self._made(history)
        notes = filter(None, (self._note, self._lacking(history), proposal.note))
        return dataclasses.replace(proposal, note="; ".join(notes))

    def _lacking(self, history: History) -> str:
        """Return, with the first trial, that there is nothing to remember where there should be."""
        wanted = history.task.creator.experience == "retrieve" and not self._memories
        return NOTHING_SIMILAR if wanted and not history.trials else ""

    def _made(self, history: History) -> Proposal:
        if not history.trials and history.task.space.has_defaults:
            return default(history, "the task's defaults")
        agent = self._agent
        if agent is not None and not agent.thinks_in_numbers:
            return self._by_turns(history, agent)
        memories, teacher = _in_one(history, self._memories, self._teacher)
        if agent is None:
            return teacher.propose(history) if teacher else _without_model(history, memories)
        if is_strange(history.task.space, agent.model.knows):
            return teacher.propose(history) if teacher else _unasked(history, agent, memories)
        Guard(history)  # an exhausted space is no question for the model
        started = time.perf_counter()
        spent = Spent()
        try:
            thoughts = agent.thoughts(history, spent)
        except ModelError as error:
            return agent.excused(history, error, spent)
        if teacher is not None:
            proposal = _taught(history, thoughts, teacher)
        else:
            proposal = _leaning(history, thoughts, memories)
        return dataclasses.replace(proposal, seconds=time.perf_counter() - started)

    def _by_turns(self, history: History, agent: Agent) -> Proposal:
        """Return the proposal of a model that talks, or of the optimizer."""
        turn = np.random.default_rng(derive(history, "turn")).random()
        if self._standing is None:
            self._standing = standing(history.task, self._pasts, agent.model.digest)
        share = model_share(
            history.trials, history.task.direction,
            taught=self._teacher is not None, earlier=self._standing,
        )  # fmt: skip
        if turn < share:
            return agent.propose_one(history)
        return stand_in(history, self._memories, self._teacher)


def stand_in(
    history: History, memories: Sequence[Memory] = (), teacher: Teacher | None = None
) -> Proposal:
    """Return the optimizer's proposal, with what it remembers of past studies, or was taught."""
    memories, teacher = _in_one(history, memories, teacher)
    if teacher is not None:
        return teacher.propose(history)
    if not memories:
        return Bayes().propose_one(history)
    opened = None if remembering.is_scored(history) else remembering.opening(history, memories)
    if opened is not None:
        return opened
    started = time.perf_counter()
    opinion = remembering.opinion(history.task.space, memories)
    proposal = remembering.suggested(history, opinion, remembering.LEANING)
    return dataclasses.replace(proposal, seconds=time.perf_counter() - started)


def _in_one(
    history: History, memories: Sequence[Memory], teacher: Teacher | None
) -> tuple[Sequence[Memory], Teacher | None]:
    """Return the memories, what was taught among them, where the owner's studies take part.

    They do where they are remembered, and where the model was trained on them.
    """
    own = bool(memories) or history.task.creator.experience == "finetuned"
    if teacher is None or not own:
        return memories, teacher
    return remembering.joined(memories, teacher.memories(history)), None


def _without_model(history: History, memories: Sequence[Memory]) -> Proposal:
    opened = remembering.opening(history, memories) if memories else None
    if opened is not None:
        return opened
    if not history.trials:
        return default(history, CENTER)
    return stand_in(history, memories)


def _unasked(history: History, agent: Agent, memories: Sequence[Memory]) -> Proposal:
    """Return the optimizer's proposal; the study's first one says why the model is not asked."""
    proposal = _without_model(history, memories)
    unknown = ", ".join(strangers(history.task.space, agent.model.knows))
    note = f"the model is not asked here: it does not know {unknown}"
    if any(note in trial.proposal.note for trial in history.trials):
        return proposal
    return dataclasses.replace(proposal, note="; ".join(filter(None, (note, proposal.note))))


def default(history: History, what: str, note: str = "") -> Proposal:
    """Return the default configuration, which the rationale calls `what`."""
    return Proposal(
        config=history.task.space.default(),
        origin="default",
        rationale=f"{what}, before there is evidence",
        rationale_by="computed",
        note=note,
    )


def _taught(history: History, thoughts: Thoughts, teacher: Teacher) -> Proposal:
    """Return the proposal of what the model was taught; its thoughts are candidates too."""
    proposal = teacher.propose(history, thoughts.configs)
    if proposal.origin == remembering.SAID:
        return _in_its_words(history, thoughts, proposal.config, proposal.tries)
    record = thoughts.record
    return dataclasses.replace(
        proposal, prompt_tokens=record.prompt_tokens, completion_tokens=record.completion_tokens
    )


def _leaning(history: History, thoughts: Thoughts, memories: Sequence[Memory]) -> Proposal:
    """Return the proposal that the model's thoughts, and past studies, lead to."""
    space, record = history.task.space, thoughts.record
    asked: dict[str, Any] = {
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
    }
    opinion, sure = _opinion_of(history, thoughts)
    if memories:
        first = thoughts.configs if sure and not history.trials else ()
        opened = remembering.opening(history, memories, first)
        if opened is not None and opened.origin == remembering.SAID:
            return _in_its_words(history, thoughts, opened.config, opened.tries)
        if opened is not None:
            return dataclasses.replace(opened, **asked)
        opinion = remembering.opinion(space, memories, thoughts.configs if sure else ())
    elif not sure and not history.trials:
        note = "the model is unsure here, so the center opens the study"
        return dataclasses.replace(default(history, CENTER, note), **asked)
    elif sure and (said := _said(history, thoughts)) is not None:
        return said
    origin = _origin(bool(memories), sure or not memories)
    proposal = dataclasses.replace(remembering.suggested(history, opinion, origin), **asked)
    if "model" not in proposal.origin:
        return proposal
    return dataclasses.replace(
        proposal, model_digest=record.model_digest,
        prompt=record.prompt, prompt_sha256=record.prompt_sha256,
    )  # fmt: skip


def _opinion_of(history: History, thoughts: Thoughts) -> tuple[Opinion, bool]:
    """Return the model's opinion, and whether it is sure of it."""
    space = history.task.space
    opinion = Opinion(space, thoughts.configs, TRUST)
    rng = np.random.default_rng(derive(dataclasses.replace(history, next_number=0), "blind"))
    blind = Opinion(space, [space.sample(rng) for _ in thoughts.configs], TRUST)
    return opinion, opinion.spread >= SURE * blind.spread


def _said(history: History, thoughts: Thoughts) -> Proposal | None:
    """Return what represents the thoughts best; None once the model has spoken and been scored."""
    space, record = history.task.space, thoughts.record
    spoken = any(trial.proposal.origin == record.origin for trial in history.trials)
    if spoken and remembering.is_scored(history):
        return None
    order = representative(space, thoughts.configs, [t.config for t in history.trials])
    pick = Guard(history).pick((thoughts.configs[i] for i in order), lambda config: config)
    if pick is None or pick.verdict is not Verdict.NEW:
        return None
    return _in_its_words(history, thoughts, pick.drawn, pick.tries)


def _in_its_words(history: History, thoughts: Thoughts, config: Config, tries: int) -> Proposal:
    """Return the proposal of one of the model's thoughts as it is."""
    reason, evidence = rationale.compute(history, config)
    return dataclasses.replace(
        thoughts.record, config=config, answer=history.task.space.text(config), tries=tries,
        rationale=reason, evidence=evidence,
    )  # fmt: skip


def _origin(remembers: bool, thinks: bool) -> str:
    if not remembers:
        return LEANING
    return remembering.WITH_MODEL if thinks else remembering.LEANING
