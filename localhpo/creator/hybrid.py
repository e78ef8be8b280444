"""A language model, past results and Bayesian optimization together: the default Creator.

A recipe in four steps:

1. the task's default opens the study, where there is one;
2. a short design of first configurations from what is known of the space (`initial_design`);
3. Bayesian optimization, guided by priors of the same sources (`bo`): the trials decide which of
   them take part, and how much they weigh;
4. where a source fails, the others and the optimizer go on without it.

The sources (`sources`): the language model, the owner's past studies, the meta-data of past data
sets. Each is followed as far as its kind could be trusted on spaces that it had not seen.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from localhpo.creator.agent import Agent
from localhpo.creator.bo import optimizer
from localhpo.creator.candidates import DuplicateFilter
from localhpo.creator.initial_design import propose_initial
from localhpo.creator.meta_data import MetaDataSource, open_meta_data
from localhpo.creator.model_source import ModelCost, ModelSource, describe_refusal
from localhpo.creator.protocol import History, propose_one_by_one
from localhpo.creator.registry import open_task_backend
from localhpo.creator.sources import PastStudiesSource, PriorSource, make_user_prior
from localhpo.errors import MissingExtraError, ModelError
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models.description import describe_model
from localhpo.task import CreatorSettings
from localhpo.trial import Proposal

if TYPE_CHECKING:
    from localhpo.creator.bo import Prior
    from localhpo.llm.placement import ModelPlacer
    from localhpo.llm.protocol import Backend, Model
    from localhpo.task import Task
    from localhpo.transfer import RetrievedConfig

NOTHING_RETRIEVED = "no past study is similar enough to learn from"


class HybridCreator:
    """Sources of priors and Bayesian optimization; the task's default first.

    It optimizes the first objective of a task and ignores its constraints.

    Args:
        model: asks the language model; None where there is none.
        meta_data: meta-data of the task's kind of model; None where there is none.
        retrieved: configurations of similar past studies, in this task's space.
        stop_on_error: whether a model that fails ends the study, instead of its part in it.
        owned: whether `close` closes the model's backend.
        note: added to the note of every proposal, e.g. why there is no model.
        first_note: added to the note of the first one, e.g. why the model is not asked.
    """

    def __init__(
        self,
        model: ModelSource | None = None,
        meta_data: MetaDataSource | None = None,
        retrieved: Sequence[RetrievedConfig] = (),
        *,
        stop_on_error: bool = False,
        owned: bool = False,
        note: str = "",
        first_note: str = "",
    ) -> None:
        self._model = model
        self._meta_data = meta_data
        self._past_studies = PastStudiesSource(retrieved) if retrieved else None
        self._stop_on_error = stop_on_error
        self._owned = owned
        self._note = note
        self._first_note = first_note

    @property
    def name(self) -> str:
        """The name by which a user selects it."""
        return "hybrid"

    @property
    def backend(self) -> Backend | None:
        """Backend of the model; None where there is no model."""
        return None if self._model is None else self._model.backend

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals.

        Raises:
            SpaceExhaustedError: nothing new is left.
            ModelError: the model failed, and the task says to stop then.
        """
        return propose_one_by_one(self.propose_one, history.first_objective(), n)

    def propose_one(self, history: History) -> Proposal:
        """Return one new proposal for a history of one objective. Raises as `propose` does."""
        started = time.perf_counter()
        DuplicateFilter(history)  # raises where the space is exhausted, before the model is asked
        notes = [self._note, "" if history.trials else self._first_note]
        if history.task.creator.transfer == "retrieve" and not history.trials:
            notes += [] if self._past_studies else [NOTHING_RETRIEVED]
        sources, priors = self._open_sources(history, notes)
        if (user_prior := make_user_prior(history.task.space)) is not None:
            priors.append(user_prior)
        proposal = propose_initial(history, sources) or optimizer.propose(history, priors)
        if self._model is not None:
            proposal = _add_model(proposal, self._model, history)
        return dataclasses.replace(
            proposal,
            seconds=time.perf_counter() - started,
            note="; ".join(filter(None, [*notes, proposal.note])),
        )

    def close(self) -> None:
        """Close the model's backend, if it is this Creator's own."""
        if self._model is not None and self._owned:
            self._model.backend.close()

    def _open_sources(
        self, history: History, notes: list[str]
    ) -> tuple[list[tuple[PriorSource, float]], list[Prior]]:
        """Return the sources by their trust, the largest first, and their priors."""
        found: list[tuple[PriorSource, Prior]] = []
        for source in (self._past_studies, self._meta_data):
            if source is not None:
                found.append((source, source.prior(history)))
        model = self._model
        if model is not None and not is_redundant(model.model, history.task, self._meta_data):
            try:
                prior = model.prior(history)
            except ModelError as error:
                if self._stop_on_error:
                    raise
                notes.append(f"without the model: {error}")
            else:
                found += [] if prior is None else [(model, prior)]
            notes += [] if history.trials else [model.note]
        found.sort(key=lambda pair: -pair[1].trust)
        return [(source, prior.trust) for source, prior in found], [prior for _, prior in found]


