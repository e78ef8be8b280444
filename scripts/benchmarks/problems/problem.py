"""A problem: a task as a user would write it, and the value of each of its configurations.

Its results are compared by regret, which is 0 at the best value and 1 at the median of random
configurations (or at the worst value, for a table that is known as a whole). The best is taken over
random configurations and crosses of the best of them, because random draws in ten dimensions do not
come near the top. A better value that one of the compared Creators finds replaces it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from localhpo.errors import LocalHPOError
from localhpo.objective import Direction
from localhpo.space import Parameter, Space
from localhpo.task import Task
from localhpo.trial import Config, Value
from scripts.benchmarks.problems.dims import Array

Evaluate = Callable[[Sequence[Config]], Array]
"""Canonical configurations -> their values, always the same; NaN where the trial fails."""

_TOP_SHARE = 0.05
"""Share of the random configurations that are crossed."""


@dataclass(frozen=True)
class Problem:
    """A problem to tune. `registry.open_problem` opens it by name."""

    name: str
    """Says where the problem comes from; every random choice in it derives from the name."""
    task: Task
    evaluate_many: Evaluate
    definition: Mapping[str, Any]
    """What decides the values beside the task, as JSON: hashes of files, versions, ..."""
    optimum: float | None = None
    """The best possible value, where it is known."""
    worst: float | None = None
    """The worst possible value, where regret is measured by it (needs `optimum`); else by the
    median of random configurations."""
    draws: int = 2000
    """Number of random configurations for the reference values."""
    crosses: int = 400
    """Number of crosses of the best random configurations."""

    def evaluate(self, config: Config) -> float:
        """Return the value of one configuration; NaN where it fails."""
        return float(self.evaluate_many([config])[0])

    @property
    def space(self) -> Space:
        """The search space."""
        return self.task.space

    @property
    def direction(self) -> Direction:
        """Direction of the objective."""
        return self.task.direction

    @cached_property
    def digest(self) -> str:
        """Hash of everything that decides a study; results of another hash are stale."""
        task = self.task
        parts: dict[str, Any] = {
            "space": task.space.to_table(),
            "task": [task.name, task.metric, task.direction, task.background],
            "definition": dict(self.definition),
            "reference": [self.optimum, self.draws, self.crosses],
        }
        if task.fixed:
            parts["fixed"] = dict(task.fixed)
        if self.worst is not None:
            parts["worst"] = self.worst
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def rng_of(*words: object) -> np.random.Generator:
    """Return the random generator that is seeded by some words."""
    text = "/".join(map(str, words))
    return np.random.default_rng(list(hashlib.sha256(text.encode()).digest()))


@dataclass(frozen=True, slots=True)
class Reference:
    """Two values of a problem."""

    best: float
    median: float
    """The median of random configurations; the worst value where `Problem.worst` is given."""


def compute_reference(problem: Problem) -> Reference:
    """Return the values that regret is measured by; the same every time.

    Raises:
        LocalHPOError: fewer than two of the random configurations have a value.
    """
    if problem.optimum is not None and problem.worst is not None:
        return Reference(problem.optimum, problem.worst)
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
