"""Surrogate of a finished study: a Gaussian process fitted to its trials.

Regret is relative: 0 is the best that the process expects anywhere among the trials, 1 the median
trial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from localhpo.creator.bo import gp
from localhpo.creator.bo.acquisition import standardize_utilities
from localhpo.creator.bo.gp import Array
from localhpo.errors import ConfigurationError
from localhpo.objective import Direction
from localhpo.space import Space
from localhpo.trial import Config, State, Trial, Value

MAX_REGRET = 1.5
"""Regrets are cut here: how bad a bad point is does not matter."""

Surrogate = Callable[[Sequence[Config]], Array]
"""From C canonical configurations to (C,) expected regrets, or utilities."""


def expected_regret(space: Space, direction: Direction, trials: Sequence[Trial]) -> Surrogate:
    """Return the expected regret of configurations of `space`.

    The trials may come from other ranges; those outside of this space are ignored. Where fewer
    than two are left, nothing is known, and every configuration has the regret 1.
    """
    fitted = _fit(space, direction, trials)
    if fitted is None:
        return lambda configs: np.ones(len(configs))
    # The expected utility, not the observed one: a lucky run is not the best there is.
    best = float(fitted.predict_points(fitted.x).max())
    scale = max(best - float(np.median(fitted.y)), 1e-9)
    return lambda configs: np.clip((best - fitted.predict(configs)) / scale, 0.0, MAX_REGRET)


def expected_utility(space: Space, direction: Direction, trials: Sequence[Trial]) -> Surrogate:
    """Return the expected utility of configurations of `space`: larger is better, in no unit.

    It comes from the same process as `expected_regret`, and is not cut: all trials of a good study
    are so near the best that, measured by its median, nearly everything else would be equally bad.
    """
    fitted = _fit(space, direction, trials)
    return (lambda configs: np.zeros(len(configs))) if fitted is None else fitted.predict


@dataclass(frozen=True)
class _FittedProcess:
    """A Gaussian process fitted to n trials."""

    space: Space
    x: Array
    """(n, d)"""
    y: Array
    """(n,), standardized utilities."""
    posterior: gp.Posterior

    def predict_points(self, points: Array) -> Array:
        """Return (m,): the expected utilities of (m, d) points."""
        return self.posterior.predict(points, gp.no_prior(points))[0]

    def predict(self, configs: Sequence[Config]) -> Array:
        """Return (C,): the expected utilities of C configurations."""
        return self.predict_points(np.array([self.space.encode(config) for config in configs]))


def _fit(space: Space, direction: Direction, trials: Sequence[Trial]) -> _FittedProcess | None:
    complete = [t for t in trials if t.state is State.COMPLETE and t.value is not None]
    inside = [(c, t) for t in complete if (c := canonical_or_none(space, t.config)) is not None]
    if len(inside) < 2:
        return None
    sign = 1.0 if direction == "maximize" else -1.0
    y = standardize_utilities(np.array([sign * (t.value or 0.0) for _, t in inside]))
    x = np.array([space.encode(config) for config, _ in inside])
    data = gp.TrainingData.without_prior(x, y, space.slices)
    return _FittedProcess(space, x, y, gp.Posterior(data, gp.fit(data)[0]))


def canonical_or_none(space: Space, config: Config) -> dict[str, Value] | None:
    """Return a configuration of another task on this space's grid; None where it is outside."""
    try:
        return space.canonical(config)
    except ConfigurationError:
        return None
