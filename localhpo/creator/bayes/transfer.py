"""What a configuration did on many data sets, brought into a study of the same kind of model.

A lesson (`experience.lessons`) holds the regrets of a design of configurations on many data sets.
A Gaussian process over each, with lengths that suit its kind, tells the regret of any point of
any part of that kind's space. To a new study every one of these data sets is one that its own
may be like. Before any trial they are equally likely, and what does well on most of them comes
first; each trial makes those likelier that rank the trials as they came out. What is proposed is
what gains most on average over them, so the first few trials are a portfolio.

Sources: surrogates of past data sets that are weighed by how they rank the trials, as in
Wistuba et al. 2018 (two-stage transfer surrogate, Machine Learning 107) and Feurer et al. 2018
(https://arxiv.org/abs/1802.02219); greedy portfolios as in auto-sklearn 2
(https://arxiv.org/abs/2007.04074).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from localhpo.creator.bayes import gp
from localhpo.creator.bayes.carrying import Carrier
from localhpo.creator.bayes.gp import Array
from localhpo.creator.bayes.surrogate import WORST
from localhpo.experience.lessons import Lesson
from localhpo.experience.recall import carry
from localhpo.task import Task
from localhpo.trial import Config, State, Trial

RANDOM = 512
"""Random configurations among the candidates, beside those of the designs."""

SAMPLES = 32
"""Candidates from which the search of the optimizer starts."""

GREED = 0.1
"""Of a candidate's own regret in what it gains: it parts those that gain alike."""

TRUST = 1.0
"""Weight of what is expected, in units of the process's own spread. 0.5, 1 and 2 were alike."""

_TOLD = 0.1
"""Difference of two scores, in parts of the spread of all, that says which is better."""

_NOISE = 0.08
"""The same for two regrets on a data set."""


class Surfaces:
    """Processes over the merits of the same points on many data sets, with lengths that are given.

    Args:
        x: (n, columns), the points.
        merits: (data sets, n).
        groups: columns of each parameter.
        lengths: by parameter.
        noise: what the processes do not explain.
    """

    def __init__(
        self, x: Array, merits: Array, groups: Sequence[slice], lengths: Array, noise: float
    ) -> None:
        self._x, self._groups, self._lengths = x, groups, lengths
        kernel = self._kernel(x)
        kernel[np.diag_indices(len(kernel))] += noise**2 + 1e-8
        self._mean = merits.mean(axis=1, keepdims=True)
        self._alpha = gp.solve(gp.cholesky(kernel), (merits - self._mean).T)

    def __call__(self, x: Array) -> Array:
        """Return (data sets, m): the merits that are expected of (m, columns) points."""
        return np.asarray((self._kernel(x) @ self._alpha).T + self._mean)

    def _kernel(self, x: Array) -> Array:
        r2 = np.tensordot(self._lengths**-2, gp.squares(x, self._x, self._groups), 1)
        return np.asarray(gp.matern(r2)[0] + gp.CONSTANT**2)


class _Taught:
    """The surfaces of one lesson, at the points of a task."""

    def __init__(self, task: Task, lesson: Lesson) -> None:
        space = lesson.task.space
        x = np.array([space.encode(config) for config in lesson.configs])
        merits = -np.array(lesson.regrets)
        lengths = np.array(lesson.lengths)
        self._surfaces = Surfaces(x, merits, space.slices, lengths, lesson.noise)
        usual = lesson.configs[int(merits.mean(axis=0).argmax())]
        self._carrier = Carrier(task, lesson.task, usual)

    def __call__(self, x: Array) -> Array:
        """Return (data sets, m): the merits of (m, columns) points of the task."""
        return self._surfaces(self._carrier(x))


