"""What a finished study makes one expect of any configuration: a process fitted to its trials.

Regret: 0 is the best that is known of the task, 1 its median trial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from localhpo.creator.bayes import gp
from localhpo.creator.bayes.gp import Array
from localhpo.creator.bayes.optimizer import standardized
from localhpo.errors import ConfigurationError
from localhpo.space import Space
from localhpo.trial import Config, Direction, State, Trial, Value

WORST = 1.5
"""Regrets are cut here: how bad a bad point is tells nothing."""

Regret = Callable[[Sequence[Config]], Array]
"""From (C,) canonical configurations to their expected regrets, or merits."""


def expected_regret(space: Space, direction: Direction, trials: Sequence[Trial]) -> Regret:
    """Return the expected regret of configurations of `space`.

    The trials may come from other ranges: those count that fit into this space. Where fewer than
    two do, nothing is known, and every configuration is a middling one.
    """
    found = _fitted(space, direction, trials)
    if found is None:
        return lambda configs: np.ones(len(configs))
    # The mean there, not the score: a lucky run is not the best there is.
    best = float(found.merit(found.x).max())
    scale = max(best - float(np.median(found.y)), 1e-9)
    return lambda configs: np.clip((best - found.of(configs)) / scale, 0.0, WORST)


def expected_merit(space: Space, direction: Direction, trials: Sequence[Trial]) -> Regret:
    """Return the expected merit of configurations of `space`: larger is better, in no unit.

    Of the same process as `expected_regret`, and not cut: the trials of a good study are all so
    near the best that, by its own median, nearly all else is equally bad.
    """
    found = _fitted(space, direction, trials)
    return (lambda configs: np.zeros(len(configs))) if found is None else found.of


@dataclass(frozen=True)
class _Fitted:
    """A process fitted to a study."""

    space: Space
    x: Array
    """(n, columns)"""
    y: Array
    """(n,), standardized merits."""
    posterior: gp.Posterior

    def merit(self, points: Array) -> Array:
        return self.posterior.predict(points, np.zeros(len(points)))[0]

    def of(self, configs: Sequence[Config]) -> Array:
        return self.merit(np.array([self.space.encode(config) for config in configs]))


def _fitted(space: Space, direction: Direction, trials: Sequence[Trial]) -> _Fitted | None:
    complete = [t for t in trials if t.state is State.COMPLETE and t.score is not None]
    scored = [(c, t) for t in complete if (c := fitting(space, t.config)) is not None]
    if len(scored) < 2:
        return None
    sign = 1.0 if direction == "maximize" else -1.0
    y = standardized(np.array([sign * (t.score or 0.0) for _, t in scored]))
    x = np.array([space.encode(config) for config, _ in scored])
    data = gp.Data(x, np.zeros(len(x)), y, space.slices, 0.0)
    return _Fitted(space, x, y, gp.Posterior(data, gp.fit(data)[0]))


def fitting(space: Space, config: Config) -> dict[str, Value] | None:
    """Return a configuration of another task on this space's grid; None where it is not in it."""
    try:
        return space.canonical(config)
    except ConfigurationError:
        return None
