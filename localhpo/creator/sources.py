"""What is known of a space beside its trials: sources of priors and of first configurations.

A source gives a prior, which guides the optimizer, and configurations that are likely to be good,
the best first, which are tried as they are. The sources are a language model (`model_source`), the
meta-data of past data sets (`meta_data`), the owner's past studies and the user (both here).

`Prior.trust` of each is the probability that it tells what is good, before any trial. The values
were set by hand on eight kinds of models (the manual, benchmarks); the trials decide from the first
one on (`bo.optimizer`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Protocol

import numpy as np

from localhpo.creator.bo import SamplePrior
from localhpo.creator.candidates import medoid_order
from localhpo.space import Categorical, Int, Ordinal, Parameter, Space
from localhpo.trial import TRANSFER, Config, Proposal, Value

if TYPE_CHECKING:
    from localhpo.creator.bo import Prior
    from localhpo.creator.protocol import History
    from localhpo.transfer import RetrievedConfig

MIN_FULL_SIMILARITY = 0.7
"""Similarity of a task from which what was good there is trusted fully (`FULL_TRUST`)."""

FULL_TRUST = 0.95
PARTIAL_TRUST = 0.7
"""The same below; as much as a certain model (`model_source`), which comes after it."""


USER_TRUST = 0.8

_USER_SAMPLES = 32
"""Configurations that stand for the distribution that a user expects."""


class PriorSource(Protocol):
    """Knows something of a space beside its trials."""

    def prior(self, history: History) -> Prior | None:
        """Return the prior; None where there is none for this task.

        Raises:
            ModelError: the model that it asks failed.
        """
        ...

    def first_configs(self, history: History) -> Iterator[Proposal]:
        """Yield configurations to try as they are, the best first, given the trials."""
        ...


class PastStudiesSource:
    """Configurations that were good in similar past studies of the owner.

    Args:
        retrieved: at least one, in the space of the task at hand.
    """

    def __init__(self, retrieved: Sequence[RetrievedConfig]) -> None:
        self._retrieved = retrieved
        self._weights = np.array([one.weight for one in retrieved])
        self._similarity = max(one.similarity for one in retrieved)

    def prior(self, history: History) -> Prior:
        """Return the density of the configurations, each with its weight."""
        return SamplePrior(
            history.task.space, [one.transferred for one in self._retrieved],
            source="transfer", trust=trust_in_similar(self._similarity), description="past studies",
            sample_weights=self._weights / self._weights.sum(),
        )  # fmt: skip

    def first_configs(self, history: History) -> Iterator[Proposal]:
        """Yield the configurations, those that represent all of them best first."""
        order = medoid_order(
            history.task.space, [one.config for one in self._retrieved],
            [trial.config for trial in history.trials], weights=self._weights,
        )  # fmt: skip
        for index in order:
            one = self._retrieved[index]
            yield Proposal(
                one.config, origin=TRANSFER, rationale=_describe_past_trial(one),
                rationale_by="computed",
            )  # fmt: skip


def trust_in_similar(similarity: float) -> float:
    """Return `Prior.trust` of results on tasks that are so similar."""
    return FULL_TRUST if similarity >= MIN_FULL_SIMILARITY else PARTIAL_TRUST


def _describe_past_trial(one: RetrievedConfig) -> str:
    """Return in words where a configuration comes from, and why it may be good here."""
    return (
        f"good in a past study: trial {one.trial} of {one.study} had {one.metric} "
        f"{one.value:.4g}; similarity of the tasks {one.similarity:.2f} ({'; '.join(one.reasons)})"
    )


def make_user_prior(space: Space) -> SamplePrior | None:
    """Return the prior of what the user expects (`prior` and `likely` of the task file).

    As the expert priors of piBO (Hvarfner et al. 2022, https://arxiv.org/abs/2204.11051): a normal
    distribution around the center of a number, on its own scale, and the likely values of a choice.
    Other parameters are not informed. The centers and the first likely values are in the task's
    default configuration too (`Space.default`), which is the first trial.

    None where the user expects nothing.
    """
    informed = [parameter for parameter in space.parameters if parameter.is_informed]
    if not informed:
        return None
    configs: list[Config] = [
        {p.name: _value_at(p, (sample + 0.5) / _USER_SAMPLES) for p in informed}
        for sample in range(_USER_SAMPLES)
    ]
    return SamplePrior(
        space, configs, source="user", trust=USER_TRUST, description="what you expect"
    )


def _value_at(parameter: Parameter, quantile: float) -> Value:
    """Return the value at a quantile of the distribution that is expected."""
    if isinstance(parameter, Categorical | Ordinal):
        return parameter.likely[int(quantile * len(parameter.likely))]
    prior = parameter.prior
    if prior is None:
        raise ValueError(f"{parameter.name} has no prior")
    z = NormalDist().inv_cdf(quantile)
    number = prior.center * prior.spread**z if parameter.log else prior.center + prior.spread * z
    number = min(max(number, parameter.low), parameter.high)
    return parameter.canonical(round(number) if isinstance(parameter, Int) else number)
