"""A history, and a model's opinion where there is one, to the next configuration.

Expected improvement on a Gaussian process (`gp`), searched by candidates (`search`). Unlike the
engines of Optuna it takes an opinion, handles conditions (an inactive parameter lies in the
middle of its range), never lists the values of an int, needs no torch, and takes a few
hundredths of a second.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from localhpo.creator import rationale
from localhpo.creator.batch import one_by_one
from localhpo.creator.bayes import gp, search
from localhpo.creator.bayes.gp import Array
from localhpo.creator.guard import Guard, Verdict
from localhpo.creator.protocol import History
from localhpo.creator.seeds import derive
from localhpo.trial import COUNTED, Config, Proposal, State, Trial

NAME = "bo"
ORIGIN = f"engine:{NAME}"

STARTUP = 4
"""Ended trials from which on a process without opinion proposes. On fewer, the expected
improvement is largest in corners of the space, where next to nothing is good."""

EVEN = 10
"""Ended trials from which on an opinion takes part in half of the proposals at most, however well
it explains the trials: it may be right on all but the best. On the problems for choosing settings
that took the regret after 30 and 60 trials from .129 and .074 to .109 and .049 with XGBoost
(6 problems, 2 seeds), from .070 and .055 to .064 and .027 on YAHPO (24 problems, 1 seed)."""

_SPREAD = 4
"""Random configurations, of which the one farthest from all trials is taken until then: far
enough to tell something new, and no corner. Of 20 it is nearly as bad as a corner."""

_FITTED = 250
"""Scored trials that enter at most: the best half and the latest half of them."""

_LISTED = 1000
"""Spaces up to this size are listed, not searched."""

_LOOKED_AT = 48
"""Best points of a search that are put on the grid and compared there."""

_DID_NOT_RUN = frozenset({State.FAILED, State.INFEASIBLE})

_WAITING = frozenset({State.QUEUED, State.RUNNING, State.INTERRUPTED})


class Belief(Protocol):
    """An opinion on every point: of samples (`density`), or of past data sets (`transfer`)."""

    trust: float
    """Mean of the weight that it gets before any trial."""
    owner: str
    """Whose opinion it is, as a rationale names it."""
    samples: Array
    """(samples, columns): good points, from which a search starts."""

    def __call__(self, x: Array) -> Array:
        """Return (m,): the opinion of (m, columns) points, about of mean 0 and spread 1."""
        ...


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A configuration, and how it came about."""

    config: Config
    tries: int
    leans: bool = False
    """Whether the opinion took part."""
    odds: str = ""
    """How much the opinion counts, in words; empty where there is none, or no trial yet."""
    note: str = ""


