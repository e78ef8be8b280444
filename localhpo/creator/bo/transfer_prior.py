"""Transfers results on past data sets to a study of the same kind of model.

The meta-data of a kind of model (`transfer.source_tasks`) holds the regrets of a design of
configurations on many data sets. A Gaussian process over each data set, with length scales that
suit the kind, predicts the regret of any point of the space. The new study may be like any of these
data sets. Before any trial all are equally likely, and the configuration that does well on most
of them comes first. Each trial makes those data sets likelier that rank the trials as they came
out. The next configuration is the one with the largest average gain over the data sets, so the
first few trials form a portfolio.

Sources: surrogates of past data sets, weighted by how they rank the trials, as in Wistuba et al.
2018 (two-stage transfer surrogate, Machine Learning 107) and Feurer et al. 2018
(https://arxiv.org/abs/1802.02219); greedy portfolios as in auto-sklearn 2
(https://arxiv.org/abs/2007.04074).

Notation: D data sets, C candidates, n trials or design points, m other points, d columns of the
unit cube. Regrets are 0 at the best candidate of a data set and 1 at its median random one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from localhpo.creator.bo import gp
from localhpo.creator.bo.gp import Array
from localhpo.creator.bo.surrogate import MAX_REGRET
from localhpo.space import Categorical, Parameter, Space
from localhpo.task import Task
from localhpo.transfer.names import match_groups
from localhpo.transfer.projection import project_config, project_value
from localhpo.transfer.source_tasks import SourceTask
from localhpo.trial import Config, State, Trial, Value

RANDOM_CANDIDATES = 512
"""Random configurations among the candidates, beside those of the designs."""

PRIOR_SAMPLES = 32
"""Candidates from which the search of the optimizer starts."""

REGRET_SHARE = 0.1
"""Share of a candidate's own regret that is subtracted from its gain: it breaks ties."""

PRIOR_WEIGHT = 1.0
"""Weight of the prior, in units of the scale of the process. 0.5, 1 and 2 were alike."""

_VALUE_NOISE = 0.1
"""Difference of two values that says which is better, in parts of the spread of all values."""

_REGRET_NOISE = 0.08
"""Difference of two regrets on a data set that says which is better."""

_GRID = np.linspace(0.0, 1.0, 101)
"""Points of a range at which a mapping of spaces is tabulated; between them it is interpolated."""


class BatchedGP:
    """Gaussian processes over the utilities of the same points on many data sets.

    All have the same length scales, which are given, so they share one factorization.

    Args:
        x: (n, d), the points.
        utilities: (D, n).
        groups: columns of each parameter.
        lengths: length scale of each parameter.
        noise: standard deviation of the noise, in units of the kernel's scale.
    """

    def __init__(
        self, x: Array, utilities: Array, groups: Sequence[slice], lengths: Array, noise: float
    ) -> None:
        self._x, self._groups, self._lengths = x, groups, lengths
        kernel = self._kernel(x)
        kernel[np.diag_indices(len(kernel))] += noise**2 + 1e-8
        self._mean = utilities.mean(axis=1, keepdims=True)
        self._alpha = gp.solve(gp.cholesky(kernel), (utilities - self._mean).T)

    def __call__(self, x: Array) -> Array:
        """Return (D, m): the expected utilities of (m, d) points."""
        return np.asarray((self._kernel(x) @ self._alpha).T + self._mean)

    def _kernel(self, x: Array) -> Array:
        r2 = np.tensordot(self._lengths**-2, gp.squared_distances(x, self._x, self._groups), 1)
        return np.asarray(gp.matern(r2)[0] + gp.CONSTANT_SD**2)


class _SourceSurrogate:
    """The processes of one source task, at points of another task's space."""

    def __init__(self, task: Task, source: SourceTask) -> None:
        space = source.task.space
        x = np.array([space.encode(config) for config in source.configs])
        utilities = -np.array(source.regrets)
        lengths = np.array(source.lengths)
        self._processes = BatchedGP(x, utilities, space.slices, lengths, source.noise)
        usual = source.configs[int(utilities.mean(axis=0).argmax())]
        self._mapping = SpaceMapping(task, source.task, usual)

    def __call__(self, x: Array) -> Array:
        """Return (D, m): the expected utilities of (m, d) points of the task."""
        return self._processes(self._mapping(x))


