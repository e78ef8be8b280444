"""Meta-data as a source: results of one kind of model on many past data sets.

Meta-data (`transfer.source_tasks`) comes with a model. A configuration model brings its own, or
none; that of the built-in model serves every other one, and studies without a model.

Its first configurations are those that gain most over all data sets; after each trial the expected
regrets are a prior of the optimizer (`bo.transfer_prior`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from localhpo.creator.bo.transfer_prior import SurrogateEnsemble
from localhpo.creator.protocol import History, derive_seed
from localhpo.creator.sources import FULL_TRUST
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models.description import META_DATA
from localhpo.transfer import similarity
from localhpo.transfer.source_tasks import SourceTask, read_source_tasks
from localhpo.trial import META, Proposal

if TYPE_CHECKING:
    from localhpo.creator.bo import Prior
    from localhpo.llm.protocol import Model
    from localhpo.task import Task

MIN_SPACE_SIMILARITY = 0.7
"""Similarity of the spaces alone from which a source task counts: descriptions matter less. It is
of somebody else's data, so nearly the same hyperparameters must be tuned: a small network's
learning rate is none for a transformer (0.56). On FCNet (0.55) meta-data of other networks were
worse than none after ten trials."""

MIN_RELATIVE_SIMILARITY = 0.85
"""Source tasks count that are at least so many times as similar as the most similar one: those of
the task's own metric, where there are such, and of all where there are none."""

_SEED_LABEL = "experience"
"""Part of the seed of the candidates; its text may not change, or proposals would."""


def open_meta_data(task: Task, model: Model | None) -> MetaDataSource | None:
    """Return the meta-data of the task's kind of model; None where there is none.

    Args:
        task: the task at hand.
        model: the model that is asked; None where there is none.

    Raises:
        InputError: the file cannot be read.
    """
    task = task.single_objective
    name = model_registry.DEFAULT
    path = model_registry.find_model(name) / META_DATA
    if model is not None and model.prompt == "compact":
        if model.meta_data is None:
            return None
        name, path = model.name, model.meta_data

    def has_similar_space(other: Task) -> bool:
        same_words = dataclasses.replace(task, space=other.space, fixed={})
        return similarity(task, same_words).value >= MIN_SPACE_SIMILARITY

    found = [
        (source, similarity(task, source.task).value)
        for source in read_source_tasks(path, has_similar_space)
    ]
    largest = max((value for _, value in found), default=0.0)
    near = [(s, value) for s, value in found if value >= MIN_RELATIVE_SIMILARITY * largest > 0.0]
    return MetaDataSource(name, near) if near else None


class MetaDataSource:
    """Proposes configurations from source tasks.

    Args:
        name: name of the model that they come with.
        sources: at least one source task, with its similarity to the task at hand.
    """

    def __init__(self, name: str, sources: Sequence[tuple[SourceTask, float]]) -> None:
        self._name = name
        self._sources = sources
        self._ensemble: tuple[int, SurrogateEnsemble] | None = None

    def prior(self, history: History) -> Prior:
        """Return the expected regrets, as of these trials."""
        return self._open_ensemble(history).to_prior(history.trials, FULL_TRUST)

    def first_configs(self, history: History) -> Iterator[Proposal]:
        """Yield the candidates by their expected gain over the trials."""
        ensemble = self._open_ensemble(history)
        regrets = ensemble.expected_regrets(history.trials)
        names = ", ".join(sorted({source.task.name for source, _ in self._sources}))
        data_sets = f"{ensemble.description} ({names}), which come with the model {self._name}"
        for index in ensemble.rank_candidates(history.trials):
            yield Proposal(
                ensemble.candidates[index], origin=META, rationale=f"promising on {data_sets}",
                rationale_by="computed", details={"expected_regret": float(regrets[index])},
            )  # fmt: skip

    def _open_ensemble(self, history: History) -> SurrogateEnsemble:
        """Return the surrogates and their candidates; the same in all trials of a study."""
        if self._ensemble is None or self._ensemble[0] != history.seed:
            of_study = dataclasses.replace(history, next_number=0)
            rng = np.random.default_rng(derive_seed(of_study, _SEED_LABEL))
            ensemble = SurrogateEnsemble(history.task, self._sources, rng)
            self._ensemble = history.seed, ensemble
        return self._ensemble[1]
