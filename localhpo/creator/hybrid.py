"""A language model and Bayesian optimization together: the default Creator.

The task's default opens the study, where there is one. Then it depends on the model:

A configuration model (small, answers with bare configurations) is asked once, before any trial, for
many configurations. The most representative one opens the study, unless the task names a default,
and all of them together are a prior on the space. From then on each proposal maximizes the expected
improvement under a process whose mean follows the prior (`bo`). The weight of the prior is
inferred from the trials, and a process without the prior proposes in its place as often as it
explains the trials better. Where the samples are no closer together than random ones, the model is
uncertain and the center of the space opens the study. A model that does not know most of the
hyperparameters by name is not asked at all.

A chat model reads the history and gives its reasons, so it proposes itself, by turns with the
optimizer. Whose turn it is depends on the origins and outcomes of the trials, and on those of
similar past studies (`policy`). It is drawn under a seed of the trial's number, so a resumed study
goes on in the same way.

Configurations retrieved from the owner's past studies open the study together with the model's
samples, and join the prior; where there is no model, they are the prior (`warm_start`).

The meta-data of the built-in model serves every model, and studies without one. Where it holds data
sets of the task's kind, it makes the initial design and is the prior (`meta_proposer`); the
model's samples are candidates beside it, tried where they promise more. Where the owner has past
studies to retrieve, or has fine-tuned the model, the meta-data joins those instead.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from localhpo.creator import rationale, warm_start
from localhpo.creator.agent import Agent, ModelCost
from localhpo.creator.bo import BayesianOptimizer, SamplePrior
from localhpo.creator.bo.optimizer import propose_guided
from localhpo.creator.candidates import DuplicateFilter, medoid_order
from localhpo.creator.meta_proposer import MetaDataProposer, open_meta_data
from localhpo.creator.policy import (
    MIN_SPREAD_RATIO,
    PRIOR_WEIGHT,
    is_unknown_space,
    model_share,
    past_track_record,
    unknown_parameters,
)
from localhpo.creator.protocol import History, derive_seed, propose_one_by_one
from localhpo.creator.registry import open_task_backend
from localhpo.errors import MissingExtraError, ModelError
from localhpo.task import CreatorSettings
from localhpo.trial import DEFAULT, LLM, Proposal

if TYPE_CHECKING:
    from localhpo.creator.agent import ModelSamples
    from localhpo.creator.policy import TrackRecord
    from localhpo.llm.placement import ModelPlacer
    from localhpo.llm.protocol import Backend
    from localhpo.task import Task
    from localhpo.transfer import PastStudy, RetrievedConfig
    from localhpo.trial import Config

CENTER = "the center of the space"

NOTHING_RETRIEVED = "no past study is similar enough to learn from"


class Hybrid:
    """Model and optimizer together; the task's default first.

    It optimizes the first objective of a task and ignores its constraints.

    Args:
        agent: asks the model. None: there is no model, and the optimizer makes all proposals.
        note: added to the note of every proposal, e.g. why there is no model.
        retrieved: configurations of similar past studies, in this task's space.
        meta_data: proposes from meta-data of the task's kind of model; None where there is none.
        past_studies: studies in which a chat model and the optimizer are compared.
    """

    def __init__(
        self,
        agent: Agent | None,
        *,
        note: str = "",
        retrieved: Sequence[RetrievedConfig] = (),
        meta_data: MetaDataProposer | None = None,
        past_studies: Sequence[PastStudy] = (),
    ) -> None:
        self._agent = agent
        self._note = note
        self._retrieved = retrieved
        self._meta_data = meta_data
        self._past_studies = past_studies
        self._track_record: TrackRecord | None = None

    @property
    def name(self) -> str:
        """The name by which a user selects it."""
        return "hybrid"

    @property
    def backend(self) -> Backend | None:
        """Backend of the model; None where there is no model."""
        return None if self._agent is None else self._agent.backend

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals.

        Raises:
            SpaceExhaustedError: nothing new is left.
            ModelError: the model failed, and the task says to stop then.
        """
        return propose_one_by_one(self._propose_with_notes, history, n)

    def close(self) -> None:
        """Close the agent."""
        if self._agent is not None:
            self._agent.close()

    def _propose_with_notes(self, history: History) -> Proposal:
        proposal = self._propose_one(history)
        notes = [self._note, proposal.note]
        wanted = history.task.creator.transfer == "retrieve"
        if wanted and not self._retrieved and not history.trials:
            notes.insert(1, NOTHING_RETRIEVED)
        return dataclasses.replace(proposal, note="; ".join(filter(None, notes)))

    def _propose_one(self, full_history: History) -> Proposal:
        history = full_history.first_objective()
        if not history.trials and history.task.space.has_defaults:
            return propose_default(history, "the task's defaults")
        agent = self._agent
        if agent is not None and not agent.is_configuration_model:
            return self._take_turns(history, full_history, agent)
        retrieved, meta_data = _merge_sources(history, self._retrieved, self._meta_data)
        asks_model = agent is not None and not is_unknown_space(
            history.task.space, agent.backend.model.known_parameters
        )
        if meta_data is not None and not asks_model:
            return meta_data.propose(history)
        if agent is None:
            return _propose_without_model(history, retrieved)
        if not asks_model:
            return _propose_unasked(history, agent, retrieved)
        DuplicateFilter(history)  # raises where the space is exhausted, before the model is asked
        started = time.perf_counter()
        cost = ModelCost()
        try:
            samples = agent.draw_samples(history, cost)
        except ModelError as error:
            return agent.fall_back(history, error, cost)
        if meta_data is not None:
            proposal = _propose_from_meta_data(history, samples, meta_data)
        else:
            proposal = _propose_from_samples(history, samples, retrieved)
        return dataclasses.replace(proposal, seconds=time.perf_counter() - started)

    def _take_turns(self, history: History, full_history: History, agent: Agent) -> Proposal:
        """Return the proposal of a chat model, which sees all objectives, or of the optimizer."""
        draw = np.random.default_rng(derive_seed(history, "turn")).random()
        if self._track_record is None:
            self._track_record = past_track_record(
                history.task, self._past_studies, agent.backend.model.digest
            )
        share = model_share(
            history.trials, history.task.direction,
            has_meta_data=self._meta_data is not None, past=self._track_record,
        )  # fmt: skip
        if draw < share:
            return agent.propose_one(full_history)
        return propose_fallback(history, self._retrieved, self._meta_data)


