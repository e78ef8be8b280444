"""A problem: a task as a user would write it, and what each of its configurations scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from localhpo.bench.problems.dims import Array
from localhpo.space import Space
from localhpo.task import Task
from localhpo.trial import Config, Direction

Score = Callable[[Sequence[Config]], Array]
"""Canonical configurations to their values of the metric, the same every time; NaN: it fails."""


@dataclass(frozen=True)
class Problem:
    """One thing to tune. Made by `opening.open_problem` from its name."""

    name: str
    """Stable: it says where the problem comes from and fixes every random choice in it."""
    task: Task
    score: Score
    definition: Mapping[str, Any]
    """What decides the scores beside the task, as JSON: files by their hash, versions, ..."""
    optimum: float | None = None
    """The best score there is, where it is known."""
    draws: int = 2000
    """Random configurations from which median and best are taken."""
    crosses: int = 400
    """Crosses of the best ones, which sharpen the best further."""

    def evaluate(self, config: Config) -> float:
        """Return the score of one configuration; NaN where it fails."""
        return float(self.score([config])[0])

    @property
    def space(self) -> Space:
        """What is searched."""
        return self.task.space

    @property
    def direction(self) -> Direction:
        """Whether the score is made small or large."""
        return self.task.direction

    @cached_property
    def digest(self) -> str:
        """A hash of all that decides the course of a study: results of another are stale."""
        task = self.task
        said = {
            "space": task.space.to_table(),
            "task": [task.name, task.metric, task.direction, task.background],
            "definition": dict(self.definition),
            "reference": [self.optimum, self.draws, self.crosses],
        }
        if task.fixed:
            said["fixed"] = dict(task.fixed)
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def rng_of(*words: object) -> np.random.Generator:
    """Return the source of random choices that a name stands for."""
    text = "/".join(map(str, words))
    return np.random.default_rng(list(hashlib.sha256(text.encode()).digest()))
