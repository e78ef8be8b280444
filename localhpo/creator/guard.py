"""Novelty: whether a configuration is new to a study, and what is left where it is not.

A grammar guarantees shape and bounds; that a proposal is new, nobody but us guarantees (small
language models repeat a known configuration in most of their turns). So every configuration
of a study counts as taken, whatever became of it: finished, running, queued or refused.

A near duplicate is one whose parameters together moved by less than `NEAR` of one range, e.g.
a learning rate of 3.1e-2 after 3e-2. What a run would show is then the noise of training.
It is drawn again, but good enough when nothing better comes: an engine that has converged is
right to stay close. Steps of a coarse grid are wider than that, so in a small discrete space
nothing is near.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from localhpo.errors import SpaceExhaustedError

if TYPE_CHECKING:
    from localhpo.creator.protocol import History
    from localhpo.space import Space
    from localhpo.trial import Config, Value

NEAR = 0.01
"""Of one parameter's range, summed over the parameters."""

_LISTED = 4096
"""Spaces up to this size are searched by listing them."""

_PERTURBATIONS = 48

T = TypeVar("T")


class Verdict(Enum):
    """How a configuration stands to those that are taken; the best comes first."""

    NEW = "new"
    NEAR = "near"
    MISFIT = "misfit"
    """It cannot run on this machine."""
    TAKEN = "taken"


@dataclass(frozen=True, slots=True)
class Pick(Generic[T]):
    """What was drawn, and how many draws were looked at."""

    drawn: T
    verdict: Verdict
    tries: int


class Guard:
    """Knows every configuration of a study.

    Raises (on construction):
        SpaceExhaustedError: they are all there are.
    """

    def __init__(self, history: History) -> None:
        self._space: Space = history.task.space
        self._misfit = history.misfit
        self._taken = {self._space.key(trial.config): trial.config for trial in history.trials}
        if len(self._taken) >= self._space.cardinality:
            raise SpaceExhaustedError(
                f"all {self._space.cardinality} configurations of the space have been proposed",
                hint="widen the space, or lower the number of trials",
            )

    def judge(self, config: Config) -> Verdict:
        """Return whether a canonical configuration is new, and may run at all."""
        if self._space.key(config) in self._taken:
            return Verdict.TAKEN
        if self._misfit is not None and self._misfit(config) is not None:
            return Verdict.MISFIT
        near = any(_moved(self._space, config, taken) < NEAR for taken in self._taken.values())
        return Verdict.NEAR if near else Verdict.NEW

    def pick(self, draws: Iterable[T], config_of: Callable[[T], Config]) -> Pick[T] | None:
        """Return the first draw that is new, else the first near one, else the first taken one.

        Draws are consumed lazily: nothing is drawn after a new one. None where none came.
        """
        found: dict[Verdict, T] = {}
        tries = 0
        for drawn in draws:
            tries += 1
            found.setdefault(self.judge(config_of(drawn)), drawn)
            if Verdict.NEW in found:
                break
        best = next((verdict for verdict in Verdict if verdict in found), None)
        return None if best is None else Pick(found[best], best, tries)

    def nearest_left(self, wish: Config, rng: np.random.Generator) -> dict[str, Value]:
        """Return an untaken configuration close to the one wished for.

        The closest one in a space that is small enough to list. In a larger one, the wish is
        perturbed further and further; where even that finds nothing, listing one more
        configuration than are taken must.
        """
        if self._space.cardinality > _LISTED:
            vector = self._space.encode(wish)
            for scale in np.geomspace(0.02, 1.0, _PERTURBATIONS):
                noise = rng.normal(0.0, scale, size=vector.shape)
                config = self._space.decode(np.clip(vector + noise, 0.0, 1.0))
                if self.judge(config) in (Verdict.NEW, Verdict.NEAR):
                    return config
        listed = itertools.islice(self._space.configurations(), max(_LISTED, len(self._taken) + 1))
        left = [config for config in listed if self._space.key(config) not in self._taken]
        fitting = [config for config in left if self.judge(config) is not Verdict.MISFIT]
        return min(fitting or left, key=lambda config: self._space.distance(config, wish))


def _moved(space: Space, a: Config, b: Config) -> float:
    """Return the distance of two configurations, summed over parameters."""
    return space.distance(a, b) * len(a.keys() | b.keys())
