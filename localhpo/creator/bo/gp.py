"""A Gaussian process whose mean follows priors of the space.

    y(x) = scale * (phi(x) . w + g(x) + c) + noise,   w_k ~ N(weights_k, WEIGHT_SD^2)

`phi` has one column per prior (see `prior`), g is a process with a Matern-5/2 kernel and one length
scale per parameter, c a constant with a broad distribution. The weight of each prior is inferred
with everything else, in closed form: trials that agree with a prior raise it, trials that
contradict it lower it, and g takes over where there are trials. Length scales, scale and noise are
those of the largest posterior density (MAP).

Sources: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), 2.7 (linear
features with a Gaussian prior) and 5.4.1 (gradients); priors on length scales that grow with the
number of dimensions as in Hvarfner et al. 2024, https://arxiv.org/abs/2402.02229.

Notation: n trials, m other points, K priors (maybe none), G parameters, d columns of the unit cube
(a category has one column per choice). `x` is (n, d), `phi` (n, K), `y` (n,) with larger being
better, `theta` (G + 2,) holds the log length scales, log(scale) and log(noise / scale).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

WEIGHT_SD = 0.5
"""Standard deviation of the weight of a prior, before any trial."""

CONSTANT_SD = 3.0
"""Standard deviation of the constant, in units of the scale."""

_LENGTH = (-0.4, 1.0)
"""Mean and standard deviation of log(length / sqrt(G))."""
_SCALE = (0.3, 0.7)
"""The same of log(scale): trials are chosen, and lie closer together than random points."""
_NOISE = (-5.0, 1.5)
"""The same of log(noise / scale): noise is mostly small beside the effect of what is tuned."""

_JITTER = 1e-8
"""Added to the diagonal, so that the Cholesky factorization of repeated points succeeds."""


@dataclass(frozen=True)
class TrainingData:
    """Trials, and the priors at them."""

    x: Array
    """(n, d)"""
    phi: Array
    """(n, K)"""
    y: Array
    """(n,), standardized"""
    groups: Sequence[slice]
    """Columns of each parameter, G of them."""
    weights: Array
    """(K,): mean of the weight of each prior before any trial."""
    distances: Array = field(init=False)
    """(G, n, n): squared distances by parameter."""

    def __post_init__(self) -> None:
        """Compute the distances once: fitting needs them at every step."""
        object.__setattr__(self, "distances", squared_distances(self.x, self.x, self.groups))

    @classmethod
    def without_prior(cls, x: Array, y: Array, groups: Sequence[slice]) -> TrainingData:
        """Return the same trials without any prior."""
        return cls(x, no_prior(x), y, groups, np.zeros(0))


def no_prior(x: Array) -> Array:
    """Return `phi` of (m, d) points where there is no prior: (m, 0)."""
    return np.zeros((len(x), 0))


def squared_distances(a: Array, b: Array, groups: Sequence[slice]) -> Array:
    """Return (G, n, m): the squared distances of points, parameter by parameter.

    Two different categories have distance 1.
    """
    out = np.empty((len(groups), len(a), len(b)))
    for g, columns in enumerate(groups):
        p, q = a[:, columns], b[:, columns]
        if p.shape[1] == 1:
            out[g] = (p - q.T) ** 2
        else:
            # |p - q|^2 of two different one-hot vectors is 2; half of it is 1.
            out[g] = 0.5 * ((p**2).sum(1)[:, None] + (q**2).sum(1)[None] - 2.0 * p @ q.T)
    return out


def matern(r2: Array) -> tuple[Array, Array]:
    """Return the Matern-5/2 kernel and its derivative by r^2, at squared scaled distances r^2."""
    r = np.sqrt(5.0 * np.maximum(r2, 0.0))
    decay = np.exp(-r)
    # The derivative by r^2 (not by r) is finite at 0, where that of the square root is not.
    return (1.0 + r + r * r / 3.0) * decay, -5.0 / 6.0 * (1.0 + r) * decay


class Posterior:
    """The process, given the data, the length scales, the scale and the noise."""

    def __init__(self, data: TrainingData, theta: Array) -> None:
        """Factorize the covariance of the data at the `theta` that `fit` returned."""
        self._data = data
        self.lengths = np.exp(theta[:-2])
        self.scale = float(np.exp(theta[-2]))
        kernel = _covariance(data, theta)[0]
        self._factor = cholesky(kernel)
        residual = data.y - self.scale * (data.phi @ data.weights)
        self._alpha = solve(self._factor, residual)

    def predict(self, x: Array, phi: Array) -> tuple[Array, Array]:
        """Return the mean and standard deviation, without noise, of (m, d) points: (m,) each.

        Args:
            x: the points.
            phi: (m, K), the priors at them.
        """
        data = self._data
        r2 = np.tensordot(self.lengths**-2, squared_distances(x, data.x, data.groups), 1)
        # A linear feature with a Gaussian weight adds its outer product to the covariance.
        cross = matern(r2)[0] + WEIGHT_SD**2 * phi @ data.phi.T + CONSTANT_SD**2
        cross *= self.scale**2
        mean = self.scale * (phi @ data.weights) + cross @ self._alpha
        half = _half_solve(self._factor, cross.T)
        prior = self.scale**2 * (1.0 + WEIGHT_SD**2 * (phi**2).sum(1) + CONSTANT_SD**2)
        # At a trial without noise the difference is 0 up to rounding, which may be negative.
        return mean, np.sqrt(np.maximum(prior - (half**2).sum(0), 1e-12))

    @property
    def weights(self) -> Array:
        """(K,): posterior mean of the weight of each prior."""
        data = self._data
        return np.asarray(data.weights + WEIGHT_SD**2 * self.scale * (data.phi.T @ self._alpha))


def fit(data: TrainingData) -> tuple[Array, float]:
    """Return the most probable `theta` (G + 2,), and the log posterior density there.

    The density is known up to a constant that is the same for all data sets of n trials and G
    parameters. It serves as the model evidence: how well the process explains the trials.
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
    # log(length / sqrt(G)) has the mean _LENGTH[0]: distances in the cube grow with sqrt(G).
    return _LENGTH[0] + 0.5 * float(np.log(count))