def open_hybrid(
    task: Task,
    backend: Backend | None = None,
    placer: ModelPlacer | None = None,
    retrieved: Sequence[RetrievedConfig] = (),
    past_studies: Sequence[PastStudy] = (),
) -> Hybrid:
    """Return the hybrid of a task; options and errors as `open_creator` has them."""
    note, owned = "", backend is None
    try:
        backend = open_task_backend(task, placer) if backend is None else backend
    except MissingExtraError as error:
        settings, default = task.creator, CreatorSettings()
        is_named = (settings.backend, settings.model) != (default.backend, default.model)
        if is_named or settings.on_model_error == "stop":
            raise
        note = f"no language model: {error} ({error.hint})"
    meta_data = open_meta_data(task, None if backend is None else backend.model)
    agent = None
    if backend is not None:
        agent = _make_agent(task, backend, retrieved, meta_data, owned=owned)
    return Hybrid(
        agent, note=note, retrieved=retrieved, meta_data=meta_data, past_studies=past_studies
    )


def open_agent(
    task: Task,
    backend: Backend | None = None,
    placer: ModelPlacer | None = None,
    retrieved: Sequence[RetrievedConfig] = (),
) -> Agent:
    """Return the model alone; options and errors as `open_creator` has them."""
    opened = open_task_backend(task, placer) if backend is None else backend
    return _make_agent(task, opened, retrieved, owned=backend is None)


def _make_agent(
    task: Task,
    backend: Backend,
    retrieved: Sequence[RetrievedConfig],
    meta_data: MetaDataProposer | None = None,
    *,
    owned: bool,
) -> Agent:
    return Agent(
        backend,
        on_model_error=task.creator.on_model_error,
        fallback=partial(propose_fallback, retrieved=retrieved, meta_data=meta_data),
        owned=owned,
        retrieved=retrieved,
    )


def propose_fallback(
    history: History,
    retrieved: Sequence[RetrievedConfig] = (),
    meta_data: MetaDataProposer | None = None,
) -> Proposal:
    """Return the optimizer's proposal, in place of the model's.

    Args:
        history: the study so far, of one objective.
        retrieved: configurations of similar past studies.
        meta_data: proposes from meta-data of the task's kind of model.
    """
    retrieved, meta_data = _merge_sources(history, retrieved, meta_data)
    if meta_data is not None:
        return meta_data.propose(history)
    if not retrieved:
        return BayesianOptimizer().propose_one(history)
    initial = None if history.has_value else warm_start.propose_initial(history, retrieved)
    if initial is not None:
        return initial
    started = time.perf_counter()
    prior = warm_start.build_prior(history.task.space, retrieved)
    origin = warm_start.guided_origin(retrieved, uses_model=False)
    proposal = propose_guided(history, prior, origin)
    return dataclasses.replace(proposal, seconds=time.perf_counter() - started)


def _merge_sources(
    history: History, retrieved: Sequence[RetrievedConfig], meta_data: MetaDataProposer | None
) -> tuple[Sequence[RetrievedConfig], MetaDataProposer | None]:
    """Return retrieved configurations and meta-data, merged where the owner's studies take part.

    They do where some were retrieved, and where the model was fine-tuned on them.
    """
    has_own = bool(retrieved) or history.task.creator.transfer == "finetuned"
    if meta_data is None or not has_own:
        return retrieved, meta_data
    return warm_start.merge_retrieved(retrieved, meta_data.retrieve(history)), None