class Bayes:
    """Bayesian optimization as a Creator: the default or the center first."""

    @property
    def name(self) -> str:
        """The name by which a user selects it."""
        return NAME

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals.

        Raises:
            SpaceExhaustedError: nothing new is left.
        """
        return one_by_one(self.propose_one, history, n)

    def propose_one(self, history: History) -> Proposal:
        """Return one new proposal. Raises as `propose` does."""
        started = time.perf_counter()
        proposal = proposed(history, suggest(history, None))
        return dataclasses.replace(proposal, seconds=time.perf_counter() - started)

    def close(self) -> None:
        """Free nothing: there is no state."""


def proposed(history: History, made: Suggestion, leaning: str = ORIGIN) -> Proposal:
    """Return the proposal of a suggestion; its origin is `leaning` where an opinion took part."""
    reason, evidence = rationale.compute(history, made.config)
    return Proposal(
        config=made.config, origin=leaning if made.leans else ORIGIN,
        rationale="; ".join(filter(None, (reason, made.odds))), rationale_by="computed",
        evidence=evidence, tries=made.tries, seed=derive(history, NAME), note=made.note,
    )  # fmt: skip


def suggest(history: History, opinion: Belief | None) -> Suggestion:
    """Return what to try next.

    Before any trial has a score that is the default, or the center of the space, then whatever
    the opinion ranks high; without an opinion, points spread over the space until there are
    `STARTUP` trials.

    Args:
        history: of the study.
        opinion: of a model, on the same space.

    Raises:
        SpaceExhaustedError: nothing new is left.
    """
    rng = np.random.default_rng(derive(history, NAME))
    odds, few = "", _ended(history) < STARTUP
    scored = any(trial.state is State.COMPLETE for trial in history.trials)
    leans = opinion is not None
    if not scored or (few and not leans):
        draws = _blind(history, opinion, rng)
    else:
        surface, odds = _whose(history, opinion, rng)
        leans = surface.leans
        draws = iter(surface.best(rng))
    return dataclasses.replace(_picked(history, draws, rng), leans=leans, odds=odds)


def explore(history: History) -> Suggestion:
    """Return a configuration far from all trials.

    Raises:
        SpaceExhaustedError: nothing new is left.
    """
    rng = np.random.default_rng(derive(history, NAME))
    return _picked(history, _far(history, _drawn(history, rng)), rng)


def _picked(history: History, draws: Iterable[Config], rng: np.random.Generator) -> Suggestion:
    """Return the first of the candidates that is new, or else what is left near one of them."""
    guard = Guard(history)
    pick = guard.pick(draws, lambda config: config)
    if pick is None:
        raise RuntimeError("a search without candidates")
    if pick.verdict in (Verdict.NEW, Verdict.NEAR):
        return Suggestion(pick.drawn, pick.tries)
    note = f"all {pick.tries} candidates were known or cannot fit; the nearest one left stands in"
    return Suggestion(guard.nearest_left(pick.drawn, rng), pick.tries, note=note)


def _ended(history: History) -> int:
    """Return the trials that tell something: a score, or where not to go."""
    return sum(t.state in COUNTED or t.state in _DID_NOT_RUN for t in history.trials)


def _whose(
    history: History, opinion: Belief | None, rng: np.random.Generator
) -> tuple[Surface, str]:
    """Return the surface that proposes, with the opinion or without it, and why in words.

    With it until there are `STARTUP` trials. Then drawn by the odds with which each explains the
    trials, even ones before them: an opinion that is wrong, however sure of itself, soon has no
    say. From `EVEN` trials on the odds for the opinion are even at most.
    """
    if opinion is None:
        return Surface(history, None), ""
    leaning = Surface(history, opinion)
    said = f"{opinion.owner} weighs {leaning.weight:.2f}"
    if _ended(history) < STARTUP:
        return leaning, said
    plain = Surface(history, None)
    chance = 1.0 / (1.0 + np.exp(np.clip(plain.evidence - leaning.evidence, -30.0, 30.0)))
    if _ended(history) >= EVEN:
        chance = min(chance, 0.5)
    if rng.random() < chance:
        return leaning, f"{said}, chance {chance:.2f}"
    return plain, f"without {opinion.owner}, whose chance was {chance:.2f}"


def _blind(history: History, opinion: Belief | None, rng: np.random.Generator) -> Iterator[Config]:
    """Yield candidates where the trials tell too little."""
    space = history.task.space
    yield space.default()
    drawn = _drawn(history, rng)
    if opinion is not None:
        liking = opinion(np.array([space.encode(config) for config in drawn]))
        yield from (drawn[i] for i in np.argsort(-liking, kind="stable"))
    yield from _far(history, drawn)


def _drawn(history: History, rng: np.random.Generator) -> list[Config]:
    return [history.task.space.sample(rng) for _ in range(_LOOKED_AT)]


def _far(history: History, drawn: Sequence[Config]) -> Iterator[Config]:
    """Yield of each few configurations the one farthest from all trials."""
    space, tried = history.task.space, [trial.config for trial in history.trials]
    for start in range(0, len(drawn), _SPREAD):
        few = drawn[start : start + _SPREAD]
        yield max(few, key=lambda c: min((space.distance(c, t) for t in tried), default=0.0))


class Surface:
    """What is thought of every point of a space, after some trials."""

    def __init__(self, history: History, opinion: Belief | None) -> None:
        """Fit the process to the trials; those that still run enter as what is expected of them."""
        self._space = space = history.task.space
        self._opinion = opinion
        scored = _thinned(
            [t for t in history.trials if t.state is State.COMPLETE and t.score is not None],
            history,
        )
        x = self._encode([trial.config for trial in scored])
        y = standardized(_merits(scored, history))
        trust = 0.0 if opinion is None else opinion.trust
        data = gp.Data(x, self._phi(x), y, space.slices, trust)
        theta, self.evidence = gp.fit(data)
        self._posterior = gp.Posterior(data, theta)
        self._known, self._order = x, np.argsort(-y, kind="stable")
        self.leans = opinion is not None
        self.weight = self._posterior.weight if opinion is not None else 0.0
        waiting = [t.config for t in history.trials if t.state in _WAITING]
        if waiting:
            more = self._encode(waiting)
            expected = self._posterior.predict(more, self._phi(more))[0]
            x, y = np.concatenate([x, more]), np.concatenate([y, expected])
            self._posterior = gp.Posterior(gp.Data(x, self._phi(x), y, space.slices, trust), theta)
        self._best = float(self._posterior.predict(x, self._phi(x))[0].max())
        self._runs = _Runs(history)
        self._taken = {space.key(trial.config) for trial in history.trials}

    def value(self, x: Array) -> Array:
        """Return (m,): the log expected improvement of (m, columns) points, if they run at all."""
        mean, deviation = self._posterior.predict(x, self._phi(x))
        return search.log_improvement(mean, deviation, self._best) + self._runs.log_chance(x)

    def best(self, rng: np.random.Generator) -> list[Config]:
        """Return configurations by falling value."""
        space = self._space
        if space.cardinality <= _LISTED:
            configs = self._new(space.configurations(), _LISTED)
        else:
            points = search.maximize(self.value, self._start(rng), space.slices, self._snap, rng)
            configs = self._new(map(space.decode, points), _LOOKED_AT)
        if not configs:
            return [space.sample(rng) for _ in range(_LOOKED_AT)]
        values = self.value(self._encode(configs))
        return [configs[i] for i in np.argsort(-values, kind="stable")]

    def _new(self, configs: Iterable[Config], count: int) -> list[Config]:
        """Return the first `count` configurations that are no trial's, none twice."""
        found: dict[str, Config] = {}
        for config in configs:
            key = self._space.key(config)
            if key not in self._taken:
                found.setdefault(key, config)
            if len(found) == count:
                break
        return list(found.values())

    def _start(self, rng: np.random.Generator) -> Array:
        """Return where the search starts: anywhere, near the best, and where the opinion points."""
        groups = self._space.slices
        near = np.repeat(self._known[self._order[:3]], 40, axis=0)
        parts = [search.uniform(groups, rng), search.around(near, groups, 0.1, rng)]
        if self._opinion is not None:
            samples = self._opinion.samples
            parts += [samples, search.around(np.repeat(samples, 3, axis=0), groups, 0.1, rng)]
        return self._snap(np.concatenate(parts))

    def _snap(self, x: Array) -> Array:
        """Return the points with inactive parameters where they belong."""
        if not self._space.conditional:
            return x
        return self._encode([self._space.decode(point) for point in x])

    def _encode(self, configs: Sequence[Config]) -> Array:
        return np.array([self._space.encode(config) for config in configs])

    def _phi(self, x: Array) -> Array:
        return np.zeros(len(x)) if self._opinion is None else self._opinion(x)


