"""The acquisition function, how much is gained by trying a point, and the search for its maximum.

It is the logarithm of the expected improvement under a Gaussian process (`gp`), plus the log
probability that the configuration runs at all. The process models utilities: standardized values,
larger being better. The search evaluates many start points and then samples around the ten best,
ever closer.

Notation: n trials with a value, m points, K priors, d columns of the unit cube, G parameters. A
category has one column per choice (one-hot). `x` is (n, d), `y` (n,) and `phi` (n, K).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from localhpo.creator.bo import gp
from localhpo.creator.bo.gp import Array
from localhpo.creator.bo.prior import Prior
from localhpo.creator.protocol import History
from localhpo.trial import COUNTED, Config, State, Trial

MAX_CANDIDATES = 48
"""Best points of a search that are put on the grid and compared there."""

_UNIFORM = 600
"""Random points among the start points."""

_NEAR = 150
"""Points of one round of the local search, around the ten best so far."""

_WIDTHS = (0.15, 0.05, 0.02, 0.007, 0.002)
"""Step sizes of the rounds of the local search, in parts of a range: on a smooth function the last
trials are that close."""

_MAX_FITTED = 250
"""Trials with a value that enter at most: the best half and the latest half of them."""

_MAX_LISTED = 1000
"""Largest space whose configurations are all compared, instead of searched."""

DID_NOT_RUN = frozenset({State.FAILED, State.INFEASIBLE})

_PENDING = frozenset({State.QUEUED, State.RUNNING, State.INTERRUPTED})


class AcquisitionFunction:
    """Log expected improvement over the trials of a history, times the chance to run.

    Attributes:
        priors: the priors that its mean follows.
        weights: (K,), their weights after the trials.
        evidence: log model evidence of the process, up to a constant (`gp.fit`).
    """

    def __init__(self, history: History, priors: Sequence[Prior] = ()) -> None:
        """Fit the process to the trials."""
        self._space = space = history.task.space
        self.priors = tuple(priors)
        complete = _subsample(
            [t for t in history.trials if t.state is State.COMPLETE and t.value is not None],
            history,
        )
        x = self._encode([trial.config for trial in complete])
        y = standardize_utilities(_utilities(complete, history))
        before = np.array([prior.weight for prior in self.priors])
        data = gp.TrainingData(x, self._phi(x), y, space.slices, before)
        theta, self.evidence = gp.fit(data)
        self._posterior = gp.Posterior(data, theta)
        self._tried, self._by_utility = x, np.argsort(-y, kind="stable")
        self.weights = self._posterior.weights
        pending = [t.config for t in history.trials if t.state in _PENDING]
        if pending:
            # A pending trial enters with its expected value ("kriging believer"): the uncertainty
            # around it falls, so proposals made in parallel lie apart.
            x_pending = self._encode(pending)
            expected = self._posterior.predict(x_pending, self._phi(x_pending))[0]
            x, y = np.concatenate([x, x_pending]), np.concatenate([y, expected])
            data = gp.TrainingData(x, self._phi(x), y, space.slices, before)
            self._posterior = gp.Posterior(data, theta)
        # The best expected value, not the best observed one: with noise, the best observation was
        # partly lucky.
        self._best = float(self._posterior.predict(x, self._phi(x))[0].max())
        self._feasibility = FeasibilityModel(history)
        self._known = {space.key(trial.config) for trial in history.trials}

    def evaluate(self, x: Array) -> Array:
        """Return (m,): the acquisition value of (m, d) points."""
        mean, deviation = self._posterior.predict(x, self._phi(x))
        improvement = log_improvement(mean, deviation, self._best)
        return improvement + self._feasibility.log_probability(x)

    def rank_candidates(self, rng: np.random.Generator) -> list[Config]:
        """Return untried configurations, the largest acquisition value first."""
        space = self._space
        if space.cardinality <= _MAX_LISTED:
            configs = self._untried(space.configurations(), _MAX_LISTED)
        else:
            start = self._start_points(rng)
            points = _maximize(self.evaluate, start, space.slices, self._snap, rng)
            configs = self._untried(map(space.decode, points), MAX_CANDIDATES)
        if not configs:
            # The search saw known configurations alone; the caller looks for what is left.
            return [space.sample(rng) for _ in range(MAX_CANDIDATES)]
        values = self.evaluate(self._encode(configs))
        return [configs[i] for i in np.argsort(-values, kind="stable")]

    def _untried(self, configs: Iterable[Config], count: int) -> list[Config]:
        """Return the first `count` distinct configurations that no trial has."""
        found: dict[str, Config] = {}
        for config in configs:
            key = self._space.key(config)
            if key not in self._known:
                found.setdefault(key, config)
            if len(found) == count:
                break
        return list(found.values())

    def _start_points(self, rng: np.random.Generator) -> Array:
        """Return start points: random ones, some near the best trials, samples of the priors."""
        groups = self._space.slices
        near = np.repeat(self._tried[self._by_utility[:3]], 40, axis=0)
        parts = [_draw_points(groups, rng), _perturb(near, groups, 0.1, rng)]
        for prior in self.priors:
            samples = prior.samples
            parts += [samples, _perturb(np.repeat(samples, 3, axis=0), groups, 0.1, rng)]
        return self._snap(np.concatenate(parts))

    def _snap(self, x: Array) -> Array:
        """Return the points with inactive parameters where `Space.encode` puts them."""
        if not self._space.conditional:
            return x
        return self._encode([self._space.decode(point) for point in x])

    def _encode(self, configs: Sequence[Config]) -> Array:
        return np.array([self._space.encode(config) for config in configs])

    def _phi(self, x: Array) -> Array:
        """Return (m, K): the priors at (m, d) points."""
        columns = [prior(x) for prior in self.priors]
        return np.column_stack(columns) if columns else gp.no_prior(x)


class FeasibilityModel:
    """Probability that a configuration runs, learned from trials that ran and trials that did not.

    A Gaussian process is fitted to +1 (ran) and -1 (did not run); the probability is that of a
    positive value. Its length scales tell whether failures lie behind a wall or in a spot. No value
    is made up for a failed trial.
    """

    _PRIOR_MEAN = 0.5
    """Mean of the process before any trial: most configurations run."""
    _CHANCE_DEVIATION = 0.3
    """Added to the deviation of the process: a trial may fail by bad luck."""

    def __init__(self, history: History) -> None:
        space = history.task.space
        ended = [t for t in history.trials if t.state in COUNTED or t.state in DID_NOT_RUN]
        ended = ended[-_MAX_FITTED:]
        ran = np.array([t.state not in DID_NOT_RUN for t in ended], dtype=bool)
        self._posterior: gp.Posterior | None = None
        if not ran.all():
            x = np.array([space.encode(t.config) for t in ended])
            y = np.where(ran, 1.0, -1.0) - self._PRIOR_MEAN
            data = gp.TrainingData.without_prior(x, y, space.slices)
            self._posterior = gp.Posterior(data, gp.fit(data)[0])

    def log_probability(self, x: Array) -> Array:
        """Return (m,): the log probability that (m, d) points run."""
        from scipy.special import log_ndtr

        if self._posterior is None:
            return np.zeros(len(x))
        mean, deviation = self._posterior.predict(x, gp.no_prior(x))
        z = (mean + self._PRIOR_MEAN) / np.hypot(deviation, self._CHANCE_DEVIATION)
        return np.asarray(log_ndtr(z))


def standardize_utilities(utilities: Array) -> Array:
    """Return (n,) utilities with mean 0 and deviation 1, the half below the median compressed.

    A utility below the median enters with the logarithm of its distance to it: a diverged run must
    not hide all differences between good ones.
    """
    median = float(np.median(utilities))
    scale = float(utilities.max()) - median
    if scale <= 1e-12 * max(1.0, abs(median)):
        # More than half of the trials share the best value; take the whole range then.
        scale = float(np.ptp(utilities)) or 1.0
    distance = (utilities - median) / scale
    compressed = np.where(distance < 0.0, -np.log1p(np.maximum(-distance, 0.0)), distance)
    return np.asarray((compressed - compressed.mean()) / (float(compressed.std()) or 1.0))


def _utilities(trials: Sequence[Trial], history: History) -> Array:
    """Return the values of the trials, signed so that larger is better."""
    sign = 1.0 if history.task.direction == "maximize" else -1.0
    return np.array([sign * trial.value for trial in trials if trial.value is not None])


def _subsample(trials: Sequence[Trial], history: History) -> list[Trial]:
    """Return the trials, or the best half and the latest half of as many as can be fitted."""
    if len(trials) <= _MAX_FITTED:
        return list(trials)
    order = np.argsort(-_utilities(trials, history), kind="stable")[: _MAX_FITTED // 2]
    best = {int(i) for i in order}
    latest = [i for i in range(len(trials)) if i not in best][-(_MAX_FITTED - len(best)) :]
    return [trials[i] for i in sorted([*best, *latest])]


def log_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Return (m,): the logarithm of the expected improvement over `best`, larger being better.

    Stable where the improvement is tiny (Ament et al. 2023, https://arxiv.org/abs/2310.20708).
    """
    from scipy.special import erfcx, log_ndtr

    # log(density(z) + z * distribution(z)) + log(deviation), with z the standardized improvement.
    z = (mean - best) / deviation
    log_density = -0.5 * z * z - 0.5 * np.log(2.0 * np.pi)
    plain = np.exp(log_density) + z * np.exp(log_ndtr(z))
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.log(plain)
        # Far below the best the sum cancels to 0. There it is density(z) * (1 - u * mills(u)) with
        # u = -z and Mills' ratio, which `erfcx` gives without underflow.
        u = np.maximum(-z, 0.5)
        mills = np.sqrt(np.pi / 2.0) * erfcx(u / np.sqrt(2.0))
        far = log_density + np.log(np.maximum(1.0 - u * mills, 1e-300))
    return np.asarray(np.where(z > -4.0, near, far) + np.log(deviation))


