"""How peak memory grows with hyperparameters: a small Bayesian regression.

What a training needs is a base that no hyperparameter changes (the interpreter, the libraries,
a context on the device), and on top of it products of its sizes: weights grow with width²,
activations with batch x width x depth. In logarithms each product is linear, and a sum of them
close to quadratic.

Notation (n observations, d columns, k terms of an average):

    u(x)    (d,)   coordinates of a configuration: log x in nats, centered, for a positive number;
                   the number on [-1, 1] where it may be 0 or negative; one column per choice
    m       (n,)   peaks in MB
    S              the parameters on which memory depends: few, and not known
    b              the base, as a share of the smallest peak seen

For S and b, log(m - b) = c + sum_S (g + s_j) u_j + sum_S w_jk u_j u_k, and m has relative noise.
All priors are normal: g is the growth that is expected of a size, s_j says how it differs. In
nats they mean the same for each task: memory grows as a power between -1 and 2 of a size,
nearly always. The answer is averaged over S, b, curvatures and noises, each weighted by how
well it explains what was seen (Hoeting et al. 1999, Bayesian model averaging,
https://doi.org/10.1214/ss/1009212519). So a hyperparameter without influence, such as a
learning rate over four decades, stops to matter after a few trials, and where little was seen
the quantiles are wide.

A peak that is known only from below (out of memory at so much) is compared with what all others
make of it. Where they expect as much, it is no news. Where they do not, it enters as what they
expect given the bound, with a doubt of its own.
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
"""Power of a size with which memory is expected to grow."""
GROWTH_SD = 0.5
SHIFT_SD = 0.5
"""Nats that a number on [-1, 1], or a choice, may change."""
LEVEL, LEVEL_SD = math.log(1000.0), 3.0
"""Of the constant, in log MB."""
BASES = (0.0, 0.6, 0.85, 0.95)
"""Of the smallest peak."""
CURVATURES = (0.02, 0.1)
"""Standard deviation of each w_jk, per nat squared."""
NOISES = (0.015, 0.05, 0.2)
"""Relative; what the form misses is in it."""
RELEVANT = 0.35
"""Prior probability that memory depends on a parameter."""
LARGEST_SET = 4
BEAM = 6
"""Sets that are grown further, of each size."""
TEMPER = 0.5
"""Power of the evidence: what was seen is not drawn from the model, and says less than it would."""
MOST_OBSERVATIONS = 40
EXPECTED = 0.9
"""Probability from which a lower bound is no news."""
MOST_ABOVE = 0.5
"""Nats above its bound at which such a peak is taken to be, at most."""
CENSORED_SD = 0.3
"""Doubt about a peak of which a lower bound is known, in nats."""
KEPT = 1e-2
"""Weight, relative to the best, below which a term of the average is dropped."""


_NODES = np.linspace(-3.2, 3.2, 17)
_NODE_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()


@dataclass(frozen=True, slots=True)
class Columns:
    """The coordinates of configurations, and which parameter each belongs to."""

    space: Space
    groups: tuple[slice, ...]
    """Of each parameter, in the order of declaration."""
    growing: NDArray[np.bool_]
    """(d,) whether a column is the logarithm of a size."""
    scales: NDArray[np.float64]
    """(d,) prior standard deviation of each slope."""

    @classmethod
    def of(cls, space: Space) -> Columns:
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
    """Fitted to observations; says how much memory a configuration may need.

    Args:
        space: of the configurations.
        configs: that were run; those before the last `MOST_OBSERVATIONS` are left out.
        peaks_mb: of each, above 0.
        at_least: whether a peak is a lower bound only.
    """

    def __init__(
        self,
        space: Space,
        configs: Sequence[Config],
        peaks_mb: Sequence[float],
        at_least: Sequence[bool],
    ) -> None:
        keep = slice(max(0, len(configs) - MOST_OBSERVATIONS), None)
        self._columns = Columns.of(space)
        u = self._columns.matrix(configs[keep])
        peaks = np.maximum(np.array(peaks_mb[keep], dtype=float), 1.0)
        censored = np.array(at_least[keep], dtype=bool)
        self._u, exact = u[~censored], peaks[~censored]
        self._base = float((exact if exact.size else peaks).min())
        self._fits = self._fit(exact, np.zeros(len(exact)))
        if censored.any():
            stand_in = self._above(u[censored], peaks[censored])
            told = np.isfinite(stand_in)
            self._u = np.vstack([self._u, u[censored][told]])
            self._base = min([self._base, *stand_in[told]])
            doubt = np.repeat([0.0, CENSORED_SD], [len(exact), int(told.sum())])
            self._fits = self._fit(np.concatenate([exact, stand_in[told]]), doubt)

    def quantile(self, config: Config, probability: float) -> float:
        """Return the MB that the peak stays below with this probability."""
        centers, weights = self._spread(self._columns.matrix([config])[0])
        noise = self._fits.noise[:, None]
        low, high = float(centers.min()) - 2.0, float(centers.max()) + 2.0
        for _ in range(24):
            middle = (low + high) / 2
            below = float((weights * _normal_cdf((middle - centers) / noise)).sum())
            low, high = (low, middle) if below > probability else (middle, high)
        return math.exp(min(high, 700.0))

    def _spread(self, u: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the distribution of log m at coordinates (d,), before noise.

        As points and their weights, (k, nodes) both: log(b + e^y) is not normal where y is.
        """
        means, sds = self._predict(u)
        grown = np.exp(np.minimum(means[:, None] + sds[:, None] * _NODES, 700.0))
        centers = np.log(self._fits.base[:, None] + grown)
        return centers, self._fits.weights[:, None] * _NODE_WEIGHTS

    def _fit(self, peaks: NDArray[np.float64], doubt: NDArray[np.float64]) -> _Fits:
        """Return the average over sets; they are grown by one parameter from the best ones.

        Args:
            peaks: (n,) MB at the coordinates `_u`.
            doubt: (n,) relative, beside the noise.
        """
        count = len(self._columns.groups)
        sets = [frozenset[int]()]
        fits = [self._fit_sets(sets, peaks, doubt)]
        seen = set(sets)
        for _ in range(min(count, LARGEST_SET)):
            best = fits[-1].best_sets(sets)[:BEAM]
            grown = {s | {j} for s in best for j in range(count)} - seen
            sets = sorted(grown, key=sorted)
            if not sets:
                break
            seen.update(sets)
            fits.append(self._fit_sets(sets, peaks, doubt))
        return _Fits.joined(fits)

    def _fit_sets(
        self,
        sets: Sequence[frozenset[int]],
        peaks: NDArray[np.float64],
        doubt: NDArray[np.float64],
    ) -> _Fits:
        """Return the fits of these sets, with each base, curvature and noise."""
        count = len(self._columns.groups)
        grid = np.array(list(itertools.product(BASES, CURVATURES, NOISES)))
        share, curvature, noise = np.tile(grid, (len(sets), 1)).T  # (k,) each
        masks = np.array([self._columns.mask(chosen) for chosen in sets])
        masks = np.repeat(masks, len(grid), axis=0)  # (k, d)
        sizes = np.repeat([len(chosen) for chosen in sets], len(grid))
        base = share * self._base
        grown = peaks - base[:, None]  # (k, n)
        magnified = peaks / grown  # of relative errors, by taking the base away
        gram = self._covariances(self._u, masks, curvature)  # (k, n, n)
        diagonal = np.arange(len(peaks))
        gram[:, diagonal, diagonal] += (noise[:, None] ** 2 + doubt**2) * magnified**2
        rest = np.log(grown) - self._means(self._u, masks)
        inverse = np.linalg.inv(gram)
        alpha = (inverse @ rest[:, :, None])[:, :, 0]
        evidence = np.log(magnified).sum(axis=1)
        evidence -= 0.5 * (rest * alpha).sum(axis=1)
        evidence -= np.log(np.linalg.cholesky(gram)[:, diagonal, diagonal]).sum(axis=1)
        prior = sizes * math.log(RELEVANT) + (count - sizes) * math.log(1 - RELEVANT)
        weight = np.asarray(TEMPER * evidence + prior, dtype=float)
        return _Fits(masks, base, curvature, noise, weight, np.asarray(inverse, dtype=float), alpha)

    def _predict(self, u: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and deviation of log(m - b) at coordinates (d,) by each fit, (k,) both."""
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
        """Return the prior covariances of coordinates (m, d) with those seen, (k, m, n)."""
        masked = masks[:, None, :] * u  # (k, m, d)
        linear = (masked * self._columns.scales**2) @ self._u.T
        square = (masked @ self._u.T) ** 2
        return np.asarray(LEVEL_SD**2 + linear + curvature[:, None, None] ** 2 * square)

    def _means(self, u: NDArray[np.float64], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the prior means at coordinates (m, d), (k, m)."""
        return np.asarray(LEVEL + GROWTH * (masks & self._columns.growing) @ u.T)

    def _above(self, u: NDArray[np.float64], bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the peaks that lower bounds stand for, by the present fit (n,).

        NaN for a bound that the fit expects anyway: it adds nothing.
        """
        out = np.full(len(bounds), np.nan)
        for i, (here, bound) in enumerate(zip(u, np.log(bounds), strict=True)):
            centers, weights = self._spread(here)
            weights = weights * (centers > bound)
            if weights.sum() > EXPECTED:
                continue
            excess = float((weights * (centers - bound)).sum() / max(weights.sum(), 1e-12))
            out[i] = math.exp(bound + min(excess, MOST_ABOVE))
        return out


@dataclass(frozen=True, slots=True)
class _Fits:
    """The terms of the average; k of them."""

    masks: NDArray[np.bool_]
    """(k, d) which columns the set has."""
    base: NDArray[np.float64]
    """(k,) MB."""
    curvature: NDArray[np.float64]
    """(k,)"""
    noise: NDArray[np.float64]
    """(k,)"""
    log_weight: NDArray[np.float64]
    """(k,) without a common constant."""
    inverse: NDArray[np.float64]
    """(k, n, n) of the covariance of what was seen."""
    alpha: NDArray[np.float64]
    """(k, n) that inverse times what the prior mean leaves."""

    @classmethod
    def joined(cls, parts: Sequence[_Fits]) -> _Fits:
        """Return all fits that weigh something."""
        log_weight = np.concatenate([part.log_weight for part in parts])
        keep = log_weight > log_weight.max() + math.log(KEPT)
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])[keep]
                for name in (
                    "masks",
                    "base",
                    "curvature",
                    "noise",
                    "log_weight",
                    "inverse",
                    "alpha",
                )
            )
        )

    @property
    def weights(self) -> NDArray[np.float64]:
        """(k,) summing to 1."""
        weights = np.exp(self.log_weight - self.log_weight.max())
        return np.asarray(weights / weights.sum())

    def best_sets(self, sets: Sequence[frozenset[int]]) -> list[frozenset[int]]:
        """Return the sets these are the fits of, the best one first."""
        merit = self.log_weight.reshape(len(sets), -1).max(axis=1)
        return [sets[i] for i in np.argsort(-merit, kind="stable")]


def _normal_cdf(z: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import ndtr

    return np.asarray(ndtr(z))


def _numbers(parameter: Parameter) -> tuple[float, float] | None:
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
    numbers = _numbers(parameter)
    return numbers is not None and numbers[0] > 0


def _width(parameter: Parameter) -> int:
    return 1 if _numbers(parameter) is not None else len(parameter.values)  # type: ignore[union-attr]


def _coordinates(parameter: Parameter, value: Value) -> list[float] | float:
    numbers = _numbers(parameter)
    if numbers is None:
        return [float(value == choice) for choice in parameter.values]  # type: ignore[union-attr]
    low, high = numbers
    number = float(value)
    if low > 0:
        return math.log(max(number, 1e-300)) - (math.log(low) + math.log(high)) / 2
    return 0.0 if high == low else 2 * (number - low) / (high - low) - 1
