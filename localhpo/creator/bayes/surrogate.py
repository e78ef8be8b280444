"""What a finished study makes one expect of any configuration: a process fitted to its trials.

Regret: 0 is the best that is known of the task, 1 its median trial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from localhpo.creator.bayes import gp
from localhpo.creator.bayes.gp import Array
from localhpo.creator.bayes.optimizer import standardised
from localhpo.errors import ConfigurationError
from localhpo.space import Space
from localhpo.trial import Config, Direction, State, Trial, Value

WORST = 1.5
"""Regrets are cut here: how bad a bad point is tells nothing."""

Regret = Callable[[Sequence[Config]], Array]
"""From (C,) canonical configurations to their expected regrets."""


def expected_regret(space: Space, direction: Direction, trials: Sequence[Trial]) -> Regret:
    """Return the expected regret of configurations of `space`.

    The trials may come from other ranges: those count that fit into this space. Where fewer than
    two do, nothing is known, and every configuration is a middling one.
    """
    complete = [t for t in trials if t.state is State.COMPLETE and t.score is not None]
    scored = [(c, t) for t in complete if (c := fitting(space, t.config)) is not None]
    if len(scored) < 2:
        return lambda configs: np.ones(len(configs))
    sign = 1.0 if direction == "maximize" else -1.0
    merits = standardised(np.array([sign * (t.score or 0.0) for _, t in scored]))
    x = np.array([space.encode(config) for config, _ in scored])
    data = gp.Data(x, np.zeros(len(x)), merits, space.slices, 0.0)
    posterior = gp.Posterior(data, gp.fit(data)[0])
    # The mean there, not the score: a lucky run is not the best there is.
    best = float(posterior.predict(x, np.zeros(len(x)))[0].max())
    scale = max(best - float(np.median(merits)), 1e-9)

    def regret(configs: Sequence[Config]) -> Array:
        points = np.array([space.encode(config) for config in configs])
        mean = posterior.predict(points, np.zeros(len(points)))[0]
        return np.asarray(np.clip((best - mean) / scale, 0.0, WORST))

    return regret


def fitting(space: Space, config: Config) -> dict[str, Value] | None:
    """Return a configuration of another task on this space's grid; None where it is not in it."""
    try:
        return space.canonical(config)
    except ConfigurationError:
        return None
