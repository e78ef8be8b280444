"""The facts of a study: which trials are best, what it cost, who proposed it, what failed.

`summarize_study` is the one source of the terminal's summary, the Markdown report and `--json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from localhpo.analysis.resource_use import (
    MemorySharing,
    ResourceUse,
    sum_known,
    sum_memory_sharing,
    sum_resource_use,
)
from localhpo.objective import Objective, best_trials, is_better
from localhpo.store.records import Event
from localhpo.task import Task
from localhpo.trial import Origin, State, Trial, count_budgeted


@dataclass(frozen=True, slots=True)
class OriginShare:
    """The trials of one origin."""

    origin: Origin
    trials: int
    share: float
    """Share of all trials of the study, from 0 to 1."""
    complete: int
    """How many of them are complete."""
    best: float | None
    """Best feasible value; None where there is none, or where there are several objectives."""
    best_trials: int
    """How many of the study's best trials are of this origin."""


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """The trials that failed for one cause, or were refused before they ran."""

    cause: str
    trials: tuple[int, ...]
    message: str
    """Message of the first of them, or why it was refused."""
    stderr_tail: str
    """Last lines of the first one's standard error."""


@dataclass(frozen=True, slots=True)
class ProposalNote:
    """A note on proposals, for example that an engine replaced the model, and their trials."""

    text: str
    trials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StudyCost:
    """Time, tokens and memory that a study took."""

    elapsed_s: float | None
    """Wall clock over all runs, model loading included; None where it is not known."""
    trial_s: float
    """Wall clock of all trials, added up: parallel trials count each."""
    proposal_s: float
    """Seconds spent on proposals."""
    cpu_s: float | None
    """Processor time of the trials; None where it was not measured."""
    prompt_tokens: int
    completion_tokens: int
    peak_memory_mb: float | None
    """Peak memory of the largest trial."""
    peak_gpu_memory_mb: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that a listing, a summary or a report shows of a study."""

    study: str
    """`task/study`."""
    task: Task
    counted: int
    """Trials that count against the budget."""
    states: Mapping[State, int]
    """How many trials are in each state; states without trials are left out."""
    trials: tuple[Trial, ...]
    """All trials, by number."""
    best_trials: tuple[Trial, ...]
    """The best trial, or with several objectives the Pareto front, of the feasible trials; where
    no trial is feasible, the least infeasible ones."""
    incumbent: tuple[tuple[int, float], ...]
    """(number, best value so far) after each complete trial; empty for several objectives."""
    origins: tuple[OriginShare, ...]
    failures: tuple[FailureGroup, ...]
    notes: tuple[ProposalNote, ...]
    cost: StudyCost
    resource_use: ResourceUse
    memory_sharing: MemorySharing | None
    """None where trials and the model had no memory to share."""

    @property
    def best_trial(self) -> Trial | None:
        """The best trial by a single objective; None where there is none, or several objectives."""
        has_one = len(self.task.objectives) == 1 and len(self.best_trials) == 1
        return self.best_trials[0] if has_one else None

    @property
    def is_feasible(self) -> bool:
        """Whether some trial is complete and meets every constraint."""
        return any(trial.feasible for trial in self.best_trials)

    @property
    def budget(self) -> int | None:
        """Trials of the task's budget; None where there is none, or a command exceeded it."""
        budget = self.task.budget.trials
        return None if budget is None or budget < self.counted else budget


def summarize_study(
    task: Task,
    study: str,
    trials: Iterable[Trial],
    *,
    elapsed_s: float | None = None,
    events: Iterable[Event] = (),
) -> Summary:
    """Return the facts of a study called `study` (`task/name`) that was tuned for `elapsed_s`."""
    ordered, events = tuple(sorted(trials, key=lambda t: t.number)), tuple(events)
    use = sum_resource_use(ordered, events)
    if elapsed_s is not None:
        elapsed_s += use.waited_s.get("loading", 0.0)
    objectives = task.objectives
    return Summary(
        study=study,
        task=task,
        counted=count_budgeted(ordered),
        states={s: n for s in State if (n := sum(t.state is s for t in ordered))},
        trials=ordered,
        best_trials=best_trials(ordered, objectives),
        incumbent=tuple(incumbent_curve(ordered, objectives[0])) if len(objectives) == 1 else (),
        origins=tuple(origin_shares(ordered, objectives)),
        failures=tuple(failure_groups(ordered)),
        notes=tuple(proposal_notes(ordered)),
        cost=study_cost(ordered, elapsed_s),
        resource_use=use,
        memory_sharing=sum_memory_sharing(events),
    )


