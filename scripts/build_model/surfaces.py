"""Regrets of configurations on data sets, and Gaussian processes over them."""

from __future__ import annotations

import numpy as np

from localhpo.creator.bayes import gp
from localhpo.space import Space

from . import corpus
from .learners import Array

FITTED, POINTS = 4, 80
"""Data sets, and points of the design, whose processes say what the lengths are: their median."""


def regrets(scores: Array, draws: int) -> Array:
    """Return the regrets of scores (..., configurations), of which the first `draws` are random.

    Cut at `corpus.WORST`, which failures have as well; 0 everywhere where all are alike.
    """
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    best = scores.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):  # where no configuration has a score
        scale = best - np.median(scores[..., :draws], axis=-1, keepdims=True)
        found = np.where(scale > 1e-9, (best - scores) / scale, 0.0)
    return np.clip(np.nan_to_num(found, nan=corpus.WORST), 0.0, corpus.WORST)


def fitted(space: Space, x: Array, known: Array, rng: np.random.Generator) -> tuple[Array, float]:
    """Return the lengths and the noise of a process that suits most data sets."""
    found = []
    for row in known[rng.permutation(len(known))[:FITTED]]:
        some = rng.permutation(len(x))[:POINTS]
        y = (row.mean() - row[some]) / (row.std() or 1.0)
        theta, _ = gp.fit(gp.TrainingData(x[some], np.zeros(len(some)), y, space.slices, 0.0))
        found.append(theta)
    theta = np.median(found, axis=0)
    return np.exp(theta[:-2]), float(np.exp(theta[-1]))
