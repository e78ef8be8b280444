"""The best configurations of similar past tasks, brought into the space of another.

What is carried over is put on the new grid:

- a number outside the new bounds goes to the nearer bound, for what the user allows there comes
  closest to what worked; a category that the new task lacks has no nearest one, and the
  configuration is left out;
- what the past task fixed has the value that it had there;
- a hyperparameter that the past task did not have takes its default, or the middle;
- what is fixed here, and was tuned there, is dropped: the nearer the past value was, the better.

All that makes a configuration say less: its weight falls with the share that was carried over as
it was. Configurations that become equal are one, with the larger weight.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from localhpo.errors import ConfigurationError
from localhpo.experience.past import Past, refusal
from localhpo.experience.similarity import (
    LEAST_SIMILAR,
    Similarity,
    bounds,
    partners,
    similarity,
    spelling,
)
from localhpo.space import Categorical, Float, Int, Ordinal, Parameter
from localhpo.task import Task
from localhpo.trial import Config, Trial, Value

BEST_OF_EACH = 4
"""Configurations of one study at most; also no more than a fifth of its scored trials, at least
one."""

MOST = 32
"""Configurations in all: as many as a small model is asked for."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A configuration that was good elsewhere, in the space of the task at hand."""

    config: Config
    """Canonical."""
    carried: Config
    """The part of it that comes from the past; the rest is default."""
    weight: float
    """Above 0, up to 1: similarity, times how good it was there, times the share carried over."""
    study: str
    """Or what else tells of it."""
    trial: int | None
    """Number in that study; None where it was no trial."""
    metric: str
    score: float
    similarity: float
    reasons: tuple[str, ...]
    """For the similarity."""


def recall(task: Task, pasts: Iterable[Past], *, limit: int = MOST) -> tuple[Memory, ...]:
    """Return the configurations to remember for a task, the weightiest first.

    Args:
        task: the new one.
        pasts: other studies; those that do not count, or are not similar, are passed over.
        limit: configurations at most.
    """
    near: dict[int, Similarity] = {}  # many studies may be of one task
    made: list[Memory] = []
    for past in pasts:
        if id(past.task) not in near:
            near[id(past.task)] = similarity(task, past.task)
        made += _of_one(task, past, near[id(past.task)])
    found: dict[str, Memory] = {}
    for memory in sorted(made, key=lambda m: (-m.weight, m.study, m.trial or 0)):
        found.setdefault(task.space.key(memory.config), memory)
    return tuple(found.values())[:limit]


def _of_one(task: Task, past: Past, near: Similarity) -> list[Memory]:
    if near.value < LEAST_SIMILAR or refusal(past) is not None:
        return []
    scored = past.scored
    top = scored[: max(1, min(BEST_OF_EACH, len(scored) // 5))]
    made = []
    for trial in top:
        brought = carry(task, past.task, trial.config)
        if brought is None or trial.score is None:
            continue
        config, carried, share = brought
        weight = near.value * _merit(trial, scored) * share
        if weight > 0.0:
            made.append(
                Memory(
                    config=config,
                    carried=carried,
                    weight=weight,
                    study=past.study,
                    trial=trial.number,
                    metric=past.task.metric,
                    score=trial.score,
                    similarity=near.value,
                    reasons=near.reasons,
                )
            )
    return made


def _merit(trial: Trial, scored: Sequence[Trial]) -> float:
    """Return how good a trial was in its study: 1 for the best, 0 for the median and worse."""
    scores = [one.score for one in scored if one.score is not None]
    best, middle = scores[0], statistics.median(scores)
    if best == middle:
        return 1.0 if trial.score == best else 0.0
    return max(0.0, ((trial.score or 0.0) - middle) / (best - middle))


def carry(task: Task, source: Task, config: Config) -> tuple[Config, Config, float] | None:
    """Return a configuration of another task in this one; None where it has no place here.

    Returns:
        The canonical configuration, the part of it that was carried over, and the share of what
        one could choose, here or there, that came over as it was.
    """
    space, names = task.space, partners(task.names, source.names)
    values = {**source.fixed, **config}
    given: dict[str, Value] = {}
    exact: set[str] = set()
    for parameter in space:
        value = values.get(names.get(parameter.name, ""))
        if value is None:
            continue
        near = moved(parameter, value)
        if near is None:
            return None
        given[parameter.name], as_it_was = near
        if as_it_was:
            exact.add(parameter.name)
    whole = space.build(
        lambda _, p: given.get(p.name, p.center if p.default is None else p.canonical(p.default))
    )
    chosen = [name for name in whole if space[name].cardinality > 1]
    carried = {name: value for name, value in whole.items() if name in given}
    kept = [float(name in exact) for name in chosen]
    kept += [
        _nearness(source.space[names[name]], config[names[name]], value)
        for name, value in task.fixed.items()
        if names.get(name) in config
    ]
    return whole, carried, statistics.fmean(kept) if kept else 1.0


def _nearness(parameter: Parameter, value: Value, fixed: Value) -> float:
    """Return how near a tuned value was to a fixed one, or to its nearest: 1 at it, 0 far off."""
    near = moved(parameter, fixed)
    if near is None or (isinstance(parameter, Categorical) and near[0] != value):
        return 0.0
    return 1.0 - abs(parameter.to_unit(near[0]) - parameter.to_unit(value))


def moved(parameter: Parameter, value: Value) -> tuple[Value, bool] | None:
    """Return the nearest canonical value and whether it is the same; None where there is none."""
    if isinstance(parameter, Float | Int):
        return _in_range(parameter, value)
    alike = [choice for choice in parameter.values if spelling(choice) == spelling(value)]
    if alike:  # `a` and `A` may both be there
        return max(alike, key=lambda choice: (choice == value, type(choice) is type(value))), True
    if isinstance(parameter, Categorical) or not _is_number(value) or bounds(parameter) is None:
        return None
    return _nearest(parameter, float(value)), False


def _in_range(parameter: Float | Int, value: Value) -> tuple[Value, bool] | None:
    if not _is_number(value):
        return None
    number = float(value)
    within = min(max(number, parameter.low), parameter.high)
    try:
        moved = parameter.canonical(round(within) if isinstance(parameter, Int) else within)
    except ConfigurationError:
        return None
    return moved, within == number


def _nearest(parameter: Ordinal, number: float) -> Value:
    return min(parameter.values, key=lambda choice: abs(float(choice) - number))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
