"""Which of many configurations stands best for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from localhpo.creator.bayes.gp import Array

if TYPE_CHECKING:
    from localhpo.space import Space
    from localhpo.trial import Config


def representative(
    space: Space,
    drawn: Sequence[Config],
    taken: Sequence[Config],
    *,
    weights: Array | Sequence[float] | None = None,
) -> list[int]:
    """Return the order in which the drawn configurations stand best for all of them.

    Of k samples from a model, the first is the one after whose choice the samples lie closest,
    on average, to something that is taken or chosen. Where nothing is taken that is their
    medoid; later it is the middle of what the trials do not cover yet (one greedy step of the
    k-medoids problem), so a model that ignores the history still gives different proposals.

    Args:
        space: of the configurations.
        drawn: what to choose from.
        taken: configurations that cover what lies near them.
        weights: how much each of the drawn ones counts in the average; equally by default.
    """
    if len(drawn) < 2:
        return list(range(len(drawn)))
    apart = np.array([[space.distance(a, b) for b in drawn] for a in drawn])
    covered = np.array([min((space.distance(a, b) for b in taken), default=np.inf) for a in drawn])
    cost = np.average(np.minimum(apart, covered[None, :]), axis=1, weights=weights)
    return [int(index) for index in np.argsort(cost, kind="stable")]
