"""A Gaussian process whose mean leans on what an expert said.

    y(x) = scale * (w * phi(x) + g(x) + c) + noise,   w ~ N(trust, SPREAD^2)

`phi` is the expert's opinion (a log density, see `density`), g a process with a Matern-5/2
kernel and one length per parameter, c a constant with a broad prior. The weight of the opinion
is inferred with everything else, in closed form: trials that agree with it strengthen it, trials
that contradict it wear it down, and g takes over where there are trials. Lengths, scale and
noise are those of the largest posterior density.

Sources: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), 2.7 (linear
features with a Gaussian prior) and 5.4.1 (gradients); priors on lengths that grow with the
number of dimensions as in Hvarfner et al. 2024, https://arxiv.org/abs/2402.02229.

Notation: n trials, m other points, G parameters; `x` (n, columns) in the unit cube, `phi` (n,).
Larger y is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SPREAD = 0.5
"""Of the weight of the opinion, before any trial."""

CONSTANT = 3.0
"""Standard deviation of the constant, in units of the scale."""

_LENGTH = (-0.4, 1.0)
"""Mean and deviation of log(length / sqrt(G))."""
_SCALE = (0.3, 0.7)
"""Of log(scale): trials are chosen, and lie closer together than random points."""
_NOISE = (-5.0, 1.5)
"""Of log(noise / scale): most noise is small beside what is tuned; trials say when it is not."""

_JITTER = 1e-8


@dataclass(frozen=True)
class Data:
    """What is known: trials, and the opinion of them."""

    x: Array
    """(n, columns)"""
    phi: Array
    """(n,)"""
    y: Array
    """(n,), standardized"""
    groups: Sequence[slice]
    """Columns of each parameter."""
    trust: float
    """Mean of the weight of the opinion."""
    squares: Array = field(init=False)
    """(G, n, n): squared distances by parameter."""

    def __post_init__(self) -> None:
        """Compute the distances once."""
        object.__setattr__(self, "squares", squares(self.x, self.x, self.groups))


def squares(a: Array, b: Array, groups: Sequence[slice]) -> Array:
    """Return (G, n, m): the squared distances of points, parameter by parameter.

    Two categories are 1 apart.
    """
    out = np.empty((len(groups), len(a), len(b)))
    for g, columns in enumerate(groups):
        p, q = a[:, columns], b[:, columns]
        if p.shape[1] == 1:
            out[g] = (p - q.T) ** 2
        else:
            out[g] = 0.5 * ((p**2).sum(1)[:, None] + (q**2).sum(1)[None] - 2.0 * p @ q.T)
    return out


def matern(r2: Array) -> tuple[Array, Array]:
    """Return the kernel and its derivative by r^2, at squared scaled distances."""
    r = np.sqrt(5.0 * np.maximum(r2, 0.0))
    decay = np.exp(-r)
    return (1.0 + r + r * r / 3.0) * decay, -5.0 / 6.0 * (1.0 + r) * decay


class Posterior:
    """The process, given the data, its lengths, scale and noise."""

    def __init__(self, data: Data, theta: Array) -> None:
        """Take what `fit` returned."""
        self._data = data
        self.lengths = np.exp(theta[:-2])
        self.scale = float(np.exp(theta[-2]))
        kernel = _covariance(data, theta)[0]
        self._factor = cholesky(kernel)
        residual = data.y - self.scale * data.trust * data.phi
        self._alpha = solve(self._factor, residual)

    def predict(self, x: Array, phi: Array) -> tuple[Array, Array]:
        """Return the mean and standard deviation, without noise, of (m, columns) points."""
        data = self._data
        r2 = np.tensordot(self.lengths**-2, squares(x, data.x, data.groups), 1)
        cross = matern(r2)[0] + SPREAD**2 * phi[:, None] * data.phi[None] + CONSTANT**2
        cross *= self.scale**2
        mean = self.scale * data.trust * phi + cross @ self._alpha
        half = _half_solve(self._factor, cross.T)
        prior = self.scale**2 * (1.0 + (SPREAD * phi) ** 2 + CONSTANT**2)
        return mean, np.sqrt(np.maximum(prior - (half**2).sum(0), 1e-12))

    @property
    def weight(self) -> float:
        """The posterior mean of the opinion's weight."""
        data = self._data
        return float(data.trust + SPREAD**2 * self.scale * (data.phi @ self._alpha))


def fit(data: Data) -> tuple[Array, float]:
    """Return the most probable log lengths (G), log scale and log noise / scale.

    And the log posterior there, up to a constant: how well the data are explained.
    """
    from scipy.optimize import minimize

    count = len(data.groups)
    start = np.concatenate([np.full(count, _length_mean(count)), [_SCALE[0], _NOISE[0]]])
    found = minimize(
        _loss, start, args=(data,), jac=True, method="L-BFGS-B",
        bounds=[(-3.0, 5.0)] * count + [(-2.0, 3.0), (-7.0, 1.0)], options={"maxiter": 60},
    )  # fmt: skip
    return np.asarray(found.x), -float(found.fun)


def _length_mean(count: int) -> float:
    return _LENGTH[0] + 0.5 * float(np.log(count))


def _covariance(data: Data, theta: Array) -> tuple[Array, Array]:
    """Return (n, n): the covariance of y, and its derivative by r^2."""
    lengths, scale, noise = np.exp(theta[:-2]), np.exp(theta[-2]), np.exp(theta[-1])
    kernel, slope = matern(np.tensordot(lengths**-2, data.squares, 1))
    full = kernel + SPREAD**2 * np.outer(data.phi, data.phi) + CONSTANT**2
    full[np.diag_indices(len(full))] += noise**2 + _JITTER
    return scale**2 * full, scale**2 * slope


def _loss(theta: Array, data: Data) -> tuple[float, Array]:
    """Return the negative log posterior of log lengths, scale and noise, and its gradient."""
    count = len(data.groups)
    full, slope = _covariance(data, theta)
    factor = cholesky(full)
    scale, noise = np.exp(theta[-2]), np.exp(theta[-1])
    opinion = scale * data.trust * data.phi
    residual = data.y - opinion
    alpha = solve(factor, residual)
    inverse = solve(factor, np.eye(len(full)))
    outer = np.outer(alpha, alpha) - inverse
    gradient = np.empty_like(theta)
    # d r^2 / d log length = -2 squares / length^2
    by_length = -2.0 * np.exp(-2.0 * theta[:-2])
    gradient[:-2] = -0.5 * by_length * np.einsum("gij,ij->g", data.squares, outer * slope)
    gradient[-2] = len(full) - residual @ alpha - opinion @ alpha
    gradient[-1] = -np.trace(outer) * (scale * noise) ** 2
    loss = 0.5 * residual @ alpha + np.log(np.diag(factor)).sum()
    means = np.concatenate([np.full(count, _length_mean(count)), [_SCALE[0], _NOISE[0]]])
    spreads = np.concatenate([np.full(count, _LENGTH[1]), [_SCALE[1], _NOISE[1]]])
    away = (theta - means) / spreads
    return float(loss + 0.5 * away @ away), gradient + away / spreads


def cholesky(matrix: Array) -> Array:
    """Return the lower factor of a symmetric positive definite matrix."""
    import scipy.linalg

    return np.asarray(scipy.linalg.cholesky(matrix, lower=True))


def solve(factor: Array, right: Array) -> Array:
    """Return the solution for the matrix of a lower factor."""
    from scipy.linalg import cho_solve

    return np.asarray(cho_solve((factor, True), right))


def _half_solve(factor: Array, right: Array) -> Array:
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(factor, right, lower=True))
