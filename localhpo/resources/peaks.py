"""Regression of peak memory on hyperparameters (Bayesian, for few observations).

A training needs a base that no hyperparameter changes (interpreter, libraries, a context on the
device), and on top of it products of sizes: weights grow with width², activations with batch x
width x depth. In logarithms a product is linear, and a sum of products close to quadratic.

Notation (n observations, d columns, k terms of an average):

    u(x)    (d,)   coordinates of a configuration: log x in nats, centered, for a positive number;
                   the number on [-1, 1] where it may be 0 or negative; one column per choice
    m       (n,)   peaks in MB
    S              the parameters on which memory depends: few, and not known
    b              the base, as a share of the smallest peak seen

For given S and b, log(m - b) = c + sum_S (g + s_j) u_j + sum_S w_jk u_j u_k, and m has relative
noise. All priors are normal: g is the expected growth with a size, s_j the deviation of one
parameter. In nats they mean the same for each task: memory nearly always grows as a power between
-1 and 2 of a size. The prediction is averaged over S, b, curvatures and noises, each weighted by
how well it explains the observations (Bayesian model averaging, Hoeting et al. 1999,
https://doi.org/10.1214/ss/1009212519). So a hyperparameter without influence, such as a learning
rate over four decades, is ignored after a few trials, and quantiles are wide where little was
observed.

A lower bound of a peak (the trial ran out of memory there) is compared with the prediction of all
other observations. Where they predict as much, the bound is left out. Otherwise it enters as the
peak that they predict given the bound, with an uncertainty of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from localhpo.space import Parameter, Space
    from localhpo.trial import Config, Value

GROWTH = 0.5
"""Prior mean of the power of a size with which memory grows."""
GROWTH_SD = 0.5
SHIFT_SD = 0.5
"""Standard deviation, in nats, of the effect of a number on [-1, 1], or of a choice."""
LEVEL, LEVEL_SD = math.log(1000.0), 3.0
"""Prior mean and standard deviation of the constant c, in log MB."""
BASES = (0.0, 0.6, 0.85, 0.95)
"""Values of b, as shares of the smallest peak."""
CURVATURES = (0.02, 0.1)
"""Standard deviation of each w_jk, per nat squared."""
NOISES = (0.015, 0.05, 0.2)
"""Relative noise, which includes what the formula cannot express."""
RELEVANT = 0.35
"""Prior probability that memory depends on a parameter."""
LARGEST_SET = 4
BEAM = 6
"""Number of sets of each size that are extended by one more parameter."""
TEMPER = 0.5
"""Power of the evidence, below 1 since observations are not really drawn from the model."""
MAX_OBSERVATIONS = 40
PREDICTED = 0.9
"""A lower bound is left out where a peak above it has at least this predicted probability."""
MAX_EXCESS = 0.5
"""Largest distance, in nats, of the assumed peak above its lower bound."""
CENSORED_SD = 0.3
"""Uncertainty, in nats, of a peak of which a lower bound is known."""
MIN_WEIGHT = 1e-2
"""Weight, relative to the largest, below which a term of the average is dropped."""


_NODES = np.linspace(-3.2, 3.2, 17)
_NODE_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()


@dataclass(frozen=True, slots=True)
class _Columns:
    """Columns of the coordinates of configurations, and the parameter of each."""

    space: Space
    groups: tuple[slice, ...]
    """Columns of each parameter, in the order of declaration."""
    growing: NDArray[np.bool_]
    """Whether a column is the logarithm of a size, (d,)."""
    scales: NDArray[np.float64]
    """Prior standard deviation of each slope, (d,)."""

    @classmethod
    def of(cls, space: Space) -> _Columns:
        """Return the columns of a space."""
        groups, growing, start = [], [], 0
        for parameter in space.parameters:
            width = _width(parameter)
            groups.append(slice(start, start + width))
            growing += [_is_size(parameter)] * width
            start += width
        sizes = np.array(growing, dtype=bool)
        return cls(space, tuple(groups), sizes, np.where(sizes, GROWTH_SD, SHIFT_SD))

    def mask(self, chosen: Iterable[int]) -> NDArray[np.bool_]:
        """Return which columns belong to the parameters at these positions, (d,)."""
        mask = np.zeros(len(self.growing), dtype=bool)
        for position in chosen:
            mask[self.groups[position]] = True
        return mask

    def matrix(self, configs: Sequence[Config]) -> NDArray[np.float64]:
        """Return the coordinates, (n, d); an inactive parameter is at 0."""
        out = np.zeros((len(configs), len(self.growing)))
        for row, config in zip(out, configs, strict=True):
            for parameter, group in zip(self.space.parameters, self.groups, strict=True):
                if parameter.name in config:
                    row[group] = _coordinates(parameter, config[parameter.name])
        return out


class PeakModel:
    """Predicts quantiles of the peak memory of a configuration; fitted on construction.

    Args:
        space: Space of the configurations.
        configs: Configurations that were run, n; the last `MAX_OBSERVATIONS` are used.
        peaks_mb: Their peaks in MB, n, above 0.
        is_lower_bound: Whether each peak is a lower bound, n.
    """

    def __init__(
        self,
        space: Space,
        configs: Sequence[Config],
        peaks_mb: Sequence[float],
        is_lower_bound: Sequence[bool],
    ) -> None:
        keep = slice(max(0, len(configs) - MAX_OBSERVATIONS), None)
        self._columns = _Columns.of(space)
        u = self._columns.matrix(configs[keep])
        peaks = np.maximum(np.array(peaks_mb[keep], dtype=float), 1.0)
        censored = np.array(is_lower_bound[keep], dtype=bool)
        self._u, exact = u[~censored], peaks[~censored]
        self._base = float((exact if exact.size else peaks).min())
        self._fits = self._fit(exact, np.zeros(len(exact)))
        if censored.any():
            assumed = self._predict_above(u[censored], peaks[censored])
            used = np.isfinite(assumed)
            self._u = np.vstack([self._u, u[censored][used]])
            self._base = min([self._base, *assumed[used]])
            uncertainty = np.repeat([0.0, CENSORED_SD], [len(exact), int(used.sum())])
            self._fits = self._fit(np.concatenate([exact, assumed[used]]), uncertainty)

    def quantile(self, config: Config, probability: float) -> float:
        """Return the peak memory in MB that is not exceeded with this probability."""
        centers, weights = self._spread(self._columns.matrix([config])[0])
        noise = self._fits.noise[:, None]
        low, high = float(centers.min()) - 2.0, float(centers.max()) + 2.0
        for _ in range(24):
            middle = (low + high) / 2
            below = float((weights * _normal_cdf((middle - centers) / noise)).sum())
            low, high = (low, middle) if below > probability else (middle, high)
        return math.exp(min(high, 700.0))

    def _spread(self, u: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the distribution of log m at coordinates (d,), without noise.

        It is given by points and their weights, (k, nodes) both, since log(b + e^y) is not normal
        for a normal y.
        """
        means, sds = self._predict(u)
        grown = np.exp(np.minimum(means[:, None] + sds[:, None] * _NODES, 700.0))
        centers = np.log(self._fits.base[:, None] + grown)
        return centers, self._fits.weights[:, None] * _NODE_WEIGHTS

    def _fit(self, peaks: NDArray[np.float64], uncertainty: NDArray[np.float64]) -> _Fits:
        """Return fits for sets S of parameters; the best sets of each size are extended by one.

        Args:
            peaks: Peaks in MB at the coordinates `_u`, (n,).
            uncertainty: Relative uncertainty of each, beside the noise, (n,).
        """
        count = len(self._columns.groups)
        sets = [frozenset[int]()]
        fits = [self._fit_sets(sets, peaks, uncertainty)]
        seen = set(sets)
        for _ in range(min(count, LARGEST_SET)):
            best = fits[-1].best_sets(sets)[:BEAM]
            grown = {s | {j} for s in best for j in range(count)} - seen
            sets = sorted(grown, key=sorted)
            if not sets:
                break
            seen.update(sets)
            fits.append(self._fit_sets(sets, peaks, uncertainty))
        return _Fits.concatenate(fits)

    def _fit_sets(
        self,
        sets: Sequence[frozenset[int]],
        peaks: NDArray[np.float64],
        uncertainty: NDArray[np.float64],
    ) -> _Fits:
        """Return the fits of these sets, each with every base, curvature and noise."""
        count = len(self._columns.groups)
        grid = np.array(list(itertools.product(BASES, CURVATURES, NOISES)))
        share, curvature, noise = np.tile(grid, (len(sets), 1)).T  # (k,) each
        masks = np.array([self._columns.mask(chosen) for chosen in sets])
        masks = np.repeat(masks, len(grid), axis=0)  # (k, d)
        sizes = np.repeat([len(chosen) for chosen in sets], len(grid))
        base = share * self._base
        grown = peaks - base[:, None]  # (k, n)
        magnified = peaks / grown  # factor on relative errors when the base is subtracted
        gram = self._covariances(self._u, masks, curvature)  # (k, n, n)
        diagonal = np.arange(len(peaks))
        gram[:, diagonal, diagonal] += (noise[:, None] ** 2 + uncertainty**2) * magnified**2
        residuals = np.log(grown) - self._means(self._u, masks)
        inverse = np.linalg.inv(gram)
        alpha = (inverse @ residuals[:, :, None])[:, :, 0]
        evidence = np.log(magnified).sum(axis=1)
        evidence -= 0.5 * (residuals * alpha).sum(axis=1)
        evidence -= np.log(np.linalg.cholesky(gram)[:, diagonal, diagonal]).sum(axis=1)
        prior = sizes * math.log(RELEVANT) + (count - sizes) * math.log(1 - RELEVANT)
        weight = np.asarray(TEMPER * evidence + prior, dtype=float)
        return _Fits(masks, base, curvature, noise, weight, np.asarray(inverse, dtype=float), alpha)

    def _predict(self, u: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and deviation of log(m - b) at coordinates (d,) for each fit, (k,) both."""
        fits = self._fits
        cross = self._covariances(u[None], fits.masks, fits.curvature)[:, 0]  # (k, n)
        scale = self._columns.scales**2
        norm = (fits.masks * u * u * scale).sum(axis=1)
        own = LEVEL_SD**2 + norm + fits.curvature**2 * (fits.masks * u * u).sum(axis=1) ** 2
        mean = self._means(u[None], fits.masks)[:, 0] + (cross * fits.alpha).sum(axis=1)
        known = np.einsum("ki,kij,kj->k", cross, fits.inverse, cross)
        return mean, np.sqrt(np.maximum(own - known, 1e-12))

    def _covariances(
        self, u: NDArray[np.float64], masks: NDArray[np.bool_], curvature: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the prior covariances of coordinates (m, d) with the observed ones, (k, m, n)."""
        masked = masks[:, None, :] * u  # (k, m, d)
        linear = (masked * self._columns.scales**2) @ self._u.T
        square = (masked @ self._u.T) ** 2
        return np.asarray(LEVEL_SD**2 + linear + curvature[:, None, None] ** 2 * square)

    def _means(self, u: NDArray[np.float64], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the prior means at coordinates (m, d), (k, m)."""
        return np.asarray(LEVEL + GROWTH * (masks & self._columns.growing) @ u.T)

    def _predict_above(
        self, u: NDArray[np.float64], bounds: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the predicted peaks in MB given their lower bounds, by the present fit (n,).

        NaN for a bound that the fit predicts anyway: it adds nothing.
        """
        out = np.full(len(bounds), np.nan)
        for i, (here, bound) in enumerate(zip(u, np.log(bounds), strict=True)):
            centers, weights = self._spread(here)
            weights = weights * (centers > bound)
            if weights.sum() > PREDICTED:
                continue
            excess = float((weights * (centers - bound)).sum() / max(weights.sum(), 1e-12))
            out[i] = math.exp(bound + min(excess, MAX_EXCESS))
        return out


@dataclass(frozen=True, slots=True)
class _Fits:
    """The k fits that are averaged."""

    masks: NDArray[np.bool_]
    """Columns of each fit's set, (k, d)."""
    base: NDArray[np.float64]
    """Base in MB, (k,)."""
    curvature: NDArray[np.float64]
    """Standard deviation of the quadratic terms, (k,)."""
    noise: NDArray[np.float64]
    """Relative noise, (k,)."""
    log_weight: NDArray[np.float64]
    """Logarithm of the weight up to a common constant, (k,)."""
    inverse: NDArray[np.float64]
    """Inverse covariance of the observations, (k, n, n)."""
    alpha: NDArray[np.float64]
    """That inverse times the residuals of the prior mean, (k, n)."""

    @classmethod
    def concatenate(cls, parts: Sequence[_Fits]) -> _Fits:
        """Return all fits together, without those of negligible weight."""
        log_weight = np.concatenate([part.log_weight for part in parts])
        keep = log_weight > log_weight.max() + math.log(MIN_WEIGHT)
        return cls(
            masks=np.concatenate([part.masks for part in parts])[keep],
            base=np.concatenate([part.base for part in parts])[keep],
            curvature=np.concatenate([part.curvature for part in parts])[keep],
            noise=np.concatenate([part.noise for part in parts])[keep],
            log_weight=log_weight[keep],
            inverse=np.concatenate([part.inverse for part in parts])[keep],
            alpha=np.concatenate([part.alpha for part in parts])[keep],
        )

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weights of the fits, which sum to 1, (k,)."""
        weights = np.exp(self.log_weight - self.log_weight.max())
        return np.asarray(weights / weights.sum())

    def best_sets(self, sets: Sequence[frozenset[int]]) -> list[frozenset[int]]:
        """Return the sets of these fits, the best one first."""
        best = self.log_weight.reshape(len(sets), -1).max(axis=1)
        return [sets[i] for i in np.argsort(-best, kind="stable")]


def _normal_cdf(z: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import ndtr

    return np.asarray(ndtr(z))


def _numeric_range(parameter: Parameter) -> tuple[float, float] | None:
    """Return the lowest and highest value of a numeric parameter; None for one that is not."""
    if parameter.kind in ("float", "int"):
        return float(parameter.low), float(parameter.high)  # type: ignore[union-attr]
    values = parameter.values  # type: ignore[union-attr]
    if parameter.kind == "ordinal" and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    ):
        return float(min(values)), float(max(values))
    return None


def _is_size(parameter: Parameter) -> bool:
    bounds = _numeric_range(parameter)
    return bounds is not None and bounds[0] > 0


def _width(parameter: Parameter) -> int:
    return 1 if _numeric_range(parameter) is not None else len(parameter.values)  # type: ignore[union-attr]


def _coordinates(parameter: Parameter, value: Value) -> list[float] | float:
    bounds = _numeric_range(parameter)
    if bounds is None:
        return [float(value == choice) for choice in parameter.values]  # type: ignore[union-attr]
    low, high = bounds
    number = float(value)
    if low > 0:
        return math.log(max(number, 1e-300)) - (math.log(low) + math.log(high)) / 2
    return 0.0 if high == low else 2 * (number - low) / (high - low) - 1
