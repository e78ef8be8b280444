"""Proposes from meta-data: results of one kind of model on many past data sets.

Meta-data (`transfer.source_tasks`) comes with a model. A configuration model brings its own, or
none; that of the built-in model serves every chat model, and studies without a model.

The first trials are those that gain most over all data sets; after each trial the expected regrets
are a prior of the optimizer, for as long as the trials agree (`bo.transfer_prior`). One of the
first trials is an exploration trial, far from the others: those are alike, and would never show
that the meta-data misleads here.

On the problems for choosing settings (60 of YAHPO, one metric drawn for each) the regret after
1, 3, 5 and 10 trials was .22/.14/.09/.05; that of the model's own samples together with its best
configurations on each data set was .34/.20/.14/.06.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from localhpo.creator.bo import optimizer
from localhpo.creator.bo.transfer_prior import SurrogateEnsemble
from localhpo.creator.candidates import DuplicateFilter
from localhpo.creator.protocol import History, derive_seed
from localhpo.creator.warm_start import count_initial_design
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models.description import META_DATA
from localhpo.transfer import RetrievedConfig, similarity
from localhpo.transfer.retrieval import MAX_RETRIEVED
from localhpo.transfer.source_tasks import SourceTask, read_source_tasks
from localhpo.trial import LLM, META, Config, Origin, Proposal

if TYPE_CHECKING:
    from localhpo.llm.protocol import Model
    from localhpo.task import Task

GUIDED = Origin("meta", "bo")
"""Origin of a proposal of the optimizer that meta-data guided."""

INITIAL_DESIGN_SIZE = 4
"""Trials that are taken from meta-data alone. Three to seven were alike, within .006."""

BEFORE_EXPLORATION = 3
"""Trials of the initial design before the exploration trial. On six generated tables of which
next to nothing can be explained, by F1, it took the regret after 5 and 10 trials from .41 and .18
to .11 and .08 (random: .12 and .06). On the problems for choosing settings it cost nothing after 5
and 10 trials on YAHPO, and .04 and .01 with XGBoost. As the sixth trial it gained nothing."""

MIN_SPACE_SIMILARITY = 0.7
"""Similarity of the spaces alone from which a source task counts: descriptions matter less. It is
of somebody else's data, so nearly the same hyperparameters must be tuned: a small network's
learning rate is none for a transformer (0.56)."""

MIN_RELATIVE_SIMILARITY = 0.85
"""Source tasks count that are at least so many times as similar as the most similar one: those of
the task's own metric, where there are such, and of all where there are none."""

_SEED_LABEL = "experience"
"""Part of the seed of the candidates; its text may not change, or proposals would."""


def open_meta_data(task: Task, model: Model | None) -> MetaDataProposer | None:
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
    return MetaDataProposer(name, near) if near else None


class MetaDataProposer:
    """Proposes configurations from source tasks.

    Args:
        name: name of the model that they come with.
        sources: at least one source task, with its similarity to the task at hand.
    """

    def __init__(self, name: str, sources: Sequence[tuple[SourceTask, float]]) -> None:
        self._name = name
        self._sources = sources
        self._ensemble: tuple[tuple[int, int], SurrogateEnsemble] | None = None

    def propose(self, history: History, samples: Sequence[Config] = ()) -> Proposal:
        """Return one new proposal.

        Args:
            history: the study so far.
            samples: configurations that the model drew; one that is proposed as it is has the
                origin `LLM`.

        Raises:
            SpaceExhaustedError: nothing new is left.
        """
        started = time.perf_counter()
        ensemble = self._open_ensemble(history, samples)
        proposal = (
            self._propose_exploration(history, ensemble)
            or self._propose_initial(history, ensemble)
            or optimizer.propose_guided(history, ensemble.to_prior(history.trials), GUIDED)
        )
        return dataclasses.replace(proposal, seconds=time.perf_counter() - started)

    def retrieve(self, history: History) -> list[RetrievedConfig]:
        """Return the best configurations before any trial, to be used beside retrieved ones."""
        ensemble = self._open_ensemble(history)
        source, value = max(self._sources, key=lambda pair: pair[1])
        expected = ensemble.expected_regrets(())
        return [
            RetrievedConfig(
                config=ensemble.candidates[index], transferred=ensemble.candidates[index],
                weight=value, study=self._describe_data_sets(ensemble),
                trial=None, metric="mean regret", value=float(expected[index]),
                similarity=value, reasons=similarity(history.task, source.task).reasons,
            )
            for index in ensemble.rank_candidates(())[:MAX_RETRIEVED]
        ]  # fmt: skip

    def _open_ensemble(self, history: History, samples: Sequence[Config] = ()) -> SurrogateEnsemble:
        """Return the surrogates and their candidates; the same in all trials of a study."""
        key = history.seed, len(samples)
        if self._ensemble is None or self._ensemble[0] != key:
            of_study = dataclasses.replace(history, next_number=0)
            rng = np.random.default_rng(derive_seed(of_study, _SEED_LABEL))
            ensemble = SurrogateEnsemble(history.task, self._sources, rng, extra=samples)
            self._ensemble = key, ensemble
        return self._ensemble[1]

    def _propose_exploration(
        self, history: History, ensemble: SurrogateEnsemble
    ) -> Proposal | None:
        """Return the exploration trial, where it is its turn."""
        explored = any(trial.proposal.origin == optimizer.ORIGIN for trial in history.trials)
        if explored or count_initial_design(history) != BEFORE_EXPLORATION:
            return None
        made = optimizer.to_proposal(history, optimizer.suggest_far(history))
        data_sets = ensemble.description
        reason = f"exploration trial, far from all others, in case results on {data_sets} mislead"
        return dataclasses.replace(made, rationale=f"{reason}; {made.rationale}")

    def _propose_initial(self, history: History, ensemble: SurrogateEnsemble) -> Proposal | None:
        """Return the candidate that gains most.

        None after `INITIAL_DESIGN_SIZE` of them, or where none is new.
        """
        if count_initial_design(history) >= INITIAL_DESIGN_SIZE and history.has_value:
            return None
        order = ensemble.rank_candidates(history.trials)
        selection = DuplicateFilter(history).select_new(order, lambda i: ensemble.candidates[i])
        if selection is None:
            return None
        config = ensemble.candidates[selection.candidate]
        if selection.candidate in ensemble.extra:
            return Proposal(config, origin=LLM, tries=selection.tries)
        regret = float(ensemble.expected_regrets(history.trials)[selection.candidate])
        return Proposal(
            config, origin=META, rationale=f"promising on {self._describe_data_sets(ensemble)}",
            rationale_by="computed", details={"expected_regret": regret}, tries=selection.tries,
        )  # fmt: skip

    def _describe_data_sets(self, ensemble: SurrogateEnsemble) -> str:
        names = ", ".join(sorted({source.task.name for source, _ in self._sources}))
        return f"{ensemble.description} ({names}), which come with the model {self._name}"