class _Runs:
    """The chance that a configuration runs, from those that did and those that did not.

    A second process on whether trials ran (+1) or not (-1): the chance that it is positive.
    Its lengths tell a wall from a spot. Nobody makes up a score for a failure.
    """

    _HOPE, _DOUBT = 0.5, 0.3
    """Mean of the process before any trial (most run); added to its deviation (bad luck)."""

    def __init__(self, history: History) -> None:
        space = history.task.space
        ended = [t for t in history.trials if t.state in COUNTED or t.state in _DID_NOT_RUN]
        ended = ended[-_FITTED:]
        ran = np.array([t.state not in _DID_NOT_RUN for t in ended], dtype=bool)
        self._posterior: gp.Posterior | None = None
        if not ran.all():
            x = np.array([space.encode(t.config) for t in ended])
            y = np.where(ran, 1.0, -1.0) - self._HOPE
            data = gp.Data(x, np.zeros(len(x)), y, space.slices, 0.0)
            self._posterior = gp.Posterior(data, gp.fit(data)[0])

    def log_chance(self, x: Array) -> Array:
        """Return (m,): the logarithm of the chance."""
        from scipy.special import log_ndtr

        if self._posterior is None:
            return np.zeros(len(x))
        mean, deviation = self._posterior.predict(x, np.zeros(len(x)))
        return np.asarray(log_ndtr((mean + self._HOPE) / np.hypot(deviation, self._DOUBT)))


def standardized(merits: Array) -> Array:
    """Return merits with mean 0 and deviation 1, the bad half drawn in.

    What is worse than the median enters with the logarithm of its distance: a diverged run must
    not hide all differences between good ones.
    """
    middle = float(np.median(merits))
    scale = float(merits.max()) - middle
    if scale <= 1e-12 * max(1.0, abs(middle)):
        scale = float(np.ptp(merits)) or 1.0
    above = (merits - middle) / scale
    drawn = np.where(above < 0.0, -np.log1p(np.maximum(-above, 0.0)), above)
    return np.asarray((drawn - drawn.mean()) / (float(drawn.std()) or 1.0))


def _merits(trials: Sequence[Trial], history: History) -> Array:
    """Return the scores, larger being better."""
    sign = 1.0 if history.task.direction == "maximize" else -1.0
    return np.array([sign * trial.score for trial in trials if trial.score is not None])


def _thinned(trials: Sequence[Trial], history: History) -> list[Trial]:
    """Return the trials, or the best half and the latest half of as many as can be fitted."""
    if len(trials) <= _FITTED:
        return list(trials)
    order = np.argsort(-_merits(trials, history), kind="stable")[: _FITTED // 2]
    best = {int(i) for i in order}
    late = [i for i in range(len(trials)) if i not in best][-(_FITTED - len(best)) :]
    return [trials[i] for i in sorted([*best, *late])]
