"""Replays a past task: the real loop and Creator, on a surrogate of the task's own trials.

This tells how soon a Creator with a given model would have found a good configuration. Regret is 0
at the best known value and 1 at the median of random configurations or worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from localhpo.creator.bo.surrogate import expected_utility
from localhpo.llm.protocol import Backend
from localhpo.llm.transformers import TransformersBackend
from localhpo.transfer import PastStudy
from localhpo.trial import Config
from scripts.benchmarks import creators, simulation
from scripts.benchmarks.problems.dims import Array
from scripts.benchmarks.problems.problem import Problem
from scripts.benchmarks.references import compute_reference

SEEDS = 4
TRIALS = 5
"""Trials of a replay: few, because past studies improve the first trials."""


class Replayer:
    """Replays past tasks with one model after another; one model is open at a time."""

    def __init__(
        self, *, seeds: int = SEEDS, trials: int = TRIALS, device: str | None = None
    ) -> None:
        """Set the repetitions, the trials of each, and the device (a name of torch)."""
        self._seeds = seeds
        self._trials = trials
        self._device = device
        self._folder: Path | None = None
        self._backend: Backend | None = None

    def __call__(self, past: PastStudy, folder: Path) -> float:
        """Return the mean, over seeds and trials, of the best regret so far.

        Args:
            past: the study whose task is replayed.
            folder: folder of the model, which need not be in use.

        Raises:
            LocalHPOError: the model failed.
        """
        creator = creators.make_creator(
            creators.parse_name("hybrid"), past.task, self._open_backend(folder)
        )
        problem = _problem(past)
        scale = compute_reference(problem)
        gap = scale.best - scale.median
        means = []
        for seed in range(self._seeds):
            rows = simulation.run_study(problem, creator, seed=seed, trials=self._trials)
            regrets = [
                (scale.best - row.value) / gap if gap and row.value is not None else 0.0
                for row in rows
            ]
            means.append(float(np.clip(np.minimum.accumulate(regrets), 0.0, 1.0).mean()))
        return fmean(means)

    def close(self) -> None:
        """Close the open model, if there is one."""
        if self._backend is not None:
            self._backend.close()
        self._folder = self._backend = None

    def _open_backend(self, folder: Path) -> Backend:
        if self._backend is None or self._folder != folder:
            self.close()
            self._backend = TransformersBackend(folder, device=self._device)
            self._folder = folder
        return self._backend


def _problem(past: PastStudy) -> Problem:
    task = past.task
    utility = expected_utility(task.space, task.direction, past.trials)
    sign = 1.0 if task.direction == "maximize" else -1.0

    def evaluate_many(configs: Sequence[Config]) -> Array:
        return np.asarray(sign * utility(configs))

    return Problem(
        name=f"replay/{past.study}", task=task, evaluate_many=evaluate_many, definition={}
    )
