"""Ranks configurations by how well each represents all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from localhpo.creator.bo.gp import Array

if TYPE_CHECKING:
    from localhpo.space import Space
    from localhpo.trial import Config


def medoid_order(
    space: Space,
    candidates: Sequence[Config],
    tried: Sequence[Config],
    *,
    weights: Array | Sequence[float] | None = None,
) -> list[int]:
    """Return the indices of the candidates, the one that represents them best first.

    The cost of a candidate is the mean distance of all candidates to the nearest of it and the
    tried configurations: one greedy step of the k-medoids problem. Where nothing has been tried,
    the first candidate is the medoid; later it is the medoid of what the trials do not cover yet,
    so a model that ignores the history still gives different proposals.

    Args:
        space: the space of the configurations.
        candidates: configurations to rank.
        tried: configurations that cover the candidates near them.
        weights: weight of each candidate in the mean; equal by default.
    """
    if len(candidates) < 2:
        return list(range(len(candidates)))
    # (n, n) distances between candidates; (n,) distances to the nearest tried configuration.
    between = np.array([[space.distance(a, b) for b in candidates] for a in candidates])
    covered = np.array(
        [min((space.distance(a, b) for b in tried), default=np.inf) for a in candidates]
    )
    cost = np.average(np.minimum(between, covered[None, :]), axis=1, weights=weights)
    return [int(index) for index in np.argsort(cost, kind="stable")]
