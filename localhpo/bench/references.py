"""What scores are measured against: the best and the median of a problem.

Regret is 0 at the best and 1 at the median of random configurations. The best known score is
that of random configurations and of crosses of their best (in ten dimensions random draws do
not come near the top), or better: what the Creators that are compared found counts as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from localhpo.bench.problems.dims import Array
from localhpo.bench.problems.problem import Problem, rng_of
from localhpo.errors import LocalHPOError
from localhpo.space import Parameter
from localhpo.trial import Config, Value

_TOP_SHARE = 0.05
"""Of the random configurations, those that are crossed."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Two scores of a problem."""

    best: float
    median: float


def reference(problem: Problem) -> Reference:
    """Return the scores that regret is measured by; the same every time.

    Raises:
        LocalHPOError: hardly any configuration of the problem has a score.
    """
    rng = rng_of("reference", problem.name)
    configs = [problem.space.sample(rng) for _ in range(problem.draws)]
    scores = problem.score(configs)
    usable = np.isfinite(scores)
    if usable.sum() < 2:
        raise LocalHPOError(f"{problem.name}: no more than one of {len(configs)} draws has a score")
    sign = 1.0 if problem.direction == "maximize" else -1.0
    merits = np.where(usable, sign * scores, -np.inf)
    best = float(merits.max())
    if problem.optimum is not None:
        best = sign * problem.optimum
    elif problem.crosses:
        best = max(best, _best_cross(problem, configs, merits, sign, rng))
    return Reference(best=sign * best, median=float(np.median(scores[usable])))


def _best_cross(
    problem: Problem,
    configs: Sequence[Config],
    merits: Array,
    sign: float,
    rng: np.random.Generator,
) -> float:
    count = max(2, round(_TOP_SHARE * len(configs)))
    top = [configs[i] for i in np.argsort(merits, kind="stable")[-count:]]
    crosses = [_cross(problem, top, rng) for _ in range(problem.crosses)]
    return float(np.nan_to_num(sign * problem.score(crosses), nan=-np.inf).max())


def _cross(problem: Problem, top: Sequence[Config], rng: np.random.Generator) -> Config:
    """Return a mix of two configurations; a value that neither has is drawn."""
    first, second = (top[i] for i in rng.choice(len(top), 2, replace=False))
    uniform = rng.random((len(problem.space), 2)).tolist()

    def value(position: int, parameter: Parameter) -> Value:
        coin, place = uniform[position]
        chosen, other = (first, second) if coin < 0.5 else (second, first)
        source = chosen if parameter.name in chosen else other
        return source[parameter.name] if parameter.name in source else parameter.draw(place)

    return problem.space.build(value)
