"""Replays a past task: the real loop and Creator, on what the task's own trials make one expect.

It tells how soon a Creator with a certain model would have found what is good there. Regret as in
all comparisons: 0 is the best that is known, 1 a middling random configuration or worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from localhpo.bench import creators, simulation
from localhpo.bench.problems.dims import Array
from localhpo.bench.problems.problem import Problem
from localhpo.bench.references import reference
from localhpo.creator.bayes.surrogate import expected_merit
from localhpo.experience import Past
from localhpo.llm.protocol import Backend
from localhpo.llm.transformers import TransformersBackend
from localhpo.trial import Config

SEEDS = 4
TRIALS = 5
"""Of a replay: what is learned from past studies is a better start."""


class Replayer:
    """Replays past tasks with one model after another; one is open at a time."""

    def __init__(
        self, *, seeds: int = SEEDS, trials: int = TRIALS, device: str | None = None
    ) -> None:
        """Say how often, how long, and on which device, as torch names it."""
        self._seeds = seeds
        self._trials = trials
        self._device = device
        self._folder: Path | None = None
        self._backend: Backend | None = None

    def __call__(self, past: Past, folder: Path) -> float:
        """Return the mean, over seeds and trials, of the best regret so far.

        Args:
            past: the study whose task is replayed.
            folder: of the model, also one that is kept out of use.

        Raises:
            LocalHPOError: the model failed.
        """
        creator = creators.make(creators.parse("hybrid"), past.task, self._opened(folder))
        problem = _problem(past)
        scale = reference(problem)
        gap = scale.best - scale.median
        means = []
        for seed in range(self._seeds):
            rows = simulation.run(problem, creator, seed=seed, trials=self._trials)
            regrets = [
                (scale.best - row.score) / gap if gap and row.score is not None else 0.0
                for row in rows
            ]
            means.append(float(np.clip(np.minimum.accumulate(regrets), 0.0, 1.0).mean()))
        return fmean(means)

    def close(self) -> None:
        """Close the model that is open."""
        if self._backend is not None:
            self._backend.close()
        self._folder = self._backend = None

    def _opened(self, folder: Path) -> Backend:
        if self._backend is None or self._folder != folder:
            self.close()
            self._backend = TransformersBackend(folder, device=self._device)
            self._folder = folder
        return self._backend


def _problem(past: Past) -> Problem:
    task = past.task
    merit = expected_merit(task.space, task.direction, past.trials)
    sign = 1.0 if task.direction == "maximize" else -1.0

    def score(configs: Sequence[Config]) -> Array:
        return np.asarray(sign * merit(configs))

    return Problem(name=f"replay/{past.study}", task=task, score=score, definition={})
