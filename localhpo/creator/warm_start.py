"""Uses configurations retrieved from past studies: first in the initial design, then as a prior.

Retrieved configurations (`transfer.retrieval`) are samples of what is good, like those of a
configuration model, only fewer, better founded and of unequal weight. So they are used in the same
way: the medoid opens the study, and all of them together are a prior of the optimizer, for as
long as the trials agree with it.

Where a configuration model has samples too, both kinds are mixed by `TRANSFER_SHARE`, and the
medoid of both opens the study. (On the problems for choosing settings that lowered the regret of
the first trial from .34 to .29; for the second and third, retrieved configurations alone were
better.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from localhpo.creator.bo import SamplePrior
from localhpo.creator.bo.gp import Array
from localhpo.creator.candidates import DuplicateFilter, medoid_order
from localhpo.transfer.retrieval import MAX_RETRIEVED
from localhpo.trial import LLM, META, TRANSFER, Origin, Proposal

if TYPE_CHECKING:
    from localhpo.creator.protocol import History
    from localhpo.space import Space
    from localhpo.transfer import RetrievedConfig
    from localhpo.trial import Config

INITIAL_DESIGN_SIZE = 3
"""Configurations that are tried as they are. With one alone the regret at trials 5 and 10 was
higher by half (`scripts/benchmarks/measure/transfer.py`), with five by a fifth."""

PRIOR_WEIGHT = 0.5
"""Weight of the prior, in units of the scale of the process. 0.5, 1 and 2 were nearly alike; the
smallest of them leaves most to the trials."""

TRANSFER_SHARE = 0.5
"""Share of the retrieved configurations beside the samples of a configuration model: even, for
nothing else was measured."""

META_DATA_WEIGHT = 0.5
"""Weight of the meta-data of a model, where its owner has similar studies."""

_DESIGN_ORIGINS = (TRANSFER, META, LLM)
"""Origins of the trials of an initial design. Version 0.1.0 stored `transfer` for meta-data too."""


def merge_retrieved(
    retrieved: Sequence[RetrievedConfig], meta_data: Sequence[RetrievedConfig]
) -> tuple[RetrievedConfig, ...]:
    """Return what was retrieved from the owner's studies and from meta-data, heaviest first."""
    weight = META_DATA_WEIGHT if retrieved else 1.0
    lighter = [dataclasses.replace(one, weight=weight * one.weight) for one in meta_data]
    return tuple(sorted([*retrieved, *lighter], key=lambda one: -one.weight)[:MAX_RETRIEVED])


def count_initial_design(history: History) -> int:
    """Return how many trials were taken as they are from a model, past studies or meta-data."""
    return sum(trial.proposal.origin in _DESIGN_ORIGINS for trial in history.trials)


def propose_initial(
    history: History, retrieved: Sequence[RetrievedConfig], samples: Sequence[Config] = ()
) -> Proposal | None:
    """Return the next configuration of the initial design, as it was retrieved or drawn.

    None after `INITIAL_DESIGN_SIZE` of them, once a trial has a value, or where none is new. A
    sample of the model has the origin `LLM`.

    Args:
        history: the study so far.
        retrieved: at least one.
        samples: configurations that a model drew, where they are candidates too.
    """
    if count_initial_design(history) >= INITIAL_DESIGN_SIZE and history.has_value:
        return None
    configs = [*(one.config for one in retrieved), *samples]
    tried = [trial.config for trial in history.trials]
    order = medoid_order(
        history.task.space, configs, tried, weights=_sample_weights(retrieved, samples)
    )
    selection = DuplicateFilter(history).select_new(order, lambda index: configs[index])
    if selection is None:
        return None
    index, config = selection.candidate, configs[selection.candidate]
    if index >= len(retrieved):
        return Proposal(config, origin=LLM, tries=selection.tries)
    return Proposal(
        config, origin=META if is_meta_data(retrieved[index]) else TRANSFER,
        rationale=describe_source(retrieved[index]), rationale_by="computed", tries=selection.tries,
    )  # fmt: skip


def build_prior(
    space: Space, retrieved: Sequence[RetrievedConfig], samples: Sequence[Config] = ()
) -> SamplePrior:
    """Return the prior of retrieved configurations, and of a model's samples.

    Args:
        space: the space of the study.
        retrieved: at least one.
        samples: configurations that the model drew.
    """
    configs = [*(one.transferred for one in retrieved), *samples]
    sources = [
        *(["the language model"] if samples else []),
        *(["similar data sets"] if any(map(is_meta_data, retrieved)) else []),
        *(["past studies"] if not all(map(is_meta_data, retrieved)) else []),
    ]
    return SamplePrior(
        space, configs, PRIOR_WEIGHT, sample_weights=_sample_weights(retrieved, samples),
        description=" and ".join(filter(None, (", ".join(sources[:-1]), sources[-1]))),
    )  # fmt: skip


def guided_origin(retrieved: Sequence[RetrievedConfig], *, uses_model: bool) -> Origin:
    """Return the origin of a proposal of the optimizer that a prior guided.

    Args:
        retrieved: retrieved configurations in the prior; may be none.
        uses_model: whether samples of a model are in it.
    """
    sources = [
        *(["llm"] if uses_model else []),
        *(["meta"] if any(map(is_meta_data, retrieved)) else []),
        *(["transfer"] if not all(map(is_meta_data, retrieved)) else []),
    ]
    return Origin("+".join(sources), "bo")


def is_meta_data(one: RetrievedConfig) -> bool:
    """Return whether a configuration comes from meta-data, not from a past study of the owner."""
    return one.trial is None


def describe_source(one: RetrievedConfig) -> str:
    """Return in words where a configuration comes from, and why it may be good here."""
    if is_meta_data(one):
        return f"good on {one.study}"
    return (
        f"good in a past study: trial {one.trial} of {one.study} had {one.metric} "
        f"{one.value:.4g}; similarity of the tasks {one.similarity:.2f} ({'; '.join(one.reasons)})"
    )


def _sample_weights(retrieved: Sequence[RetrievedConfig], samples: Sequence[Config]) -> Array:
    """Return the weights of the retrieved configurations and then of the samples; the sum is 1."""
    weights = np.array([one.weight for one in retrieved])
    weights /= weights.sum()
    if not samples:
        return weights
    of_samples = np.full(len(samples), (1.0 - TRANSFER_SHARE) / len(samples))
    return np.concatenate([TRANSFER_SHARE * weights, of_samples])
