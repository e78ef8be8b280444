"""Bayesian optimization: from a history, and a prior where there is one, to the next configuration.

It maximizes expected improvement on a Gaussian process (`acquisition`). Unlike the engines of
Optuna it takes a prior, handles conditions (an inactive parameter lies in the middle of its range),
never lists the values of an int, needs no torch, and takes a few hundredths of a second.
"""

from __future__ import annotations

import dataclasses
import math
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
    priors: tuple[Prior, ...] = ()
    """The priors that guided the choice."""
    weights: tuple[float, ...] = ()
    """Their weights after the trials; empty where no process was fitted with them."""
    probability: float | None = None
    """Probability with which these priors guided this choice; None where nothing was drawn."""
    has_priors: bool = False
    """Whether there were priors to choose from."""
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
        return propose(history)

    def close(self) -> None:
        """Do nothing: there is no state."""


def to_proposal(history: History, made: Suggestion) -> Proposal:
    """Return the proposal of a suggestion; the sources of its priors are in its origin."""
    reason, evidence = rationale.compute_rationale(history, made.config)
    sources = "+".join(sorted({prior.source for prior in made.priors}))
    return Proposal(
        config=made.config, origin=Origin(sources, NAME) if sources else ORIGIN,
        rationale="; ".join(filter(None, (_describe_method(made), reason))),
        rationale_by="computed", evidence=evidence, details=_describe_numbers(made),
        tries=made.tries, seed=derive_seed(history, _SEED_LABEL), note=made.note,
    )  # fmt: skip


def _describe_method(made: Suggestion) -> str:
    if not made.has_priors:
        return ""
    basis = " and ".join(prior.description for prior in made.priors)
    return f"Bayesian optimization, {f'guided by {basis}' if basis else 'from the trials alone'}"


def _describe_numbers(made: Suggestion) -> dict[str, float]:
    """Return the numbers that say how much the priors counted."""
    found = {
        f"{prior.source}_weight": weight
        for prior, weight in zip(made.priors, made.weights, strict=False)
    }
    if made.probability is not None:
        found["probability"] = made.probability
    return found


def propose(history: History, priors: Sequence[Prior] = ()) -> Proposal:
    """Return the next proposal.

    Raises:
        SpaceExhaustedError: nothing new is left.
    """
    started = time.perf_counter()
    proposal = to_proposal(history, suggest(history, priors))
    return dataclasses.replace(proposal, seconds=time.perf_counter() - started)


def suggest(history: History, priors: Sequence[Prior] = ()) -> Suggestion:
    """Return what to try next.

    Before any trial has a value that is the default, or the center of the space, then the points
    of the largest prior. Without a prior, points are spread over the space until there are
    `STARTUP` trials.

    Args:
        history: the study so far, of one objective.
        priors: priors on the same space.

    Raises:
        SpaceExhaustedError: nothing new is left.
    """
    rng = np.random.default_rng(derive_seed(history, _SEED_LABEL))
    if not history.has_value or (not priors and _count_ended(history) < STARTUP):
        suggestion = _select(history, _initial_candidates(history, priors, rng), rng)
        return dataclasses.replace(suggestion, priors=tuple(priors), has_priors=bool(priors))
    acquisition, probability = _choose_process(history, priors, rng)
    suggestion = _select(history, acquisition.rank_candidates(rng), rng)
    return dataclasses.replace(
        suggestion,
        priors=acquisition.priors,
        weights=tuple(map(float, acquisition.weights)),
        probability=probability,
        has_priors=bool(priors),
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
    history: History, priors: Sequence[Prior], rng: np.random.Generator
) -> tuple[AcquisitionFunction, float | None]:
    """Return the process that proposes: with all priors, with one of them, or with none.

    Each takes part with its posterior probability, given the trials (Bayesian model selection; the
    evidence of a process is `AcquisitionFunction.evidence`). Before them, a prior is right with
    the probability `Prior.trust`, independently of the others. So a wrong prior soon has no say,
    however certain its source is. From `MAX_HALF_GUIDED` trials on, a process without a prior
    has at least the probability 1/2.

    Returns:
        The process, and its probability; None where there was no choice.
    """
    if not priors:
        return AcquisitionFunction(history), None
    subsets = [(), *((prior,) for prior in priors), *([tuple(priors)] if len(priors) > 1 else [])]
    processes = [AcquisitionFunction(history, subset) for subset in subsets]
    before = [
        math.prod(prior.trust if prior in subset else 1.0 - prior.trust for prior in priors)
        for subset in subsets
    ]
    evidence = np.array([process.evidence for process in processes])
    probabilities = np.array(before) * np.exp(evidence - evidence.max())
    probabilities /= probabilities.sum()
    if _count_ended(history) >= MAX_HALF_GUIDED and probabilities[0] < 0.5:
        probabilities[1:] *= 0.5 / (1.0 - probabilities[0])
        probabilities[0] = 0.5
    index = int(rng.choice(len(processes), p=probabilities))
    return processes[index], float(probabilities[index])


def _initial_candidates(
    history: History, priors: Sequence[Prior], rng: np.random.Generator
) -> Iterator[Config]:
    """Yield candidates for a study whose trials tell too little to fit a process."""
    space = history.task.space
    yield space.default()
    sampled = _sample(history, rng)
    if priors:
        x = np.array([space.encode(config) for config in sampled])
        density = np.sum([prior(x) for prior in priors], axis=0)
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
