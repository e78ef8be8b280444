"""Expected improvement, and the search for the point where it is largest.

The search evaluates many start points and then samples around the ten best, ever closer.

Notation: m points, d columns of the unit cube, G parameters. A category has one column per choice
(one-hot).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from localhpo.creator.bo.gp import Array

UNIFORM = 600
"""Random points among the start points."""

NEAR = 150
"""Points of one round of the local search, around the ten best so far."""

WIDTHS = (0.15, 0.05, 0.02, 0.007, 0.002)
"""Step sizes of its rounds, in parts of a range: on a smooth function the last trials are that
close."""


def log_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Return (m,): the logarithm of the expected improvement over `best`, larger being better.

    Stable where the improvement is tiny (Ament et al. 2023, https://arxiv.org/abs/2310.20708).
    """
    from scipy.special import erfcx, log_ndtr

    # log(density(z) + z * distribution(z)) + log(deviation), with z the standardized improvement.
    z = (mean - best) / deviation
    log_density = -0.5 * z * z - 0.5 * np.log(2.0 * np.pi)
    plain = np.exp(log_density) + z * np.exp(log_ndtr(z))
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.log(plain)
        # Far below the best the sum cancels to 0. There it is density(z) * (1 - u * mills(u)) with
        # u = -z and Mills' ratio, which `erfcx` gives without underflow.
        u = np.maximum(-z, 0.5)
        mills = np.sqrt(np.pi / 2.0) * erfcx(u / np.sqrt(2.0))
        far = log_density + np.log(np.maximum(1.0 - u * mills, 1e-300))
    return np.asarray(np.where(z > -4.0, near, far) + np.log(deviation))


def uniform(groups: Sequence[slice], rng: np.random.Generator) -> Array:
    """Return (UNIFORM, d) random points; the columns of a category hold a single 1."""
    x = rng.uniform(size=(UNIFORM, groups[-1].stop))
    for columns in groups:
        if columns.stop - columns.start > 1:
            # The largest of independent uniform numbers: each category is equally likely.
            x[:, columns] = np.eye(columns.stop - columns.start)[x[:, columns].argmax(1)]
    return x


def perturb(x: Array, groups: Sequence[slice], width: float, rng: np.random.Generator) -> Array:
    """Return each point moved in about a third of its parameters, at least in one.

    Args:
        x: (m, d).
        groups: columns of each parameter.
        width: standard deviation of a step, in parts of a range.
        rng: draws the parameters and the steps.
    """
    count = len(x)
    moved = rng.uniform(size=(count, len(groups))) < max(0.3, 1.0 / len(groups))
    moved[np.arange(count), rng.integers(len(groups), size=count)] = True
    out = x.copy()
    for g, columns in enumerate(groups):
        rows = moved[:, g]
        size = columns.stop - columns.start
        if size > 1:
            # Any other category is a large step, so a category changes half as often as a number.
            rows = rows & (rng.uniform(size=count) < 0.5)
            out[rows, columns] = np.eye(size)[rng.integers(size, size=int(rows.sum()))]
        else:
            step = rng.normal(0.0, width, (int(rows.sum()), 1))
            out[rows, columns] = np.clip(out[rows, columns] + step, 0.0, 1.0)
    return out


def maximize(
    evaluate: Callable[[Array], Array],
    start: Array,
    groups: Sequence[slice],
    snap: Callable[[Array], Array],
    rng: np.random.Generator,
) -> Array:
    """Return the points that were evaluated, the largest value first.

    Args:
        evaluate: from (m, d) points to their (m,) values.
        start: (m, d) points from which the search starts.
        groups: columns of each parameter.
        snap: puts inactive parameters where they belong.
        rng: draws the steps.
    """
    x, y = start, evaluate(start)
    for width in WIDTHS:
        best = x[np.argsort(-y)[:10]]
        near = snap(perturb(np.repeat(best, NEAR // 10, axis=0), groups, width, rng))
        x, y = np.concatenate([x, near]), np.concatenate([y, evaluate(near)])
    return x[np.argsort(-y, kind="stable")]
