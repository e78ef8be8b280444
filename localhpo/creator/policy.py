"""How much a model counts, and when it proposes itself: settings, and pure functions of trials.

The one place to change when measurements say otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from localhpo.space import Space
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
"""Complete trials from which the optimiser knows enough to take turns with a model that talks."""

ENGINE_FLOOR = 0.5
"""Least share of the engine once it knows enough to start."""

_ENGINES = ("engine:", "experience")
"""How the origins of an engine's proposals begin."""

_PRIOR_TRIALS = 3.0
"""Trials of middling success that each side is credited with beforehand."""


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


def model_share(trials: Sequence[Trial], direction: Direction, *, taught: bool = False) -> float:
    """Return the probability with which a model that talks makes the next proposal.

    Until there are `STARTUP` complete trials, the engine knows next to nothing and the model's
    proposals are better: all proposals are the model's (but no more than twice as many,
    should they keep failing). Not so where the engine was taught this kind of task (`taught`):
    then its first trials are good too, and the two begin as equals. From then on, the engine was
    measured to be the better proposer nearly always. So the model is weighed as one trial's worth
    of knowledge against the t trials of evidence, 1/t, times its record over the engine's. The
    record of a side is the mean share of the other scored trials that its trials beat, a failure
    beating none, drawn towards 1/2 by `_PRIOR_TRIALS`. The engine keeps at least `ENGINE_FLOOR`.

    At even records that makes the model's share 1/4 for the fourth trial, 1/10 for the tenth
    and 1/30 for the thirtieth. What the engine proposes from past studies, or from what was
    taught, is to its record. Trials that users or defaults brought count as evidence, and to
    nobody's record.
    """
    ran = [trial for trial in trials if trial.state is not State.INFEASIBLE]
    complete = sum(trial.state is State.COMPLETE for trial in ran)
    if complete < STARTUP and len(ran) < 2 * STARTUP and not taught:
        return 1.0
    scored = [trial for trial in ran if trial.score is not None]
    models = [trial for trial in ran if trial.proposal.origin == "model"]
    engines = [trial for trial in ran if trial.proposal.origin.startswith(_ENGINES)]
    model = record(models, scored, direction) / max(1, len(ran))
    engine = record(engines, scored, direction)
    return min(1.0 - ENGINE_FLOOR, model / (model + engine))


def record(trials: Sequence[Trial], scored: Sequence[Trial], direction: Direction) -> float:
    """Return the mean share of the scored trials that these trials beat, drawn towards 1/2."""
    ended = [trial for trial in trials if trial.score is not None or trial.state is State.FAILED]
    credit = sum(_beaten(trial, scored, direction) for trial in ended)
    return (_PRIOR_TRIALS / 2.0 + credit) / (_PRIOR_TRIALS + len(ended))


def _beaten(trial: Trial, scored: Sequence[Trial], direction: Direction) -> float:
    if trial.score is None:
        return 0.0
    others = [
        other.score for other in scored if other.number != trial.number and other.score is not None
    ]
    if not others:
        return 0.5
    return sum(is_better(trial.score, score, direction) for score in others) / len(others)
