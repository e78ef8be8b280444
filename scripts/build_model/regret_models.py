"""Regrets of configurations on data sets, and Gaussian processes over them."""

from __future__ import annotations

import numpy as np

from localhpo.creator.bo import gp
from localhpo.space import Space

from . import corpus
from .learners import Array

FITTED, POINTS = 4, 80
"""Number of data sets, and of points of each, that processes are fitted to."""


def compute_regrets(scores: Array, draws: int) -> Array:
    """Return the regrets of scores (..., configurations), the first `draws` of which are random.

    At most `corpus.WORST`, which is that of failures; 0 everywhere where all scores are equal.
    """
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    best = scores.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):  # no configuration may have a score
        scale = best - np.median(scores[..., :draws], axis=-1, keepdims=True)
        found = np.where(scale > 1e-9, (best - scores) / scale, 0.0)
    return np.clip(np.nan_to_num(found, nan=corpus.WORST), 0.0, corpus.WORST)


def fit_process(
    space: Space, x: Array, known: Array, rng: np.random.Generator
) -> tuple[Array, float]:
    """Return length scales and noise: medians of processes fitted to some data sets."""
    found = []
    for row in known[rng.permutation(len(known))[:FITTED]]:
        some = rng.permutation(len(x))[:POINTS]
        y = (row.mean() - row[some]) / (row.std() or 1.0)
        theta, _ = gp.fit(gp.TrainingData.without_prior(x[some], y, space.slices))
        found.append(theta)
    theta = np.median(found, axis=0)
    return np.exp(theta[:-2]), float(np.exp(theta[-1]))