def _draw_points(groups: Sequence[slice], rng: np.random.Generator) -> Array:
    """Return (_UNIFORM, d) random points; the columns of a category hold a single 1."""
    x = rng.uniform(size=(_UNIFORM, groups[-1].stop))
    for columns in groups:
        if columns.stop - columns.start > 1:
            # The largest of independent uniform numbers: each category is equally likely.
            x[:, columns] = np.eye(columns.stop - columns.start)[x[:, columns].argmax(1)]
    return x


def _perturb(x: Array, groups: Sequence[slice], width: float, rng: np.random.Generator) -> Array:
    """Return each point moved in about a third of its parameters, at least in one.

    Args:
        x: (m, d).
        groups: columns of each parameter.
        width: standard deviation of a step, in parts of a range.
        rng: draws the parameters and the steps.
    """
    count = len(x)
    moved = rng.uniform(size=(count, len(groups))) < max(0.3, 1.0 / len(groups))
    moved[np.arange(count), rng.integers(len(groups), size=count)] = True
    out = x.copy()
    for g, columns in enumerate(groups):
        rows = moved[:, g]
        size = columns.stop - columns.start
        if size > 1:
            # Any other category is a large step, so a category changes half as often as a number.
            rows = rows & (rng.uniform(size=count) < 0.5)
            out[rows, columns] = np.eye(size)[rng.integers(size, size=int(rows.sum()))]
        else:
            step = rng.normal(0.0, width, (int(rows.sum()), 1))
            out[rows, columns] = np.clip(out[rows, columns] + step, 0.0, 1.0)
    return out


def _maximize(
    evaluate: Callable[[Array], Array],
    start: Array,
    groups: Sequence[slice],
    snap: Callable[[Array], Array],
    rng: np.random.Generator,
) -> Array:
    """Return the points that were evaluated, the largest value first.

    Args:
        evaluate: from (m, d) points to their (m,) values.
        start: (m, d) points from which the search starts.
        groups: columns of each parameter.
        snap: puts inactive parameters where they belong.
        rng: draws the steps.
    """
    x, y = start, evaluate(start)
    for width in _WIDTHS:
        best = x[np.argsort(-y)[:10]]
        near = snap(_perturb(np.repeat(best, _NEAR // 10, axis=0), groups, width, rng))
        x, y = np.concatenate([x, near]), np.concatenate([y, evaluate(near)])
    return x[np.argsort(-y, kind="stable")]
