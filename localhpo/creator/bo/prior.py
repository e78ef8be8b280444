"""Priors of Bayesian optimization, from samples or past data sets.

A `SamplePrior` is made of samples: configurations that a model drew, or that were good in past
studies. It is their density relative to a uniform draw, parameter by parameter: a Gaussian kernel
for numbers (each kernel cut at the bounds and renormalized), counts for categories, both mixed
with a uniform share, so that no value is ruled out. Its logarithm, summed over the parameters, is
the prior `phi`. Interactions are left to the trials: a few dozen samples in ten dimensions do not
show them.

The prior of a point is about the log odds that the point is good, as in the expert priors of piBO
(Hvarfner et al. 2022, https://arxiv.org/abs/2204.11051).

Notation: s samples, m points, d columns of the unit cube (a category has one column per choice).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from localhpo.creator.bo.gp import Array
from localhpo.space import Space
from localhpo.trial import Config

UNIFORM_SHARE = 0.15
"""Share of the uniform density in the density of each parameter."""

_MIN_WIDTH = 0.06
"""Smallest width of a kernel, in parts of the range."""

_GRID = 101
"""Points at which the density of a number is tabulated."""


class Prior(Protocol):
    """A prior value for every point of a space: from samples, or from past data sets."""

    source: str
    """Where it comes from, a word of `Origin`: `llm`, `meta`, `transfer` or `user`."""
    trust: float
    """Probability, before any trial, that it tells what is good here; between 0 and 1."""
    weight: float
    """Mean of its weight before any trial, in units of the scale of the process (`gp`)."""
    description: str
    """What it rests on, for a rationale: "47 similar data sets"."""
    samples: Array
    """(s, d): good points, from which a search starts."""

    def __call__(self, x: Array) -> Array:
        """Return (m,): the prior of (m, d) points, with a mean near 0 and a deviation near 1."""
        ...


class SamplePrior:
    """The log density of samples: centered, scaled to a deviation of at most 1, and bounded.

    It is bounded by a hyperbolic tangent: among points that are all likely (or all unlikely) the
    trials shall decide. Without the bound, proposals stayed too close to the samples.

    Attributes:
        spread: standard deviation of the log density over the space, before scaling: how certain
            the source of the samples is.
    """

    def __init__(
        self,
        space: Space,
        configs: Sequence[Config],
        *,
        source: str,
        trust: float,
        description: str,
        weight: float = 1.0,
        sample_weights: Array | None = None,
    ) -> None:
        """Estimate the density.

        Args:
            space: the space of the configurations.
            configs: the samples, at least one. A parameter that a sample lacks is not informed
                by it.
            source: see `Prior`.
            trust: see `Prior`.
            description: see `Prior`.
            weight: see `Prior`.
            sample_weights: (s,), how much each sample counts; equal by default.
        """
        self.source = source
        self.trust = trust
        self.weight = weight
        self.description = description
        self.samples = np.array([space.encode(config) for config in configs])
        self._groups = space.slices
        self._tables = []
        for parameter, columns in zip(space.parameters, space.slices, strict=True):
            has = np.array([parameter.name in config for config in configs])
            is_informed = has.any() and parameter.cardinality > 1
            rows = self.samples[has][:, columns]
            share = None if sample_weights is None else sample_weights[has]
            # A table of zeros is the uniform density: the parameter does not count.
            zeros = np.zeros(max(2, rows.shape[1]))
            self._tables.append(_log_density(rows, share) if is_informed else zeros)
        self._mean = float(sum(table.mean() for table in self._tables))
        # Parameters are independent under a uniform draw, so their variances add up.
        self.spread = float(np.sqrt(sum(table.var() for table in self._tables)))

    def __call__(self, x: Array) -> Array:
        """Return (m,): the prior of (m, d) points."""
        total = np.zeros(len(x))
        for columns, table in zip(self._groups, self._tables, strict=True):
            total += _look_up(table, x[:, columns])
        return np.tanh((total - self._mean) / max(1.0, self.spread))


def _log_density(samples: Array, weights: Array | None) -> Array:
    """Return the log density of one parameter: on a grid of [0, 1], or by category."""
    if samples.shape[1] > 1:
        return _log_shares(samples, weights)
    values = samples[:, 0]
    grid = np.linspace(0.0, 1.0, _GRID)
    deviation = np.sqrt(
        np.average((values - np.average(values, weights=weights)) ** 2, weights=weights)
    )
    # Silverman's rule for the width of a kernel: 1.06 * deviation * n^(-1/5).
    width = max(_MIN_WIDTH, 1.06 * float(deviation) * _effective_count(values, weights) ** -0.2)
    kernels = np.exp(-0.5 * ((grid[:, None] - values[None]) / width) ** 2)
    # Each kernel integrates to 1 within the bounds, by the trapezoidal rule; numpy 1 and 2 name
    # that function differently.
    kernels /= (kernels[:-1] + kernels[1:]).sum(0) * (0.5 / (_GRID - 1))
    density = np.average(kernels, axis=1, weights=weights)
    return np.asarray(np.log(UNIFORM_SHARE + (1.0 - UNIFORM_SHARE) * density))


def _effective_count(samples: Array, weights: Array | None) -> float:
    """Return Kish's effective sample size: the samples of equal weight that tell as much."""
    if weights is None:
        return len(samples)
    return float(weights.sum() ** 2 / (weights**2).sum())


def _log_shares(samples: Array, weights: Array | None) -> Array:
    """Return the log density of each category, relative to equal shares."""
    mean = np.average(samples, axis=0, weights=weights)
    shares = mean / max(1e-9, float(mean.sum()))
    return np.asarray(np.log(UNIFORM_SHARE + (1.0 - UNIFORM_SHARE) * shares * samples.shape[1]))


def _look_up(table: Array, x: Array) -> Array:
    """Return (m,): the log density at (m, columns of one parameter) points."""
    if x.shape[1] > 1:
        # An inactive category has zeros in all columns; it is neither likely nor unlikely.
        return np.asarray(np.where(x.sum(1) > 0, x @ table, table.mean()))
    position = np.clip(x[:, 0], 0.0, 1.0) * (len(table) - 1)
    return np.asarray(np.interp(position, np.arange(len(table)), table))
