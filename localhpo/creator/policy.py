"""How much a model counts, and when it proposes itself: settings, and pure functions of trials.

The one place to change when measurements say otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from localhpo.experience import LEAST_SIMILAR, Past, similarity, usable
from localhpo.space import Space
from localhpo.task import Task
from localhpo.trial import Direction, State, Trial, is_better

TRUST = 1.0
"""Weight of a small model's opinion before any trial, in units of the process's own spread."""

SURE = 1.9
"""A small model counts as sure where the spread of its log density over the space is so many
times that of as many blind samples. On the problems for choosing settings the median was 2.8 (6 %
below 1.9); with all names hidden 2.1 (40 % below). So it tells the two apart only in part, and a
model that is wrong about a family it does not know passes for sure."""

KNOWN = 0.5
"""A small model is asked where it knows at least this share of the hyperparameters by name. On
kinds of spaces that it never saw its opinion was worse than none, and its samples do not tell:
they are as close together as where it knows."""

STARTUP = 3
"""Complete trials from which the optimizer knows enough to take turns with a model that talks."""

ENGINE_FLOOR = 0.5
"""Least share of the engine once it knows enough to start."""

_ENGINES = ("engine:", "experience")
"""How the origins of an engine's proposals begin."""

_PRIOR_TRIALS = 3.0
"""Trials of middling success that each side is credited with beforehand."""

MOST_EARLIER = 6.0
"""Trials that the record of each side in past studies counts as, at most: they are of another task,
and twelve of this one are to outweigh them."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What one side has done: trials, and of how many of the others each was better."""

    trials: float = 0.0
    credit: float = 0.0
    """The sum of the shares that they beat: as many as the trials, if each was the best."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The record of the model and of the engine in past studies on this kind of space."""

    model: Tally = Tally()
    engine: Tally = Tally()


def standing(task: Task, pasts: Iterable[Past], model_digest: str) -> Standing:
    """Return how both sides did in past studies, each of them weighed by its similarity.

    Args:
        task: at hand.
        pasts: other studies; those that do not count, or are not similar, are passed over.
        model_digest: of the model at hand: what another one did is not its record.
    """
    model = engine = Tally()
    for past in usable(pasts)[0]:
        weight = similarity(task, past.task).value
        if weight < LEAST_SIMILAR:
            continue
        models, engines = _sides(past.trials)
        own = [trial for trial in models if trial.proposal.model_digest == model_digest]
        scored = [trial for trial in past.trials if trial.score is not None]
        direction = past.task.direction
        model = _added(model, _tally(own, scored, direction), weight)
        engine = _added(engine, _tally(engines, scored, direction), weight)
    return Standing(_capped(model), _capped(engine))


def strangers(space: Space, known: Collection[str]) -> list[str]:
    """Return the hyperparameters whose names are not known, where anything is left to choose.

    Names are compared without case and punctuation, and by their last part too: `clf__max_depth`
    and `model.max-depth` are `max_depth`. Where nothing is told, nothing is strange.
    """
    if not known:
        return []
    plain = {_plain(name) for name in known}
    return [
        name
        for name in _tuned(space)
        if not {_plain(name), _plain(re.split(r"__|[./]", name)[-1])} & plain
    ]


def is_strange(space: Space, known: Collection[str]) -> bool:
    """Return whether too little of the space is known by name for a small model to be asked."""
    return len(strangers(space, known)) > (1.0 - KNOWN) * len(_tuned(space))


def _tuned(space: Space) -> list[str]:
    return [parameter.name for parameter in space.parameters if parameter.cardinality > 1]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def model_share(
    trials: Sequence[Trial], direction: Direction, *, taught: bool = False,
    earlier: Standing | None = None,
) -> float:  # fmt: skip
    """Return the probability with which a model that talks makes the next proposal.

    Until there are `STARTUP` complete trials, the engine knows next to nothing and the model's
    proposals are better: all proposals are the model's (but no more than twice as many,
    should they keep failing). Not so where the engine was taught this kind of task (`taught`):
    then its first trials are good too, and the two begin as equals. From then on, the engine was
    measured to be the better proposer nearly always. So the model is weighed as one trial's worth
    of knowledge against the t trials of evidence, 1/t, times its record over the engine's. The
    record of a side is the mean share of the other scored trials that its trials beat, a failure
    beating none, drawn towards 1/2 by `_PRIOR_TRIALS`, and towards its record in past studies on
    this kind of space (`earlier`), where they are remembered. The engine keeps at least
    `ENGINE_FLOOR`.

    At even records that makes the model's share 1/4 for the fourth trial, 1/10 for the tenth
    and 1/30 for the thirtieth. What the engine proposes from past studies, or from what was
    taught, is to its record. Trials that users or defaults brought count as evidence, and to
    nobody's record.
    """
    ran = [trial for trial in trials if trial.state is not State.INFEASIBLE]
    complete = sum(trial.state is State.COMPLETE for trial in ran)
    if complete < STARTUP and len(ran) < 2 * STARTUP and not taught:
        return 1.0
    before = earlier or Standing()
    scored = [trial for trial in ran if trial.score is not None]
    models, engines = _sides(ran)
    model = record(models, scored, direction, before.model) / max(1, len(ran))
    engine = record(engines, scored, direction, before.engine)
    return min(1.0 - ENGINE_FLOOR, model / (model + engine))


def record(
    trials: Sequence[Trial], scored: Sequence[Trial], direction: Direction,
    earlier: Tally = Tally(),
) -> float:  # fmt: skip
    """Return the mean share of the scored trials that these trials beat, drawn towards 1/2."""
    own = _added(_tally(trials, scored, direction), earlier, 1.0)
    return (_PRIOR_TRIALS / 2.0 + own.credit) / (_PRIOR_TRIALS + own.trials)


def _sides(trials: Iterable[Trial]) -> tuple[list[Trial], list[Trial]]:
    """Return the trials that the model proposed, and those that the engine did."""
    every = list(trials)
    models = [trial for trial in every if trial.proposal.origin == "model"]
    return models, [trial for trial in every if trial.proposal.origin.startswith(_ENGINES)]


def _tally(trials: Sequence[Trial], scored: Sequence[Trial], direction: Direction) -> Tally:
    ended = [trial for trial in trials if trial.score is not None or trial.state is State.FAILED]
    return Tally(len(ended), sum(_beaten(trial, scored, direction) for trial in ended))


def _added(one: Tally, other: Tally, weight: float) -> Tally:
    return Tally(one.trials + weight * other.trials, one.credit + weight * other.credit)


def _capped(tally: Tally) -> Tally:
    """Return the same record as of no more than `MOST_EARLIER` trials."""
    scale = min(1.0, MOST_EARLIER / tally.trials) if tally.trials else 1.0
    return Tally(scale * tally.trials, scale * tally.credit)


def _beaten(trial: Trial, scored: Sequence[Trial], direction: Direction) -> float:
    if trial.score is None:
        return 0.0
    others = [
        other.score for other in scored if other.number != trial.number and other.score is not None
    ]
    if not others:
        return 0.5
    return sum(is_better(trial.score, score, direction) for score in others) / len(others)
