"""Chooses among candidates: leaves out what was tried or cannot run, and ranks by medoids.

A grammar guarantees the shape and bounds of an answer, but not that it is new: small language
models repeat a known configuration in most of their answers. Every configuration of a study
counts as known, whatever the state of its trial: finished, running, queued or refused.

A near duplicate differs from a known configuration by less than `NEAR` of one range, summed over
the parameters, e.g. a learning rate of 3.1e-2 after 3e-2. Running it would mostly measure the
noise of training. Another candidate is preferred, but a near duplicate is accepted where nothing
better comes: an engine that has converged is right to stay close. Steps of a coarse grid are wider
than `NEAR`, so a small discrete space has no near duplicates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from localhpo.errors import SpaceExhaustedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from localhpo.creator.protocol import History
    from localhpo.space import Space
    from localhpo.trial import Config, Value

NEAR = 0.01
"""Distance below which two configurations are near duplicates, in parts of one range."""

_MAX_LISTED = 4096
"""Largest space that is searched by listing its configurations."""

_PERTURBATIONS = 48

T = TypeVar("T")


class CandidateStatus(Enum):
    """How a candidate compares with the known configurations; the best status comes first."""

    NEW = "new"
    NEAR_DUPLICATE = "near duplicate"
    INVALID = "invalid"
    """It cannot run on this machine."""
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Selection(Generic[T]):
    """The candidate that was selected."""

    candidate: T
    status: CandidateStatus
    tries: int
    """Candidates that were looked at."""


class DuplicateFilter:
    """Compares candidates with every configuration of a study.

    Raises (on construction):
        SpaceExhaustedError: the study has tried every configuration of its space.
    """

    def __init__(self, history: History) -> None:
        self._space: Space = history.task.space
        self._invalid_reason = history.invalid_reason
        self._known = {self._space.key(trial.config): trial.config for trial in history.trials}
        if len(self._known) >= self._space.cardinality:
            raise SpaceExhaustedError(
                f"all {self._space.cardinality} configurations of the space have been proposed",
                hint="widen the space, or lower the number of trials",
            )

    def classify(self, config: Config) -> CandidateStatus:
        """Return the status of a canonical configuration."""
        if self._space.key(config) in self._known:
            return CandidateStatus.DUPLICATE
        if self._invalid_reason is not None and self._invalid_reason(config) is not None:
            return CandidateStatus.INVALID
        for known in self._known.values():
            count = len(config.keys() | known.keys())  # `Space.distance` is a mean over so many
            if count * self._space.distance(config, known) < NEAR:
                return CandidateStatus.NEAR_DUPLICATE
        return CandidateStatus.NEW

    def select(
        self, candidates: Iterable[T], config_of: Callable[[T], Config]
    ) -> Selection[T] | None:
        """Return the first new candidate, else the first of the best status; None without any.

        Candidates are consumed lazily: none is drawn after a new one.
        """
        found: dict[CandidateStatus, T] = {}
        tries = 0
        for candidate in candidates:
            tries += 1
            found.setdefault(self.classify(config_of(candidate)), candidate)
            if CandidateStatus.NEW in found:
                break
        best = next((status for status in CandidateStatus if status in found), None)
        return None if best is None else Selection(found[best], best, tries)

    def select_new(
        self, candidates: Iterable[T], config_of: Callable[[T], Config]
    ) -> Selection[T] | None:
        """Return the first new candidate; None where none is new."""
        selection = self.select(candidates, config_of)
        is_new = selection is not None and selection.status is CandidateStatus.NEW
        return selection if is_new else None

    def nearest_untried(self, target: Config, rng: np.random.Generator) -> dict[str, Value]:
        """Return an untried configuration close to the target.

        In a space that is small enough to list, it is the closest one. In a larger one the target
        is perturbed, further each time. Where even that finds nothing, one more configuration
        than are known is listed, so at least one of them is untried.
        """
        if self._space.cardinality > _MAX_LISTED:
            vector = self._space.encode(target)
            for scale in np.geomspace(0.02, 1.0, _PERTURBATIONS):
                noise = rng.normal(0.0, scale, size=vector.shape)
                config = self._space.decode(np.clip(vector + noise, 0.0, 1.0))
                if self.classify(config) in (CandidateStatus.NEW, CandidateStatus.NEAR_DUPLICATE):
                    return config
        count = max(_MAX_LISTED, len(self._known) + 1)
        listed = itertools.islice(self._space.configurations(), count)
        untried = [config for config in listed if self._space.key(config) not in self._known]
        valid = [c for c in untried if self.classify(c) is not CandidateStatus.INVALID]
        return min(valid or untried, key=lambda config: self._space.distance(config, target))


def medoid_order(
    space: Space,
    candidates: Sequence[Config],
    tried: Sequence[Config],
    *,
    weights: NDArray[np.float64] | Sequence[float] | None = None,
) -> list[int]:
    """Return the indices of the candidates, the one that represents them best first.

    The cost of a candidate is the mean distance of all candidates to the nearest of it and the
    tried configurations: one greedy step of the k-medoids problem. Where nothing has been tried,
    the first candidate is the medoid; later it is the medoid of what the trials do not cover yet,
    so a model that ignores the history still gives different proposals.

    Args:
        space: the space of the configurations.
        candidates: configurations to rank.
        tried: configurations that cover the candidates near them.
        weights: weight of each candidate in the mean; equal by default.
    """
    if len(candidates) < 2:
        return list(range(len(candidates)))
    # (n, n) distances between candidates; (n,) distances to the nearest tried configuration.
    between = np.array([[space.distance(a, b) for b in candidates] for a in candidates])
    covered = np.array(
        [min((space.distance(a, b) for b in tried), default=np.inf) for a in candidates]
    )
    cost = np.average(np.minimum(between, covered[None, :]), axis=1, weights=weights)
    return [int(index) for index in np.argsort(cost, kind="stable")]