class SurrogateEnsemble:
    """Surrogates of past data sets, weighted by how likely a study is like each of them.

    Args:
        task: the task at hand.
        sources: source tasks with their weights: how similar their spaces are.
        rng: draws candidates.
        extra: more candidates.

    Attributes:
        candidates: configurations that may be proposed, all different.
        extra: indices among them of the extra ones.
    """

    def __init__(
        self,
        task: Task,
        sources: Sequence[tuple[SourceTask, float]],
        rng: np.random.Generator,
        extra: Sequence[Config] = (),
    ) -> None:
        self._task = task
        self._surrogates = [_SourceSurrogate(task, source) for source, _ in sources]
        self._prior = np.concatenate(
            [np.full(len(source.data_sets), weight) for source, weight in sources]
        )
        space = task.space
        found: dict[str, Config] = {}
        for drawn in (space.sample(rng) for _ in range(RANDOM_CANDIDATES)):
            found[space.key(drawn)] = drawn
        random = len(found)
        for source, _ in sources:
            for config in source.configs:
                projection = project_config(task, source.task, config)
                if projection is not None:
                    found.setdefault(space.key(projection.config), projection.config)
        own = len(found)
        for config in extra:
            found.setdefault(space.key(config), config)
        self.candidates: list[Config] = list(found.values())
        self.extra = range(own, len(found))
        self._x = self._encode(self.candidates)
        utilities = self._utilities(self._x)
        self._best = utilities.max(axis=1, keepdims=True)
        # The median is that of the random candidates: those of the designs are better than chance.
        median = np.median(utilities[:, :random], axis=1, keepdims=True)
        self._scale = np.maximum(self._best - median, 1e-9)
        self._regrets = self.regrets(self._x)

    @property
    def description(self) -> str:
        """The data sets in words: "47 similar data sets"."""
        count = len(self._prior)
        return f"{count} similar data set{'s' if count > 1 else ''}"

    def regrets(self, x: Array) -> Array:
        """Return (D, m): the expected regrets of (m, d) points."""
        regrets = (self._best - self._utilities(x)) / self._scale
        return np.asarray(np.clip(regrets, 0.0, MAX_REGRET))

    def weights(self, trials: Sequence[Trial]) -> Array:
        """Return (D,): the probability that this study is like each data set; the sum is 1."""
        complete = [t for t in trials if t.state is State.COMPLETE and t.value is not None]
        prior = self._prior / self._prior.sum()
        if len(complete) < 2:
            return np.asarray(prior)  # one trial has no rank
        sign = -1.0 if self._task.direction == "maximize" else 1.0
        y = np.array([sign * (trial.value or 0.0) for trial in complete])
        regrets = self.regrets(self._encode([trial.config for trial in complete]))
        posterior = prior * np.exp(ranking_log_likelihood(regrets, y))
        return np.asarray(posterior / posterior.sum())

    def rank_candidates(self, trials: Sequence[Trial]) -> list[int]:
        """Return the indices of the candidates by their expected gain over all trials."""
        weights = self.weights(trials)
        reached = np.ones(len(weights))  # without trials: as good as the median random candidate
        if trials:
            reached = self.regrets(self._encode([t.config for t in trials])).min(axis=1)
        gain = weights @ np.maximum(reached[:, None] - self._regrets, 0.0)
        gain -= REGRET_SHARE * (weights @ self._regrets)
        return [int(i) for i in np.argsort(-gain, kind="stable")]

    def expected_regrets(self, trials: Sequence[Trial]) -> Array:
        """Return (C,): the expected regret of each candidate after the trials."""
        return np.asarray(self.weights(trials) @ self._regrets)

    def to_prior(self, trials: Sequence[Trial], trust: float) -> TransferPrior:
        """Return a prior on the whole space, as of these trials; `trust` as in `Prior`."""
        expected = self.expected_regrets(trials)
        return TransferPrior(self, self.weights(trials), self._x, expected, trust)

    def _encode(self, configs: Sequence[Config]) -> Array:
        return np.array([self._task.space.encode(config) for config in configs])

    def _utilities(self, x: Array) -> Array:
        return np.concatenate([surrogate(x) for surrogate in self._surrogates])


def ranking_log_likelihood(regrets: Array, y: Array) -> Array:
    """Return (D,): the log likelihood of the ranking of n trials under each data set.

    The largest is 0: only differences count.

    Args:
        regrets: (D, n), expected on each data set.
        y: (n,), observed; lower is better.
    """
    first, second = np.triu_indices(len(y), 1)
    difference = regrets[:, first] - regrets[:, second]
    # About -1 or 1: which of a pair is better; near 0 where the values hardly differ.
    observed = np.tanh((y[first] - y[second]) / (_VALUE_NOISE * float(y.std()) + 1e-12))
    # Bradley-Terry: each pair is a logistic trial. The n (n - 1) / 2 pairs are not independent;
    # together they count as n - 1.
    pairs = -np.logaddexp(0.0, -observed * difference / _REGRET_NOISE)
    likelihood = pairs.mean(axis=1) * (len(y) - 1)
    return np.asarray(likelihood - likelihood.max())