def _covariance(data: TrainingData, theta: Array) -> tuple[Array, Array]:
    """Return (n, n) twice: the covariance of y, and its derivative by r^2."""
    lengths, scale, noise = np.exp(theta[:-2]), np.exp(theta[-2]), np.exp(theta[-1])
    kernel, slope = matern(np.tensordot(lengths**-2, data.distances, 1))
    full = kernel + WEIGHT_SD**2 * data.phi @ data.phi.T + CONSTANT_SD**2
    full[np.diag_indices(len(full))] += noise**2 + _JITTER
    return scale**2 * full, scale**2 * slope


def _loss(theta: Array, data: TrainingData) -> tuple[float, Array]:
    """Return the negative log posterior density of `theta`, and its gradient (G + 2,)."""
    count = len(data.groups)
    full, slope = _covariance(data, theta)
    factor = cholesky(full)
    scale, noise = np.exp(theta[-2]), np.exp(theta[-1])
    prior_mean = scale * (data.phi @ data.weights)
    residual = data.y - prior_mean
    alpha = solve(factor, residual)
    inverse = solve(factor, np.eye(len(full)))
    # d loss / d t = -1/2 tr((alpha alpha' - K^-1) dK/dt) for each hyperparameter t.
    outer = np.outer(alpha, alpha) - inverse
    gradient = np.empty_like(theta)
    # d r^2 / d log length = -2 distances / length^2
    by_length = -2.0 * np.exp(-2.0 * theta[:-2])
    gradient[:-2] = -0.5 * by_length * np.einsum("gij,ij->g", data.distances, outer * slope)
    # dK / d log scale = 2 K, and the mean of the prior grows with the scale too.
    gradient[-2] = len(full) - residual @ alpha - prior_mean @ alpha
    gradient[-1] = -np.trace(outer) * (scale * noise) ** 2
    # log(det K) / 2 is the sum of the logarithms of the factor's diagonal.
    loss = 0.5 * residual @ alpha + np.log(np.diag(factor)).sum()
    means = np.concatenate([np.full(count, _length_mean(count)), [_SCALE[0], _NOISE[0]]])
    deviations = np.concatenate([np.full(count, _LENGTH[1]), [_SCALE[1], _NOISE[1]]])
    z = (theta - means) / deviations
    return float(loss + 0.5 * z @ z), gradient + z / deviations


def cholesky(matrix: Array) -> Array:
    """Return the lower Cholesky factor of a symmetric positive definite matrix."""
    import scipy.linalg

    return np.asarray(scipy.linalg.cholesky(matrix, lower=True))


def solve(factor: Array, right: Array) -> Array:
    """Return the solution of `matrix @ solution = right`, given the matrix's lower factor."""
    from scipy.linalg import cho_solve

    return np.asarray(cho_solve((factor, True), right))


def _half_solve(factor: Array, right: Array) -> Array:
    """Return the solution of `factor @ solution = right`."""
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(factor, right, lower=True))