def origin_shares(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[OriginShare]:
    """Return the share of each origin, the largest first."""
    best = {trial.number for trial in best_trials(trials, objectives)}
    counts = Counter(trial.proposal.origin for trial in trials)
    return [
        _origin_share(origin, trials, objectives, best)
        for origin, _ in sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    ]


def _origin_share(
    origin: Origin, trials: Sequence[Trial], objectives: Sequence[Objective], best: set[int]
) -> OriginShare:
    own = [trial for trial in trials if trial.proposal.origin == origin]
    own_best = best_trials(own, objectives) if len(objectives) == 1 else ()
    return OriginShare(
        origin=origin,
        trials=len(own),
        share=len(own) / len(trials),
        complete=sum(t.state is State.COMPLETE for t in own),
        best=own_best[0].value if own_best and own_best[0].feasible else None,
        best_trials=sum(t.number in best for t in own),
    )


def failure_of(trial: Trial) -> FailureGroup | None:
    """Return why one trial failed, or was refused before it ran; None for any other trial."""
    failure = trial.failure
    if failure is not None:
        numbers = (trial.number,)
        return FailureGroup(failure.cause.value, numbers, failure.message, failure.stderr_tail)
    if trial.state is State.INFEASIBLE:
        return FailureGroup(trial.state.value, (trial.number,), trial.summary, stderr_tail="")
    return None


def failure_groups(trials: Sequence[Trial]) -> list[FailureGroup]:
    """Return the causes of failure, the most frequent first.

    Trials that were refused before they ran are listed too: their cause is `infeasible`.
    """
    groups: dict[str, FailureGroup] = {}
    for one in filter(None, map(failure_of, trials)):
        first = groups.setdefault(one.cause, one)
        if first is not one:
            groups[one.cause] = replace(first, trials=first.trials + one.trials)
    return sorted(groups.values(), key=lambda group: (-len(group.trials), group.cause))


def proposal_notes(trials: Sequence[Trial]) -> list[ProposalNote]:
    """Return the notes of the proposals, each text once, with the numbers of its trials."""
    groups: dict[str, list[int]] = {}
    for trial in trials:
        if trial.proposal.note:
            groups.setdefault(trial.proposal.note, []).append(trial.number)
    return [ProposalNote(text, tuple(numbers)) for text, numbers in groups.items()]


def study_cost(trials: Sequence[Trial], elapsed_s: float | None = None) -> StudyCost:
    """Return what the trials and their proposals took."""
    return StudyCost(
        elapsed_s=elapsed_s,
        trial_s=sum(t.usage.wall_s for t in trials),
        proposal_s=sum(t.proposal.seconds for t in trials),
        cpu_s=sum_known([t.usage.cpu_s for t in trials]),
        prompt_tokens=sum(t.proposal.prompt_tokens for t in trials),
        completion_tokens=sum(t.proposal.completion_tokens for t in trials),
        peak_memory_mb=_largest([t.usage.peak_memory_mb for t in trials]),
        peak_gpu_memory_mb=_largest([t.usage.peak_gpu_memory_mb for t in trials]),
    )


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def incumbent_curve(trials: Iterable[Trial], objective: Objective) -> list[tuple[int, float]]:
    """Return (number, best value so far) after each complete trial, in the order of numbers.

    Only feasible trials count as best; before the first of them there is no point.
    """
    curve: list[tuple[int, float]] = []
    for trial in sorted(trials, key=lambda t: t.number):
        if trial.state is not State.COMPLETE or trial.value is None:
            continue
        best = curve[-1][1] if curve else None
        improves = best is None or is_better(trial.value, best, objective.direction)
        if trial.feasible and improves:
            best = trial.value
        if best is not None:
            curve.append((trial.number, best))
    return curve


def find_improvements(curve: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the points of an incumbent curve at which the best value changed."""
    steps: list[tuple[int, float]] = []
    for number, value in curve:
        if not steps or value != steps[-1][1]:
            steps.append((number, value))
    return steps


def sorted_by_value(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Return the best trials first, then by the first objective; trials without values last.

    Trials that violate a constraint come after all feasible ones. Pruned trials come after all
    complete ones: their values are those of an early step.
    """
    listed = list(trials)
    best = {trial.number for trial in best_trials(listed, objectives)}
    sign = 1.0 if objectives[0].direction == "minimize" else -1.0

    def rank(trial: Trial) -> tuple[bool, bool, bool, bool, float, int]:
        return (
            not trial.values,
            trial.state is not State.COMPLETE,
            trial.number not in best,
            not trial.feasible,
            sign * trial.values[0] if trial.values else 0.0,
            trial.number,
        )

    return sorted(listed, key=rank)