class TransferPrior:
    """A prior from past data sets: minus the expected regret, standardized over the candidates.

    Attributes:
        samples: (PRIOR_SAMPLES, d), the best candidates.
    """

    source = "meta"

    def __init__(
        self, ensemble: SurrogateEnsemble, weights: Array, x: Array, expected: Array, trust: float
    ) -> None:
        """Standardize the expected regrets.

        Args:
            ensemble: the surrogates.
            weights: (D,), of the data sets.
            x: (C, d), the candidates.
            expected: (C,), their expected regrets.
            trust: see `Prior`.
        """
        self.trust = trust
        self.description = ensemble.description
        self.weight = PRIOR_WEIGHT
        self.samples = x[np.argsort(expected, kind="stable")[:PRIOR_SAMPLES]]
        self._ensemble, self._weights = ensemble, weights
        self._mean, self._deviation = float(expected.mean()), float(expected.std()) or 1.0

    def __call__(self, x: Array) -> Array:
        """Return (m,): the prior of (m, d) points."""
        expected = self._weights @ self._ensemble.regrets(x)
        return np.asarray((self._mean - expected) / self._deviation)


class SpaceMapping:
    """Maps encoded points of a task's space to the space of another, by names of parameters.

    A value takes the nearest value of the other parameter; values outside its range are clipped. A
    parameter of the other space that the task fixes has its fixed value. One that the task does
    not have, and one whose values cannot be mapped, has the value that `usual` has, else the
    middle of its range.

    Args:
        task: the task whose points are mapped.
        other: the task to whose space they are mapped.
        usual: a good configuration of the other task.
    """

    def __init__(self, task: Task, other: Task, usual: Mapping[str, Value]) -> None:
        self._space, self._other = task.space, other.space
        own_names = {
            name: group.names_in_second
            for group in match_groups(other.names, task.names)
            for name in group.names_in_first
        }
        fixed = {
            name: task.fixed[own[0]] for name, own in own_names.items() if own[0] in task.fixed
        }
        # Index of a parameter there -> indices of its parameters here, with their tables.
        self._tables: dict[int, list[tuple[int, Array]]] = {}
        columns = []
        for index, parameter in enumerate(other.space.parameters):
            for own in own_names.get(parameter.name, ()):
                table = _tabulate(task.space[own], parameter) if own in task.space else None
                if table is not None:
                    known = self._tables.setdefault(index, [])
                    known.append((task.space.names.index(own), table))
            value = fixed.get(parameter.name, usual.get(parameter.name, parameter.center))
            near = project_value(parameter, value)
            columns.append(_encode(parameter, parameter.center if near is None else near[0]))
        self._constant = np.concatenate(columns)

    def __call__(self, x: Array) -> Array:
        """Return (m, d there) for (m, d here) points."""
        out = np.tile(self._constant, (len(x), 1))
        for index, tables in self._tables.items():
            # Of several parameters (one for each layer) the mean is taken.
            out[:, self._other.slices[index]] = np.mean(
                [_look_up(table, x[:, self._space.slices[own]]) for own, table in tables], axis=0
            )
        return _reset_inactive(self._other, out)


def _tabulate(own: Parameter, other: Parameter) -> Array | None:
    """Return the columns of `other` for each category of `own`, or on the grid of its range.

    None where a value of `own` has no place in `other`.
    """
    values: Sequence[Value] = (
        own.values if isinstance(own, Categorical) else [own.from_unit(u) for u in _GRID]
    )
    projected = [project_value(other, value) for value in values]
    if any(one is None for one in projected):
        return None
    return np.array([_encode(other, one[0]) for one in projected if one is not None])


def _encode(parameter: Parameter, value: Value) -> Array:
    """Return the columns of a value."""
    if isinstance(parameter, Categorical):
        return np.asarray(np.eye(len(parameter.values))[parameter.index(value)])
    return np.array([parameter.to_unit(value)])


def _look_up(table: Array, own: Array) -> Array:
    """Return (m, columns there) of (m, columns here) of one parameter."""
    return own @ table if own.shape[1] > 1 else _interpolate(table, own[:, 0])


def _interpolate(table: Array, units: Array) -> Array:
    return np.array([np.interp(units, _GRID, column) for column in table.T]).T


def _reset_inactive(space: Space, x: Array) -> Array:
    """Put inactive parameters where `Space.encode` puts them: the middle, or no category."""
    for parameter, columns in zip(space.parameters, space.slices, strict=True):
        for name, values in parameter.when.items():
            parent, parent_columns = space[name], space.slices[space.names.index(name)]
            if isinstance(parent, Categorical):
                chosen = x[:, parent_columns][:, [parent.index(value) for value in values]]
                inactive = chosen.sum(axis=1) < 0.5
                x[inactive, columns] = 0.0 if isinstance(parameter, Categorical) else 0.5
    return x
