"""Bayesian optimization: from a history, and a prior where there is one, to the next configuration.

It maximizes expected improvement on a Gaussian process (`acquisition`). Unlike the engines of
Optuna it takes a prior, handles conditions (an inactive parameter lies in the middle of its range),
never lists the values of an int, needs no torch, and takes a few hundredths of a second.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from localhpo.creator import rationale
from localhpo.creator.bo.acquisition import DID_NOT_RUN, MAX_CANDIDATES, AcquisitionFunction
from localhpo.creator.bo.prior import Prior
from localhpo.creator.candidates import CandidateStatus, DuplicateFilter
from localhpo.creator.protocol import History, derive_seed, propose_one_by_one
from localhpo.trial import COUNTED, Config, Origin, Proposal

NAME = "bo"
ORIGIN = Origin(engine=NAME)

_SEED_LABEL = "bo"
"""Part of every seed; its text may not change, or proposals would."""

STARTUP = 4
"""Ended trials from which on a process without a prior proposes. On fewer, the expected
improvement is largest in corners of the space, which are rarely good."""

MAX_HALF_GUIDED = 10
"""Ended trials from which on the prior guides half of the proposals at most, however well it
explains the trials: it may be right about all trials but the best. On the problems for choosing
settings that took the regret after 30 and 60 trials from .129 and .074 to .109 and .049 with
XGBoost (6 problems, 2 seeds), from .070 and .055 to .064 and .027 on YAHPO (24 problems, 1 seed).
"""

_GROUP = 4
"""Random configurations of which the one farthest from all trials is taken: far enough to tell
something new, and no corner. Of 20 it is nearly as bad as a corner."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A configuration, and how it was chosen."""

    config: Config
    tries: int
    uses_prior: bool = False
    """Whether the prior guided the choice."""
    method: str = ""
    """How it was chosen, for a rationale; empty without a prior."""
    prior_weight: float | None = None
    """Weight of the prior after the trials; None where no process was fitted with it."""
    prior_probability: float | None = None
    """Probability with which the prior guided this choice; None where that was not drawn."""
    note: str = ""


