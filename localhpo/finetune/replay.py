"""Replays past tasks with a model: would a Creator that asks it have found good values sooner?

A replay runs the default Creator against a surrogate of the task's own trials (a Gaussian process),
so no script runs. Regret is 0 at the best value that the surrogate expects among random
configurations, and 1 at their median or worse.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from statistics import fmean

import numpy as np

from localhpo.creator import Creator, History, open_creator
from localhpo.creator.bo.surrogate import Surrogate, expected_utility
from localhpo.errors import SpaceExhaustedError
from localhpo.llm.protocol import Backend
from localhpo.llm.transformers import TransformersBackend
from localhpo.task import CreatorSettings, Task
from localhpo.transfer import PastStudy, to_single_objective
from localhpo.trial import State, Trial

SEEDS = 4
TRIALS = 5
"""Trials of a replay: few, because past studies improve the first trials."""
_DRAWS = 2000
"""Random configurations from which best and median are computed."""


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
        """Return the mean, over seeds and trials, of the best regret so far, in [0, 1].

        Args:
            past: the study whose task is replayed; of several objectives the first counts.
            folder: folder of the model, which need not be in use.

        Raises:
            LocalHPOError: the model failed.
        """
        backend = self._open_backend(folder)
        past = to_single_objective(past, past.task.objectives[0])
        task = dataclasses.replace(past.task, creator=CreatorSettings(name="hybrid"))
        utility = expected_utility(task.space, task.direction, past.trials)
        rng = np.random.default_rng(_seed(past, "reference"))
        known = utility([task.space.sample(rng) for _ in range(_DRAWS)])
        best, median = float(known.max()), float(np.median(known))
        scale = best - median
        creator = open_creator(task, backend=backend)
        means = []
        for seed in range(self._seeds):
            found = _run_study(creator, task, utility, _seed(past, str(seed)), self._trials)
            regrets = (best - np.maximum.accumulate(found)) / scale if scale else np.zeros(1)
            means.append(float(np.clip(regrets, 0.0, 1.0).mean()))
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


def _run_study(
    creator: Creator, task: Task, utility: Surrogate, seed: int, count: int
) -> list[float]:
    """Return the utilities of `count` trials in a row, or of all that the space has."""
    sign = 1.0 if task.direction == "maximize" else -1.0
    trials: list[Trial] = []
    utilities: list[float] = []
    for number in range(count):
        try:
            proposal = creator.propose(History(task, tuple(trials), seed, number), 1)[0]
        except SpaceExhaustedError:
            break
        utilities.append(float(utility([proposal.config])[0]))
        trials.append(Trial(number, State.COMPLETE, proposal, values=(sign * utilities[-1],)))
    return utilities


def _seed(past: PastStudy, word: str) -> int:
    """Return a seed of its own for each study and word."""
    return int.from_bytes(
        hashlib.sha256(f"replay/{past.study}/{word}".encode()).digest()[:4], "big"
    )
