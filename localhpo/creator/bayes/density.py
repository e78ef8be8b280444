"""What a model has in mind, as a density over the space: from samples to an opinion.

The samples' density relative to a uniform draw, parameter by parameter: a Gaussian kernel for
numbers (each kernel cut at the bounds and renormalized), counts for categories, both mixed with
a uniform share, so that no value is ruled out. Its logarithm, summed over parameters, is the
opinion `phi`. Interactions are left to the trials: a few dozen samples in ten dimensions do not
show them.

The opinion of a point is about the log odds that it is good, as in the expert priors of piBO
(Hvarfner et al. 2022, https://arxiv.org/abs/2204.11051).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from localhpo.creator.bayes.gp import Array
from localhpo.space import Space
from localhpo.trial import Config

UNIFORM = 0.15
"""Share of the uniform density in each parameter's."""

_LEAST_WIDTH = 0.06
"""Of a kernel, in parts of the range."""

_GRID = 101
"""Points at which a parameter's density is tabulated."""


class Opinion:
    """The log density of samples, centered, with a spread of at most 1 over the space, and bent.

    Bent by a hyperbolic tangent: between points that are all likely (and between points that
    are all unlikely) the trials shall decide. Without it the optimum of the process clung to
    what the model had said.

    Attributes:
        samples: (samples, columns), encoded.
        owner: whose opinion it is, as a rationale names it.
        trust: mean of the weight that it gets before any trial.
        spread: of the log density before it was bounded: how sure the model is.
    """

    def __init__(
        self,
        space: Space,
        configs: Sequence[Config],
        trust: float,
        *,
        weights: Array | None = None,
        owner: str = "the model's opinion",
    ) -> None:
        """Take the configurations that the model drew, or that are good for another reason.

        Args:
            space: of the configurations.
            configs: at least one; may lack parameters of which they say nothing.
            trust: see the attributes.
            weights: how much each of them counts; equally by default.
            owner: see the attributes.
        """
        self.trust = trust
        self.owner = owner
        self.samples = np.array([space.encode(config) for config in configs])
        self._groups = space.slices
        self._tables = []
        for parameter, columns in zip(space.parameters, space.slices, strict=True):
            has = np.array([parameter.name in config for config in configs])
            said = has.any() and parameter.cardinality > 1
            rows = self.samples[has][:, columns]
            share = None if weights is None else weights[has]
            self._tables.append(_table(rows, share) if said else np.zeros(max(2, rows.shape[1])))
        self._mean = float(sum(table.mean() for table in self._tables))
        self.spread = float(np.sqrt(sum(table.var() for table in self._tables)))

    def __call__(self, x: Array) -> Array:
        """Return (m,): the opinion of (m, columns) points."""
        total = np.zeros(len(x))
        for columns, table in zip(self._groups, self._tables, strict=True):
            total += _look_up(table, x[:, columns])
        return np.tanh((total - self._mean) / max(1.0, self.spread))


def _table(samples: Array, weights: Array | None) -> Array:
    """Return the log density of one parameter: on a grid of [0, 1], or by category."""
    if samples.shape[1] > 1:
        return _by_category(samples, weights)
    active = samples[:, 0]
    grid = np.linspace(0.0, 1.0, _GRID)
    spread = np.sqrt(
        np.average((active - np.average(active, weights=weights)) ** 2, weights=weights)
    )
    width = max(_LEAST_WIDTH, 1.06 * float(spread) * _count(active, weights) ** -0.2)
    kernels = np.exp(-0.5 * ((grid[:, None] - active[None]) / width) ** 2)
    # The trapezoidal rule; numpy 1 and 2 name it differently.
    kernels /= (kernels[:-1] + kernels[1:]).sum(0) * (0.5 / (_GRID - 1))
    return np.asarray(
        np.log(UNIFORM + (1.0 - UNIFORM) * np.average(kernels, axis=1, weights=weights))
    )


def _count(samples: Array, weights: Array | None) -> float:
    """Return how many samples of equal weight tell as much (Kish's effective sample size)."""
    if weights is None:
        return len(samples)
    return float(weights.sum() ** 2 / (weights**2).sum())


def _by_category(samples: Array, weights: Array | None) -> Array:
    mean = np.average(samples, axis=0, weights=weights)
    shares = mean / max(1e-9, float(mean.sum()))
    return np.asarray(np.log(UNIFORM + (1.0 - UNIFORM) * shares * samples.shape[1]))


def _look_up(table: Array, x: Array) -> Array:
    if x.shape[1] > 1:
        return np.asarray(np.where(x.sum(1) > 0, x @ table, table.mean()))
    place = np.clip(x[:, 0], 0.0, 1.0) * (len(table) - 1)
    return np.asarray(np.interp(place, np.arange(len(table)), table))
