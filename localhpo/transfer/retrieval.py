"""Retrieves the best configurations of similar past studies, in the space of another task.

A retrieved configuration weighs as much as its task is similar, as it was good there, and as much
of it as survived the projection (`projection`). Configurations that become equal are one, with
the largest weight.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from localhpo.task import Task
from localhpo.transfer.past_study import PastStudy, to_single_objective, unusable_reason
from localhpo.transfer.projection import project_config
from localhpo.transfer.similarity import MIN_SIMILARITY, Similarity, similarity
from localhpo.trial import Config, Trial

MAX_PER_STUDY = 4
"""Configurations of one study at most; also no more than a fifth of its ranked trials, but one."""

MAX_RETRIEVED = 32
"""Configurations in all: as many as a small model is asked for."""


@dataclass(frozen=True, slots=True)
class RetrievedConfig:
    """A configuration that was good in another task, in the space of the task at hand."""

    config: Config
    """Canonical."""
    transferred: Config
    """The part of it that comes from the other task; the rest is default."""
    weight: float
    """Above 0, up to 1: similarity, times how good it was there, times the share that survived."""
    study: str
    """Name of the past study, or of the model whose meta-data it comes from."""
    trial: int | None
    """Number in that study; None for meta-data."""
    metric: str
    value: float
    similarity: float
    reasons: tuple[str, ...]
    """For the similarity."""


def retrieve_configs(
    task: Task, past_studies: Iterable[PastStudy], *, limit: int = MAX_RETRIEVED
) -> tuple[RetrievedConfig, ...]:
    """Return the retrieved configurations for a task, largest weight first.

    Only the first objective of the task counts. Studies with several objectives are read by the
    same one of theirs, else by their first; trials that break a constraint are not retrieved.

    Args:
        task: the new task.
        past_studies: other studies; unusable and dissimilar ones are skipped.
        limit: configurations at most.
    """
    task = task.single_objective
    known: dict[int, Similarity] = {}  # many studies may be of one task
    candidates: list[RetrievedConfig] = []
    for past in past_studies:
        single = to_single_objective(past, task.objectives[0])
        if id(past.task) not in known:
            known[id(past.task)] = similarity(task, single.task)
        candidates += _retrieve_from(task, single, known[id(past.task)])
    unique: dict[str, RetrievedConfig] = {}
    for one in sorted(candidates, key=lambda c: (-c.weight, c.study, c.trial or 0)):
        unique.setdefault(task.space.key(one.config), one)
    return tuple(unique.values())[:limit]


def _retrieve_from(task: Task, past: PastStudy, similar: Similarity) -> list[RetrievedConfig]:
    if similar.value < MIN_SIMILARITY or unusable_reason(past) is not None:
        return []
    ranked = past.ranked_trials
    top = ranked[: max(1, min(MAX_PER_STUDY, len(ranked) // 5))]
    found = []
    for trial in top:
        projection = project_config(task, past.task, trial.config)
        if projection is None:
            continue
        weight = similar.value * _utility(trial, ranked) * projection.share
        if weight > 0.0:
            found.append(
                RetrievedConfig(
                    config=projection.config,
                    transferred=projection.transferred,
                    weight=weight,
                    study=past.study,
                    trial=trial.number,
                    metric=past.task.metric,
                    value=trial.values[0],
                    similarity=similar.value,
                    reasons=similar.reasons,
                )
            )
    return found


def _utility(trial: Trial, ranked: Sequence[Trial]) -> float:
    """Return how good a trial was in its study: 1 for the best, 0 for the median and worse."""
    values = [one.values[0] for one in ranked]
    best, median = values[0], statistics.median(values)
    if best == median:
        return 1.0 if trial.values[0] == best else 0.0
    return max(0.0, (trial.values[0] - median) / (best - median))