def _propose_without_model(history: History, retrieved: Sequence[RetrievedConfig]) -> Proposal:
    initial = warm_start.propose_initial(history, retrieved) if retrieved else None
    if initial is not None:
        return initial
    if not history.trials:
        return propose_default(history, CENTER)
    return propose_fallback(history, retrieved)


def _propose_unasked(
    history: History, agent: Agent, retrieved: Sequence[RetrievedConfig]
) -> Proposal:
    """Return the optimizer's proposal; the study's first one says why the model is not asked."""
    proposal = _propose_without_model(history, retrieved)
    unknown = unknown_parameters(history.task.space, agent.backend.model.known_parameters)
    note = f"the model is not asked: it was not trained on {', '.join(unknown)}"
    if any(note in trial.proposal.note for trial in history.trials):
        return proposal
    return dataclasses.replace(proposal, note="; ".join(filter(None, (note, proposal.note))))


def propose_default(history: History, what: str, note: str = "") -> Proposal:
    """Return the default configuration, which the rationale calls `what`."""
    return Proposal(
        config=history.task.space.default(),
        origin=DEFAULT,
        rationale=f"{what}, before there is evidence",
        rationale_by="computed",
        note=note,
    )


def _propose_from_meta_data(
    history: History, samples: ModelSamples, meta_data: MetaDataProposer
) -> Proposal:
    """Return the proposal from meta-data, with the model's samples as further candidates."""
    proposal = meta_data.propose(history, samples.configs)
    if proposal.origin == LLM:
        return _propose_sample(history, samples, proposal.config, proposal.tries)
    return _with_cost(proposal, samples)


def _propose_from_samples(
    history: History, samples: ModelSamples, retrieved: Sequence[RetrievedConfig]
) -> Proposal:
    """Return the proposal that the model's samples, and retrieved configurations, lead to."""
    space, record = history.task.space, samples.record
    prior, is_certain = _build_model_prior(history, samples)
    if retrieved:
        candidates = samples.configs if is_certain and not history.trials else ()
        initial = warm_start.propose_initial(history, retrieved, candidates)
        if initial is not None and initial.origin == LLM:
            return _propose_sample(history, samples, initial.config, initial.tries)
        if initial is not None:
            return _with_cost(initial, samples)
        prior = warm_start.build_prior(space, retrieved, samples.configs if is_certain else ())
    elif not is_certain and not history.trials:
        note = (
            "the model's proposals differ as much as random ones: the study starts from the center "
            "of the space"
        )
        return _with_cost(propose_default(history, CENTER, note), samples)
    elif is_certain and (initial_sample := _propose_medoid(history, samples)) is not None:
        return initial_sample
    origin = warm_start.guided_origin(retrieved, uses_model=is_certain or not retrieved)
    proposal = _with_cost(propose_guided(history, prior, origin), samples)
    if not proposal.origin.uses("llm"):
        return proposal
    return dataclasses.replace(
        proposal, model_digest=record.model_digest,
        prompt=record.prompt, prompt_sha256=record.prompt_sha256,
    )  # fmt: skip


def _with_cost(proposal: Proposal, samples: ModelSamples) -> Proposal:
    """Return the proposal with the tokens that the samples took; none after the first time."""
    record = samples.record
    return dataclasses.replace(
        proposal, prompt_tokens=record.prompt_tokens, completion_tokens=record.completion_tokens
    )


def _build_model_prior(history: History, samples: ModelSamples) -> tuple[SamplePrior, bool]:
    """Return the prior of the model's samples, and whether the model is certain.

    It is, where the samples are closer together than as many random ones.
    """
    space = history.task.space
    prior = SamplePrior(space, samples.configs, PRIOR_WEIGHT)
    of_study = dataclasses.replace(history, next_number=0)  # the same in all trials
    rng = np.random.default_rng(derive_seed(of_study, "blind"))
    random = SamplePrior(space, [space.sample(rng) for _ in samples.configs], PRIOR_WEIGHT)
    return prior, prior.spread >= MIN_SPREAD_RATIO * random.spread


def _propose_medoid(history: History, samples: ModelSamples) -> Proposal | None:
    """Return the most representative sample; None once one was proposed and a trial has a value."""
    space = history.task.space
    proposed = any(trial.proposal.origin == LLM for trial in history.trials)
    if proposed and history.has_value:
        return None
    order = medoid_order(space, samples.configs, [t.config for t in history.trials])
    selection = DuplicateFilter(history).select_new(order, lambda index: samples.configs[index])
    if selection is None:
        return None
    config = samples.configs[selection.candidate]
    return _propose_sample(history, samples, config, selection.tries)


def _propose_sample(
    history: History, samples: ModelSamples, config: Config, tries: int
) -> Proposal:
    """Return the proposal of one of the model's samples as it is."""
    reason, evidence = rationale.compute_rationale(history, config)
    return dataclasses.replace(
        samples.record, config=config, answer=history.task.space.text(config), tries=tries,
        rationale=reason, evidence=evidence,
    )  # fmt: skip
