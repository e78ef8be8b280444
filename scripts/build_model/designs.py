"""Designs: configurations that are really trained on every data set of a kind.

Surrogates of random trainings are inaccurate where good configurations are: penalties that may be
zero are small there, which is a thin slice of the full space. So a design starts with the choice of
the surrogates and random configurations, half of which are in that slice. Then rounds of
configurations are added that Gaussian processes over the trained ones expect to be best on one data
set or on average. Networks (`networks`), which take long to train, have a design alone, a smaller
one.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from localhpo.creator.bo.transfer_prior import BatchedGP
from localhpo.errors import InputError
from localhpo.space import Float, Space
from localhpo.trial import Config
from scripts.benchmarks.problems.surrogates import full_space

from . import corpus, regret_models, trainings
from .learners import Array, Learner
from .networks import NETWORKS

DATA_SETS = 24
"""Largest number of data sets, spread evenly over those of the kind."""

DRAWN = 50
"""Number of random configurations of the full space, and of those with small penalties."""

SMALL = 0.1
"""Share of the range of a penalty in which small ones are drawn."""

ROUNDS, EACH = 3, 24
"""Number of rounds, and of configurations that each adds."""

NETWORK_DRAWN, NETWORK_ROUNDS, NETWORK_EACH = 32, 2, 16
"""The same for a network; none has small penalties, because theirs have no zero."""

NOISE = 0.08
"""Noise of the processes. With 0.25, which predicts left-out configurations best, the trials
were not better."""

_CANDIDATES = 1500
"""Number of random candidates, and of children of the best."""

_PARENTS, _SPREAD = 12, 0.08
"""Number of parents, and standard deviation of the noise of a child."""

_APART = 0.05
"""Smallest distance of two configurations in the unit cube."""


class Design:
    """A design and its metrics on data sets; trainings are kept in a file.

    Args:
        path: the file; trainings in it are not repeated.
        space: full space of the learner.
        learner: the learner to train.
        kind: kind of data.
        seeds: seeds of the data sets, at least one.

    Attributes:
        configs: canonical configurations; the first are random in the full space.
    """

    def __init__(
        self, path: Path, space: Space, learner: Learner, kind: str, seeds: Sequence[int]
    ) -> None:
        self._path, self._space = path, space
        self._learner, self._kind = learner, kind
        self._drawn, self._rounds, self._each = DRAWN, ROUNDS, EACH
        if learner.make is not None:
            self._drawn, self._rounds = NETWORK_DRAWN, NETWORK_ROUNDS
            self._each = NETWORK_EACH
        count = min(len(seeds), DATA_SETS)
        self.seeds = [seeds[i * len(seeds) // count] for i in range(count)]
        self.configs: list[Config] = []
        self._scores: dict[str, list[dict[str, float]]] = {}
        if path.exists():
            kept = json.loads(path.read_text())
            self.configs, self._scores = kept["configs"], kept["scores"]

    def grow(self, first: Sequence[Config], metrics: Sequence[str] | None, seed: int) -> None:
        """Train the missing configurations of the design, and add those of the next rounds.

        Args:
            first: configurations beside the random ones.
            metrics: metrics that rounds improve; by default all that are measured.
            seed: seed of the random choices.
        """
        small = self._drawn if self._learner.make is None else 0
        if not self.configs:
            rng = np.random.default_rng(seed)
            drawn = [self._draw(i >= self._drawn, rng) for i in range(self._drawn + small)]
            self.configs = [*drawn[: self._drawn], *first, *drawn[self._drawn :]]
        self._train()
        more: Sequence[Config] = self.configs
        whole = self._drawn + len(first) + small + self._rounds * self._each
        while more and len(self.configs) < whole:
            rng = np.random.default_rng((seed, len(self.configs)))
            more = self._find_promising([self.regrets(m) for m in metrics or self.metrics()], rng)
            self.configs += more
            self._train()

    def metrics(self) -> list[str]:
        """Return the metrics that every successful training has."""
        rows = [row for scores in self._scores.values() for row in scores if row]
        return [m for m in (rows[0] if rows else ()) if all(m in row for row in rows)]

    def is_complete(self) -> bool:
        """Return whether all rounds are trained; for a design without given configurations."""
        count = len(self.configs)
        trained = all(len(self._scores.get(str(seed), ())) == count for seed in self.seeds)
        return trained and count >= self._drawn + self._rounds * self._each

    def regrets(self, metric: str) -> Array:
        """Return (data sets, configurations): 0 is the best, 1 the median of the full space."""
        sign = -1.0 if metric in trainings.LOWER_IS_BETTER else 1.0
        rows = [
            [sign * one.get(metric, np.nan) for one in self._scores[str(s)]] for s in self.seeds
        ]
        return regret_models.compute_regrets(np.array(rows), self._drawn)

    def _draw(self, small: bool, rng: np.random.Generator) -> Config:
        config = dict(self._space.sample(rng))
        for parameter in self._space:
            is_penalty = isinstance(parameter, Float) and parameter.low == 0.0
            if small and is_penalty and parameter.name in config:
                config[parameter.name] = SMALL * float(config[parameter.name])
        return self._round(config)

    def _round(self, config: Config) -> Config:
        """Return the configuration with three significant digits, which keeps the file small."""
        short = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in config.items()}
        return self._space.canonical(short)

    def _train(self) -> None:
        for seed in self.seeds:
            have = self._scores.setdefault(str(seed), [])
            if len(have) < len(self.configs):
                missing = self.configs[len(have) :]
                have += trainings.run_design(self._learner, self._kind, seed, missing)["scores"]
                self._save()

    def _save(self) -> None:
        text = json.dumps({"configs": self.configs, "scores": self._scores})
        temporary = self._path.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(self._path)

    def _find_promising(self, known: Sequence[Array], rng: np.random.Generator) -> list[Config]:
        """Return new configurations: the best expected on each data set and on average, in turn."""
        every = np.concatenate(known)
        found = [self._draw(i % 2 == 1, rng) for i in range(_CANDIDATES)]
        for _ in range(_CANDIDATES):
            row = every.mean(axis=0) if rng.uniform() < 0.5 else every[rng.integers(len(every))]
            best = np.argsort(row)[:_PARENTS]
            found.append(self._round(corpus.child(self._space, self.configs, best, _SPREAD, rng)))
        x, new = (np.array([self._space.encode(c) for c in some]) for some in (self.configs, found))
        orders: list[Array] = []
        for regrets in known:
            lengths, _ = regret_models.fit_process(self._space, x, regrets, rng)
            expected = BatchedGP(x, regrets, self._space.slices, lengths, NOISE)(new)
            mean = np.argsort(expected.mean(axis=0))
            orders += [*np.argsort(expected, axis=1), *[mean] * (len(expected) // 2)]
        chosen: list[Config] = []
        for i in rng.permutation(len(orders)):
            near = [*self.configs, *chosen]
            pick = next(
                (c for c in (found[j] for j in orders[i])
                 if all(self._space.distance(c, other) >= _APART for other in near)), None,
            )  # fmt: skip
            if pick is not None and len(chosen) < self._each:
                chosen.append(pick)
        return chosen


def open_network_design(
    learner: Learner, folder: Path, seeds: Sequence[int] | None = None
) -> Design:
    """Open the design of a network, as far as it is trained.

    Args:
        learner: one of `NETWORKS`.
        folder: folder of the files of designs.
        seeds: seeds of the data sets; by default those that it was trained on.

    Raises:
        InputError: no seeds were given, and its training is not complete.
    """
    (kind,) = learner.tasks
    path = trainings.design_path(folder, learner, kind)
    if seeds is not None:
        return Design(path, full_space(learner.dims), learner, kind, seeds)
    found = [int(seed) for seed in json.loads(path.read_text())["scores"]] if path.exists() else []
    design = Design(path, full_space(learner.dims), learner, kind, found) if found else None
    if design is None or not design.is_complete():
        raise InputError(
            f"{path}: the training of {learner.name} is not complete",
            hint="run the step train-data first; it continues where it was stopped",
        )
    return design


def train_networks(folder: Path, data_sets: int, *, jobs: int = 1) -> None:
    """Train the design of each network; continue where an earlier run stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = [pool.submit(_train_network, n, folder, data_sets) for n in range(len(NETWORKS))]
        for ended in as_completed(runs):
            print(ended.result(), flush=True)


def _train_network(number: int, folder: Path, data_sets: int) -> str:
    learner = NETWORKS[number]
    first = learner.first_seed
    design = open_network_design(learner, folder, range(first, first + data_sets))
    design.grow((), None, first)
    count = len(design.seeds)
    return f"{learner.name}: {len(design.configs)} configurations on {count} data sets"