class Transfer:
    """What past data sets say of a task.

    Args:
        task: at hand.
        lessons: with their weights: how near they are.
        rng: draws candidates.
        more: candidates beside these.

    Attributes:
        candidates: configurations that may be proposed, none twice.
        more: places among them of those that were given.
    """

    def __init__(
        self,
        task: Task,
        lessons: Sequence[tuple[Lesson, float]],
        rng: np.random.Generator,
        more: Sequence[Config] = (),
    ) -> None:
        self._task = task
        self._taught = [_Taught(task, lesson) for lesson, _ in lessons]
        self._prior = np.concatenate(
            [np.full(len(lesson.data_sets), weight) for lesson, weight in lessons]
        )
        space = task.space
        found: dict[str, Config] = {}
        for drawn in (space.sample(rng) for _ in range(RANDOM)):
            found[space.key(drawn)] = drawn
        random = len(found)
        for lesson, _ in lessons:
            for config in lesson.configs:
                made = carry(task, lesson.task, config)
                if made is not None:
                    found.setdefault(space.key(made[0]), made[0])
        known = len(found)
        for config in more:
            found.setdefault(space.key(config), config)
        self.candidates: list[Config] = list(found.values())
        self.more = range(known, len(found))
        self._x = self._encode(self.candidates)
        merits = self._merits(self._x)
        self._best = merits.max(axis=1, keepdims=True)
        middle = np.median(merits[:, :random], axis=1, keepdims=True)
        self._scale = np.maximum(self._best - middle, 1e-9)
        self._regrets = self.regrets(self._x)

    @property
    def data_sets(self) -> int:
        """How many there are."""
        return len(self._prior)

    def _encode(self, configs: Sequence[Config]) -> Array:
        return np.array([self._task.space.encode(config) for config in configs])

    def _merits(self, x: Array) -> Array:
        return np.concatenate([taught(x) for taught in self._taught])

    def regrets(self, x: Array) -> Array:
        """Return (data sets, m): 0 is the best candidate there, 1 a middling random one."""
        return np.asarray(np.clip((self._best - self._merits(x)) / self._scale, 0.0, WORST))

    def weights(self, trials: Sequence[Trial]) -> Array:
        """Return (data sets,): how likely this study is like each; they sum to 1."""
        scored = [t for t in trials if t.state is State.COMPLETE and t.score is not None]
        prior = self._prior / self._prior.sum()
        if len(scored) < 2:
            return np.asarray(prior)
        sign = -1.0 if self._task.direction == "maximize" else 1.0
        y = np.array([sign * (trial.score or 0.0) for trial in scored])
        regrets = self.regrets(self._encode([trial.config for trial in scored]))
        likely = prior * np.exp(agreement(regrets, y))
        return np.asarray(likely / likely.sum())

    def order(self, trials: Sequence[Trial]) -> list[int]:
        """Return the candidates by what they gain over all trials, the most first."""
        weights = self.weights(trials)
        reached = np.ones(len(weights))
        if trials:
            reached = self.regrets(self._encode([t.config for t in trials])).min(axis=1)
        gain = weights @ np.maximum(reached[:, None] - self._regrets, 0.0)
        gain -= GREED * (weights @ self._regrets)
        return [int(i) for i in np.argsort(-gain, kind="stable")]

    def expected(self, trials: Sequence[Trial]) -> Array:
        """Return (candidates,): the regret that is expected of each after the trials."""
        return np.asarray(self.weights(trials) @ self._regrets)

    def expectation(self, trials: Sequence[Trial]) -> Expectation:
        """Return what is expected of any point after the trials, as an opinion."""
        return Expectation(self, self.weights(trials), self._x, self.expected(trials))


def agreement(regrets: Array, y: Array) -> Array:
    """Return (data sets,): the log likelihood of the order of the trials under each data set.

    Args:
        regrets: (data sets, trials).
        y: (trials,), lower is better.
    """
    first, second = np.triu_indices(len(y), 1)
    apart = regrets[:, first] - regrets[:, second]
    told = np.tanh((y[first] - y[second]) / (_TOLD * float(y.std()) + 1e-12))
    likely = -np.logaddexp(0.0, -told * apart / _NOISE).mean(axis=1) * (len(y) - 1)
    return np.asarray(likely - likely.max())


class Expectation:
    """An opinion for the optimizer: minus the expected regret, in units of its spread.

    Attributes:
        samples: (samples, columns), the best candidates.
        owner: whose opinion it is, as a rationale names it.
        trust: mean of the weight that it gets before any trial.
    """

    def __init__(self, transfer: Transfer, weights: Array, x: Array, expected: Array) -> None:
        """Take the weights of the data sets, the candidates (encoded), and what is expected."""
        self.owner = "the opinion of past data sets"
        self.trust = TRUST
        self.samples = x[np.argsort(expected, kind="stable")[:SAMPLES]]
        self._transfer, self._weights = transfer, weights
        self._mean, self._spread = float(expected.mean()), float(expected.std()) or 1.0

    def __call__(self, x: Array) -> Array:
        """Return (m,): the opinion of (m, columns) points."""
        expected = self._weights @ self._transfer.regrets(x)
        return np.asarray((self._mean - expected) / self._spread)
