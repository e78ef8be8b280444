"""A past study, and whether other studies may learn from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from localhpo.objective import Objective
from localhpo.task import Task
from localhpo.transfer.similarity import same_metric
from localhpo.trial import State, Trial

MIN_RANKED_TRIALS = 3
"""Complete, feasible trials from which a study shows what is good: of two, one is always best."""


@dataclass(frozen=True, slots=True)
class PastStudy:
    """A study, as far as others may learn from it."""

    study: str
    """`<task>/<study>`, its name in the store."""
    task: Task
    trials: tuple[Trial, ...]
    """By number, in any state."""
    private: bool = False
    """Whether its owner keeps it out of all learning."""

    @property
    def ranked_trials(self) -> tuple[Trial, ...]:
        """The complete, feasible trials, best first by the first objective; ties by number."""
        sign = 1.0 if self.task.direction == "minimize" else -1.0
        complete = [t for t in self.trials if t.state is State.COMPLETE and t.feasible]
        return tuple(sorted(complete, key=lambda t: (sign * t.values[0], t.number)))


def to_single_objective(past: PastStudy, objective: Objective) -> PastStudy:
    """Return a past study reduced to one objective, so that `Trial.value` is defined.

    That is its own objective of the same metric and direction, else its first one. The task loses
    its constraints; the trials keep their violations, so infeasible ones stay unranked.

    Args:
        past: the study.
        objective: first objective of the task that wants to learn from it.
    """
    if len(past.task.objectives) == 1 and not past.task.constraints:
        return past
    index = _matching_objective(past.task.objectives, objective)
    return dataclasses.replace(
        past,
        task=dataclasses.replace(
            past.task, objectives=(past.task.objectives[index],), constraints=()
        ),
        trials=tuple(
            dataclasses.replace(trial, values=trial.values[index : index + 1])
            for trial in past.trials
        ),
    )


def _matching_objective(objectives: tuple[Objective, ...], wanted: Objective) -> int:
    """Return the index of the objective that is the same as another study's, else 0."""
    for index, one in enumerate(objectives):
        if same_metric(one.name, wanted.name) and one.direction == wanted.direction:
            return index
    return 0


def unusable_reason(past: PastStudy) -> str | None:
    """Return why a study is not learned from; None where it is."""
    if past.private:
        return "it is private"
    ranked = past.ranked_trials
    failed = sum(trial.state is State.FAILED for trial in past.trials)
    infeasible = sum(t.state is State.COMPLETE and t.feasible is False for t in past.trials)
    if not ranked and infeasible:
        return f"none of its trials is feasible: {infeasible} break a constraint"
    if not ranked and failed:
        return f"none of its trials has a value, {failed} failed"
    if len(ranked) < MIN_RANKED_TRIALS:
        counted = "have a value and are feasible" if infeasible else "have a value"
        return f"{len(ranked)} of its trials {counted}, fewer than {MIN_RANKED_TRIALS}"
    best, worst = ranked[0].values[0], ranked[-1].values[0]
    if best == worst:
        return f"{past.task.metric} is {best:g} in all of its trials"
    return None


def split_usable(
    past_studies: Iterable[PastStudy],
) -> tuple[list[PastStudy], list[tuple[PastStudy, str]]]:
    """Return the studies that are learned from, and the others with the reason."""
    usable: list[PastStudy] = []
    unusable: list[tuple[PastStudy, str]] = []
    for past in past_studies:
        reason = unusable_reason(past)
        if reason is None:
            usable.append(past)
        else:
            unusable.append((past, reason))
    return usable, unusable
