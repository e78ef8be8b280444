"""A problem: a task as a user would write it, and the value of each of its configurations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from localhpo.objective import Direction
from localhpo.space import Space
from localhpo.task import Task
from localhpo.trial import Config
from scripts.benchmarks.problems.dims import Array

Evaluate = Callable[[Sequence[Config]], Array]
"""Canonical configurations -> their values, always the same; NaN where the trial fails."""


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
        parts = {
            "space": task.space.to_table(),
            "task": [task.name, task.metric, task.direction, task.background],
            "definition": dict(self.definition),
            "reference": [self.optimum, self.draws, self.crosses],
        }
        if task.fixed:
            parts["fixed"] = dict(task.fixed)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def rng_of(*words: object) -> np.random.Generator:
    """Return the random generator that is seeded by some words."""
    text = "/".join(map(str, words))
    return np.random.default_rng(list(hashlib.sha256(text.encode()).digest()))
