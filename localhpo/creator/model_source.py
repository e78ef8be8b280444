"""A language model as a source: asked once, before any trial, for many bare configurations.

The prompt is short and the same for all answers, which have no prose: so they are cheap, and a
backend can read the prompt once and draw them together. All of them together are a prior on the
space, and the most representative one is tried as it is: the middle of what a model samples is
better than its likeliest answer.

A configuration model is asked about the task in the form that it was trained on (`known_form`), a
chat model about the task as it stands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from localhpo import grammar
from localhpo.creator import prompt, rationale
from localhpo.creator.bo import SamplePrior
from localhpo.creator.candidates import medoid_order
from localhpo.creator.known_form import KnownForm
from localhpo.creator.protocol import History, derive_seed
from localhpo.errors import ConfigurationError, GenerationError, ModelError
from localhpo.llm.protocol import AnswerConstraint, Backend, GenerationRequest
from localhpo.transfer import find_known_name
from localhpo.trial import LLM, Config, Proposal

if TYPE_CHECKING:
    from localhpo.llm.protocol import Completion, Model
    from localhpo.space import Space
    from localhpo.task import Task

SAMPLES = 32
"""Configurations that a model is asked for."""

CERTAIN, UNCERTAIN = 2.75, 1.9
"""A model is certain where the log density of its samples varies over the space at least
`CERTAIN` times as much as that of random samples. Between the two its samples are a weak prior and
are not tried as they are; below, they are not used. On eight kinds of YAHPO and TaskSet the samples
of a model of 1.5 B parameters were as good as the center or better from 2.9 on, and worse below
2.6 (svm: 1.9). Cells of a network, `Op0` to `Op5`, have 2.4."""

TRUST = 0.7
WEAK_TRUST = 0.3

_RANDOM_SETS = 8
_ATTEMPTS = 3
_SEED_LABEL = "model"
"""Part of every sampling seed; its text may not change, or seeds would."""


@dataclass
class ModelCost:
    """Tokens and seconds that requests to the model have taken so far."""

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
class ModelSamples:
    """Configurations that a model proposes before it has seen any trial."""

    configs: Sequence[Config]
    record: Proposal
    """Model, prompt, seed and cost of the samples; its configuration is the first of them."""


class ModelSource:
    """Asks a model for samples.

    Args:
        backend: serves the model.

    Attributes:
        cost: tokens and seconds that the model has taken, until they are charged to a proposal.
        note: why the model is not asked or not followed; empty where it is.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.cost = ModelCost()
        self.note = ""
        self._known: dict[str, ModelSamples] = {}

    @property
    def model(self) -> Model:
        """The model that is asked."""
        return self.backend.model

    def prior(self, history: History) -> SamplePrior | None:
        """Return the density of the samples; None where there are none, or they tell nothing.

        Raises:
            ModelError: the model failed, or no answer was valid.
        """
        if refusal := describe_refusal(self.model, history.task):
            self.note = refusal
            return None
        space, samples = history.task.space, self.draw(history)
        prior = _to_prior(space, samples.configs)
        of_random = _spread_of_random(history, len(samples.configs))
        if prior.spread >= CERTAIN * of_random:
            return prior
        if prior.spread >= UNCERTAIN * of_random:
            prior.trust = WEAK_TRUST
            return prior
        self.note = "the model is not followed: its proposals differ as much as random ones"
        return None

    def first_configs(self, history: History) -> Iterator[Proposal]:
        """Yield the samples, those that represent all of them best first.

        Raises:
            ModelError: as `prior`.
        """
        samples, space = self.draw(history), history.task.space
        for index in medoid_order(space, samples.configs, [t.config for t in history.trials]):
            config = samples.configs[index]
            reason, evidence = rationale.compute_rationale(history, config)
            yield dataclasses.replace(
                samples.record, config=config, answer=space.text(config), rationale=reason,
                evidence=evidence,
            )  # fmt: skip

    def draw(self, history: History) -> ModelSamples:
        """Return the samples; the model is asked once for each study and space.

        Raises:
            ModelError: the model failed, or no answer was valid.
        """
        key = f"{history.seed} {history.task.space.to_table()}"
        if key not in self._known:
            self._known[key] = self._ask(dataclasses.replace(history, trials=(), next_number=0))
        return self._known[key]

    def _ask(self, history: History) -> ModelSamples:
        model = self.backend.model
        compact = model.prompt == "compact"
        # A fine-tuned model has seen the owner's tasks as they stand.
        rewrites = bool(model.known_parameters) and history.task.creator.transfer != "finetuned"
        form = KnownForm(history.task, model.known_parameters) if compact and rewrites else None
        asked = history if form is None else dataclasses.replace(history, task=form.task)
        style: prompt.Style = "compact" if compact else "samples"
        messages, _, max_tokens = prompt.fit_prompt(
            asked, model, self.backend.count_tokens, style=style
        )
        space = asked.task.space
        constraint = AnswerConstraint(
            grammar=grammar.lark_grammar(space, rationale=False),
            schema=grammar.json_schema(space, rationale=False),
        )
        for attempt in range(_ATTEMPTS):
            try:
                completions = self.backend.generate(
                    GenerationRequest(
                        messages, constraint, n=SAMPLES, max_tokens=max_tokens, temperature=1.0,
                        seed=derive_seed(asked, _SEED_LABEL, attempt),
                    )
                )  # fmt: skip
                break
            except GenerationError:  # an answer was cut short; other seeds may give shorter ones
                if attempt == _ATTEMPTS - 1:
                    raise
        self.cost.add(completions)
        configs = []
        for completion in completions:
            try:
                config = grammar.parse_answer(completion.text, space, rationale=False).config
            except ConfigurationError:  # of a server that enforces a part of the grammar
                continue
            configs.append(config if form is None else form.restore(config))
        if not configs:
            raise ModelError(f"none of its {len(completions)} answers was a valid configuration")
        record = Proposal(
            configs[0], origin=LLM, rationale_by="computed", seed=completions[0].seed,
            model_digest=model.digest, prompt=prompt.join_messages(messages),
            prompt_sha256=prompt.sha256(messages),
        )  # fmt: skip
        return ModelSamples(tuple(configs), record)


def describe_refusal(model: Model, task: Task) -> str:
    """Return why a model is not asked about a task; empty where it is.

    A configuration model is asked where it was trained on at least half of the hyperparameters by
    their names, or on synonyms of them.
    """
    if model.prompt != "compact" or not model.known_parameters:
        return ""
    tuned = [parameter.name for parameter in task.space if parameter.cardinality > 1]
    unknown = [name for name in tuned if find_known_name(name, model.known_parameters) is None]
    if 2 * len(unknown) <= len(tuned):
        return ""
    return f"the model is not asked: it was not trained on {', '.join(unknown)}"


def _to_prior(space: Space, configs: Sequence[Config]) -> SamplePrior:
    return SamplePrior(space, configs, source="llm", trust=TRUST, description="the language model")


def _spread_of_random(history: History, count: int) -> float:
    """Return the mean spread of as many random configurations; the same in all trials."""
    space, of_study = history.task.space, dataclasses.replace(history, next_number=0)
    rng = np.random.default_rng(derive_seed(of_study, "blind"))
    drawn = [[space.sample(rng) for _ in range(count)] for _ in range(_RANDOM_SETS)]
    return float(np.mean([_to_prior(space, configs).spread for configs in drawn]))