class BayesianOptimizer:
    """Bayesian optimization as a Creator; the default or the center of the space comes first.

    It optimizes the first objective of a task and ignores its constraints.
    """

    @property
    def name(self) -> str:
        """The name by which a user selects it."""
        return NAME

    @property
    def backend(self) -> None:
        """None: it asks no language model."""
        return None

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals.

        Raises:
            SpaceExhaustedError: nothing new is left.
        """
        return propose_one_by_one(self.propose_one, history.first_objective(), n)

    def propose_one(self, history: History) -> Proposal:
        """Return one new proposal for a history of one objective. Raises as `propose` does."""
        started = time.perf_counter()
        proposal = to_proposal(history, suggest(history, None))
        return dataclasses.replace(proposal, seconds=time.perf_counter() - started)

    def close(self) -> None:
        """Do nothing: there is no state."""


def to_proposal(history: History, made: Suggestion, guided: Origin = ORIGIN) -> Proposal:
    """Return the proposal of a suggestion; its origin is `guided` where the prior took part."""
    reason, evidence = rationale.compute_rationale(history, made.config)
    return Proposal(
        config=made.config, origin=guided if made.uses_prior else ORIGIN,
        rationale="; ".join(filter(None, (made.method, reason))), rationale_by="computed",
        evidence=evidence, details=_prior_details(made), tries=made.tries,
        seed=derive_seed(history, _SEED_LABEL), note=made.note,
    )  # fmt: skip


def _prior_details(made: Suggestion) -> dict[str, float]:
    """Return the numbers that say how much the prior counted, where there was one."""
    found = {"prior_weight": made.prior_weight, "prior_probability": made.prior_probability}
    return {name: value for name, value in found.items() if value is not None}


def propose_guided(history: History, prior: Prior, guided: Origin) -> Proposal:
    """Return the next proposal; its origin is `guided` where the prior took part.

    Raises:
        SpaceExhaustedError: nothing new is left.
    """
    return to_proposal(history, suggest(history, prior), guided)


def suggest(history: History, prior: Prior | None) -> Suggestion:
    """Return what to try next.

    Before any trial has a value that is the default, or the center of the space, then the points
    of the largest prior. Without a prior, points are spread over the space until there are
    `STARTUP` trials.

    Args:
        history: the study so far, of one objective.
        prior: a prior on the same space; None for none.

    Raises:
        SpaceExhaustedError: nothing new is left.
    """
    rng = np.random.default_rng(derive_seed(history, _SEED_LABEL))
    if not history.has_value or (prior is None and _count_ended(history) < STARTUP):
        suggestion = _select(history, _initial_candidates(history, prior, rng), rng)
        return dataclasses.replace(suggestion, uses_prior=prior is not None)
    acquisition, probability = _choose_process(history, prior, rng)
    suggestion = _select(history, acquisition.rank_candidates(rng), rng)
    return dataclasses.replace(
        suggestion,
        uses_prior=acquisition.uses_prior,
        method=_describe_method(prior, acquisition.uses_prior),
        prior_weight=acquisition.prior_weight if acquisition.uses_prior else None,
        prior_probability=probability,
    )


def suggest_far(history: History) -> Suggestion:
    """Return a configuration far from all trials, whatever their values.

    Raises:
        SpaceExhaustedError: nothing new is left.
    """
    rng = np.random.default_rng(derive_seed(history, _SEED_LABEL))
    return _select(history, _farthest(history, _sample(history, rng)), rng)


def _select(history: History, candidates: Iterable[Config], rng: np.random.Generator) -> Suggestion:
    """Return the first new candidate, or else an untried configuration near one of them."""
    duplicates = DuplicateFilter(history)
    selection = duplicates.select(candidates, lambda config: config)
    if selection is None:
        raise RuntimeError("a search without candidates")
    if selection.status in (CandidateStatus.NEW, CandidateStatus.NEAR_DUPLICATE):
        return Suggestion(selection.candidate, selection.tries)
    note = (
        f"all {selection.tries} candidates were duplicates or cannot run on this machine: "
        "the nearest untried configuration was chosen"
    )
    nearest = duplicates.nearest_untried(selection.candidate, rng)
    return Suggestion(nearest, selection.tries, note=note)


def _count_ended(history: History) -> int:
    """Return how many trials tell something: a value, or what does not run."""
    return sum(t.state in COUNTED or t.state in DID_NOT_RUN for t in history.trials)


def _choose_process(
    history: History, prior: Prior | None, rng: np.random.Generator
) -> tuple[AcquisitionFunction, float | None]:
    """Return the process that proposes, with the prior or without it.

    Until there are `STARTUP` trials the prior always takes part. Then it takes part with its
    posterior probability: that of the process with the prior against the process without it, given
    the trials, where both were equally likely before them. So a wrong prior soon has no say,
    however certain its source is. From `MAX_HALF_GUIDED` trials on the probability is 1/2 at most.

    Returns:
        The process, and the probability of the prior; None where nothing was drawn.
    """
    if prior is None:
        return AcquisitionFunction(history, None), None
    guided = AcquisitionFunction(history, prior)
    if _count_ended(history) < STARTUP:
        return guided, None
    plain = AcquisitionFunction(history, None)
    # The difference of the log evidences is the log of the Bayes factor; it is clipped to keep the
    # exponential finite.
    log_factor = np.clip(plain.evidence - guided.evidence, -30.0, 30.0)
    probability = float(1.0 / (1.0 + np.exp(log_factor)))
    if _count_ended(history) >= MAX_HALF_GUIDED:
        probability = min(probability, 0.5)
    return (guided if rng.random() < probability else plain), probability


def _describe_method(prior: Prior | None, uses_prior: bool) -> str:
    if prior is None:
        return ""
    basis = f"guided by {prior.description}" if uses_prior else "from the trials alone"
    return f"Bayesian optimization, {basis}"


def _initial_candidates(
    history: History, prior: Prior | None, rng: np.random.Generator
) -> Iterator[Config]:
    """Yield candidates for a study whose trials tell too little to fit a process."""
    space = history.task.space
    yield space.default()
    sampled = _sample(history, rng)
    if prior is not None:
        density = prior(np.array([space.encode(config) for config in sampled]))
        yield from (sampled[i] for i in np.argsort(-density, kind="stable"))
    yield from _farthest(history, sampled)


def _sample(history: History, rng: np.random.Generator) -> list[Config]:
    return [history.task.space.sample(rng) for _ in range(MAX_CANDIDATES)]


def _farthest(history: History, sampled: Sequence[Config]) -> Iterator[Config]:
    """Yield, from each group of `_GROUP` configurations, the one farthest from all trials."""
    space, tried = history.task.space, [trial.config for trial in history.trials]
    for start in range(0, len(sampled), _GROUP):
        group = sampled[start : start + _GROUP]
        yield max(group, key=lambda c: min((space.distance(c, t) for t in tried), default=0.0))