def is_redundant(model: Model, task: Task, meta_data: MetaDataSource | None) -> bool:
    """Return whether a model knows no more than its meta-data, which it was trained on."""
    is_tuned = task.creator.transfer == "finetuned"
    return model.prompt == "compact" and not is_tuned and meta_data is not None


def open_hybrid(
    task: Task,
    backend: Backend | None = None,
    placer: ModelPlacer | None = None,
    retrieved: Sequence[RetrievedConfig] = (),
) -> HybridCreator:
    """Return the hybrid of a task; options and errors as `open_creator` has them."""
    settings, note, owned = task.creator, "", backend is None
    stop_on_error = settings.on_model_error == "stop"
    built_in = _describe_built_in(task) if backend is None else None
    if built_in is not None:
        meta_data = open_meta_data(task, built_in)
        refusal = describe_refusal(built_in, task)
        if refusal or is_redundant(built_in, task, meta_data):  # not even loaded
            return HybridCreator(None, meta_data, retrieved, first_note=refusal)
    try:
        backend = open_task_backend(task, placer) if backend is None else backend
    except MissingExtraError as error:
        if built_in is None or stop_on_error:
            raise
        note = f"no language model: {error} ({error.hint})"
    return HybridCreator(
        None if backend is None else ModelSource(backend),
        open_meta_data(task, None if backend is None else backend.model),
        retrieved,
        stop_on_error=stop_on_error,
        owned=owned,
        note=note,
    )


def _describe_built_in(task: Task) -> Model | None:
    """Return the built-in model, where the task names neither a model nor a backend."""
    settings, default = task.creator, CreatorSettings()
    named = (settings.backend, settings.model) != (default.backend, default.model)
    if named or settings.transfer == "finetuned":
        return None
    folder = model_registry.find_model(model_registry.DEFAULT)
    card = model_registry.read_card(folder)
    return describe_model(folder, card, card.context_length, deterministic=True)


def open_agent(
    task: Task,
    backend: Backend | None = None,
    placer: ModelPlacer | None = None,
    retrieved: Sequence[RetrievedConfig] = (),
) -> Agent:
    """Return the model alone; options and errors as `open_creator` has them."""
    opened = open_task_backend(task, placer) if backend is None else backend
    without_model = HybridCreator(None, open_meta_data(task, opened.model), retrieved)
    return Agent(
        opened,
        on_model_error=task.creator.on_model_error,
        fallback=without_model.propose_one,
        owned=backend is None,
        retrieved=retrieved,
    )


def _add_model(proposal: Proposal, model: ModelSource, history: History) -> Proposal:
    """Return a proposal with the model that took part in it, and the cost since the last one."""
    cost, model.cost = model.cost, ModelCost()
    proposal = dataclasses.replace(
        proposal, prompt_tokens=cost.prompt_tokens, completion_tokens=cost.completion_tokens
    )
    if not proposal.origin.uses("llm") or proposal.model_digest is not None:
        return proposal
    record = model.draw(history).record
    return dataclasses.replace(
        proposal, model_digest=record.model_digest,
        prompt=record.prompt, prompt_sha256=record.prompt_sha256,
    )  # fmt: skip
