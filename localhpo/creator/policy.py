"""When a language model is asked, and how much it counts: settings, and pure functions of trials.

A model of few parameters that answers with bare configurations (a configuration model) is asked
where it knows the names of the hyperparameters. A chat model proposes by turns with the optimizer.
This module is the one place to change when measurements say otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from localhpo.objective import Direction, is_better
from localhpo.space import Space
from localhpo.task import Task
from localhpo.transfer import (
    MIN_SIMILARITY,
    PastStudy,
    plain_name,
    similarity,
    split_usable,
    to_single_objective,
)
from localhpo.trial import LLM, Origin, State, Trial

PRIOR_WEIGHT = 1.0
"""Weight of the prior of a configuration model, in units of the scale of the process."""

MIN_SPREAD_RATIO = 1.9
"""A configuration model is certain where the log density of its samples varies over the space at
least this many times as much as that of random samples. On the problems for choosing settings the
median was 2.8 (6 % below 1.9); with all names hidden 2.1 (40 % below). So the ratio tells the two
apart only in part, and a model that is wrong about a family it does not know passes for certain."""

MIN_KNOWN_SHARE = 0.5
"""A configuration model is asked where it knows at least this share of the hyperparameters by name.
On kinds of spaces that it never saw, its prior was worse than none. The samples themselves do not
tell: they are as close together as where it knows."""

STARTUP = 3
"""Complete trials from which the optimizer takes turns with a chat model."""

MIN_ENGINE_SHARE = 0.5
"""Smallest probability of the optimizer's turn from then on."""

_PSEUDO_TRIALS = 3.0
"""Trials with a win rate of 1/2 that each side starts with."""

MAX_PAST_TRIALS = 6.0
"""Trials that the wins of one side in past studies count as, at most: they are of other tasks, and
twelve trials of this one shall outweigh them."""


@dataclass(frozen=True, slots=True)
class WinRate:
    """Trials of one side, and how often they were better than other trials."""

    trials: float = 0.0
    wins: float = 0.0
    """Sum, over the trials, of the share of the other trials with a value that each one beat."""


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """Win rates of the model and of the optimizer in past studies on similar spaces."""

    model: WinRate = WinRate()
    engine: WinRate = WinRate()


def past_track_record(
    task: Task, past_studies: Iterable[PastStudy], model_digest: str
) -> TrackRecord:
    """Return the track record in past studies, each weighted by its similarity.

    Args:
        task: the task at hand.
        past_studies: other studies; unusable and dissimilar ones are skipped.
        model_digest: digest of the model at hand; trials of other models do not count.
    """
    model = engine = WinRate()
    single = [to_single_objective(past, task.objectives[0]) for past in past_studies]
    for past in split_usable(single)[0]:
        weight = similarity(task, past.task).value
        if weight < MIN_SIMILARITY:
            continue
        of_models, of_engine = _split_by_side(past.trials)
        of_model = [t for t in of_models if t.proposal.model_digest == model_digest]
        rivals = [trial for trial in past.trials if trial.value is not None]
        direction = past.task.direction
        model = _add(model, _count_wins(of_model, rivals, direction), weight)
        engine = _add(engine, _count_wins(of_engine, rivals, direction), weight)
    return TrackRecord(_cap(model), _cap(engine))


def unknown_parameters(space: Space, known: Collection[str]) -> list[str]:
    """Return the names of tuned hyperparameters that a model does not know.

    Names are compared without case and punctuation, and by their last part too: `clf__max_depth`
    and `model.max-depth` are `max_depth`. Where `known` is empty, every name counts as known.
    """
    if not known:
        return []
    plain = {_plain(name) for name in known}
    return [name for name in _tuned(space) if not {_plain(name), plain_name(name)} & plain]


def is_unknown_space(space: Space, known: Collection[str]) -> bool:
    """Return whether a configuration model knows too few names of a space to be asked."""
    return len(unknown_parameters(space, known)) > (1.0 - MIN_KNOWN_SHARE) * len(_tuned(space))


