"""A past study, and whether it may teach anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from localhpo.task import Task
from localhpo.trial import State, Trial

LEAST_SCORED = 3
"""Complete trials from which a study shows what is good: of two, one is always the best."""


@dataclass(frozen=True, slots=True)
class Past:
    """A study as far as others may learn from it."""

    study: str
    """`<task>/<study>`, its name in the store."""
    task: Task
    trials: tuple[Trial, ...]
    """By number, in any state."""
    private: bool = False
    """Whether its owner keeps it out of all learning."""

    @property
    def scored(self) -> tuple[Trial, ...]:
        """The complete trials, the best first; of equal ones the earlier."""
        sign = 1.0 if self.task.direction == "minimize" else -1.0
        complete = [t for t in self.trials if t.state is State.COMPLETE and t.score is not None]
        return tuple(sorted(complete, key=lambda t: (sign * (t.score or 0.0), t.number)))


def refusal(past: Past) -> str | None:
    """Return in words why a study does not count; None where it does."""
    if past.private:
        return "it is private"
    scores = [trial.score for trial in past.scored]
    failed = sum(trial.state is State.FAILED for trial in past.trials)
    if not scores and failed:
        return f"none of its trials has a score, {failed} failed"
    if len(scores) < LEAST_SCORED:
        return f"{len(scores)} of its trials have a score, fewer than {LEAST_SCORED}"
    if scores[0] == scores[-1]:
        return f"{past.task.metric} is {scores[0]:g} in all of its trials"
    return None


def usable(pasts: Iterable[Past]) -> tuple[list[Past], list[tuple[Past, str]]]:
    """Return the studies that count, and those that do not with the reason."""
    taken: list[Past] = []
    left: list[tuple[Past, str]] = []
    for past in pasts:
        reason = refusal(past)
        if reason is None:
            taken.append(past)
        else:
            left.append((past, reason))
    return taken, left
