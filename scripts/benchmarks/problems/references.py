"""The values that regret is measured by: the best and the median of a problem.

Regret is 0 at the best value and 1 at the median of random configurations. The best is taken over
random configurations and crosses of the best of them, because random draws in ten dimensions do
not come near the top. A better value that one of the compared Creators finds replaces it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from localhpo.errors import LocalHPOError
from localhpo.space import Parameter
from localhpo.trial import Config, Value
from scripts.benchmarks.problems.dims import Array
from scripts.benchmarks.problems.problem import Problem, rng_of

_TOP_SHARE = 0.05
"""Share of the random configurations that are crossed."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Two values of a problem."""

    best: float
    median: float


def compute_reference(problem: Problem) -> Reference:
    """Return the values that regret is measured by; the same every time.

    Raises:
        LocalHPOError: fewer than two of the random configurations have a value.
    """
    rng = rng_of("reference", problem.name)
    configs = [problem.space.sample(rng) for _ in range(problem.draws)]
    values = problem.evaluate_many(configs)
    usable = np.isfinite(values)
    if usable.sum() < 2:
        raise LocalHPOError(
            f"{problem.name}: at most one of {len(configs)} random configurations has a value"
        )
    sign = 1.0 if problem.direction == "maximize" else -1.0
    utilities = np.where(usable, sign * values, -np.inf)
    best = float(utilities.max())
    if problem.optimum is not None:
        best = sign * problem.optimum
    elif problem.crosses:
        best = max(best, _best_cross(problem, configs, utilities, sign, rng))
    return Reference(best=sign * best, median=float(np.median(values[usable])))


def _best_cross(
    problem: Problem,
    configs: Sequence[Config],
    utilities: Array,
    sign: float,
    rng: np.random.Generator,
) -> float:
    count = max(2, round(_TOP_SHARE * len(configs)))
    top = [configs[i] for i in np.argsort(utilities, kind="stable")[-count:]]
    crosses = [_cross(problem, top, rng) for _ in range(problem.crosses)]
    return float(np.nan_to_num(sign * problem.evaluate_many(crosses), nan=-np.inf).max())


def _cross(problem: Problem, top: Sequence[Config], rng: np.random.Generator) -> Config:
    """Return a mix of two configurations; a value that neither of them has is drawn."""
    first, second = (top[i] for i in rng.choice(len(top), 2, replace=False))
    uniform = rng.random((len(problem.space), 2)).tolist()

    def value(position: int, parameter: Parameter) -> Value:
        coin, position_in_range = uniform[position]
        chosen, other = (first, second) if coin < 0.5 else (second, first)
        source = chosen if parameter.name in chosen else other
        return (
            source[parameter.name]
            if parameter.name in source
            else parameter.draw(position_in_range)
        )

    return problem.space.build(value)