def _tuned(space: Space) -> list[str]:
    return [parameter.name for parameter in space.parameters if parameter.cardinality > 1]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def model_share(
    trials: Sequence[Trial], direction: Direction, *, has_meta_data: bool = False,
    past: TrackRecord | None = None,
) -> float:  # fmt: skip
    """Return the probability with which a chat model makes the next proposal.

    Until there are `STARTUP` complete trials, the optimizer knows next to nothing, and the model
    makes all proposals (but no more than twice as many, should they keep failing). Where the
    optimizer has meta-data of similar data sets, its first trials are good too, so the two
    start as equals.

    From then on, the optimizer was measured to be the better proposer nearly always. So the
    weight of the model is 1/t, one trial's worth of knowledge against t trials of evidence, times
    its win rate over that of the optimizer. A win rate is the mean share of the other trials that
    a side's trials beat (a failed trial beats none), shrunk towards 1/2 by `_PSEUDO_TRIALS`, and
    towards the side's win rate in past studies. The optimizer keeps at least `MIN_ENGINE_SHARE`.

    At equal win rates the model's share is 1/4 for the fourth trial, 1/10 for the tenth and 1/30
    for the thirtieth. What the optimizer proposes from past studies or meta-data counts for the
    optimizer. Trials of users and defaults count as evidence, and for neither side.

    Args:
        trials: all trials of the study.
        direction: direction of its objective.
        has_meta_data: whether the optimizer has meta-data of similar data sets.
        past: track record in past studies; None for none.
    """
    ran = [trial for trial in trials if trial.state is not State.INFEASIBLE]
    complete = sum(trial.state is State.COMPLETE for trial in ran)
    if complete < STARTUP and len(ran) < 2 * STARTUP and not has_meta_data:
        return 1.0
    earlier = past or TrackRecord()
    rivals = [trial for trial in ran if trial.value is not None]
    of_model, of_engine = _split_by_side(ran)
    model = estimate_win_rate(of_model, rivals, direction, earlier.model) / max(1, len(ran))
    engine = estimate_win_rate(of_engine, rivals, direction, earlier.engine)
    return min(1.0 - MIN_ENGINE_SHARE, model / (model + engine))


def estimate_win_rate(
    trials: Sequence[Trial], rivals: Sequence[Trial], direction: Direction,
    past: WinRate = WinRate(),
) -> float:  # fmt: skip
    """Return the mean share of the rivals that these trials beat, shrunk towards 1/2."""
    own = _add(_count_wins(trials, rivals, direction), past, 1.0)
    return (_PSEUDO_TRIALS / 2.0 + own.wins) / (_PSEUDO_TRIALS + own.trials)


def _split_by_side(trials: Iterable[Trial]) -> tuple[list[Trial], list[Trial]]:
    """Return the trials that the model alone proposed, and those without any part of it."""
    every = list(trials)
    of_model = [trial for trial in every if trial.proposal.origin == LLM]
    return of_model, [trial for trial in every if _is_engine(trial.proposal.origin)]


def _is_engine(origin: Origin) -> bool:
    """Return whether an engine made the proposal, without the model."""
    made = origin.engine is not None or origin.uses("transfer") or origin.uses("meta")
    return made and not origin.uses("llm")


def _count_wins(trials: Sequence[Trial], rivals: Sequence[Trial], direction: Direction) -> WinRate:
    ended = [trial for trial in trials if trial.value is not None or trial.state is State.FAILED]
    return WinRate(len(ended), sum(_beaten_share(trial, rivals, direction) for trial in ended))


def _add(one: WinRate, other: WinRate, weight: float) -> WinRate:
    return WinRate(one.trials + weight * other.trials, one.wins + weight * other.wins)


def _cap(rate: WinRate) -> WinRate:
    """Return the same rate, as of `MAX_PAST_TRIALS` trials at most."""
    scale = min(1.0, MAX_PAST_TRIALS / rate.trials) if rate.trials else 1.0
    return WinRate(scale * rate.trials, scale * rate.wins)


def _beaten_share(trial: Trial, rivals: Sequence[Trial], direction: Direction) -> float:
    """Return the share of the other rivals that a trial beat."""
    if trial.value is None:
        return 0.0
    others = [one.value for one in rivals if one.number != trial.number and one.value is not None]
    if not others:
        return 0.5
    return sum(is_better(trial.value, value, direction) for value in others) / len(others)
