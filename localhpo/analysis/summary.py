"""The facts of a study: what was best, what it cost, who proposed it, what failed.

`summarize` is the one source of the terminal's summary, the Markdown report and `--json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from localhpo.analysis import refusals
from localhpo.analysis.accounting import Accounts, accounts
from localhpo.analysis.progress import incumbent
from localhpo.analysis.sharing import Sharing, sharing
from localhpo.store.records import Event
from localhpo.task import Task
from localhpo.trial import Direction, State, Trial, best_trial, counted


@dataclass(frozen=True, slots=True)
class OriginShare:
    """The trials that one origin proposed."""

    origin: str
    """`model`, `engine:tpe`, `default`, `user`, ..."""
    trials: int
    share: float
    """Of all trials of the study, 0 to 1."""
    complete: int
    best: float | None
    """Best score among its complete trials."""


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """The trials that failed of one cause, or were refused before they ran."""

    cause: str
    trials: tuple[int, ...]
    message: str
    """What the first of them said, or why it was refused."""
    stderr_tail: str
    """Last lines of its standard error."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the record says about proposals, e.g. that an engine stood in."""

    text: str
    trials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a study took."""

    elapsed_s: float | None
    """Wall clock over all runs, where it is known: of tuning, and of loading the model."""
    trial_s: float
    """Wall clock of all trials, added up: parallel trials count each."""
    proposal_s: float
    """Spent on proposals."""
    cpu_s: float | None
    """Processor time of the trials, where it was measured."""
    prompt_tokens: int
    completion_tokens: int
    peak_memory_mb: float | None
    """Of the largest trial."""
    peak_gpu_memory_mb: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that a reader of a study is told."""

    study: str
    """`task/study`."""
    task: Task
    counted: int
    """Trials that count against the budget."""
    states: Mapping[State, int]
    """How many trials are in each state; states without trials are left out."""
    trials: tuple[Trial, ...]
    """By number."""
    best: Trial | None
    incumbent: tuple[tuple[int, float], ...]
    """(number, best score so far) of each complete trial."""
    origins: tuple[OriginShare, ...]
    failures: tuple[FailureGroup, ...]
    notes: tuple[Note, ...]
    cost: Cost
    accounts: Accounts
    sharing: Sharing | None
    """None where trials and the model had no memory to share."""

    @property
    def budget(self) -> int | None:
        """Trials of the task's budget; None where there is none, or a command went beyond it."""
        budget = self.task.budget.trials
        return None if budget is None or budget < self.counted else budget


def summarize(
    task: Task,
    study: str,
    trials: Iterable[Trial],
    *,
    elapsed_s: float | None = None,
    events: Iterable[Event] = (),
) -> Summary:
    """Return the facts of a study called `study` (`task/name`) that was tuned for `elapsed_s`."""
    ordered, events = tuple(sorted(trials, key=lambda t: t.number)), tuple(events)
    books = accounts(ordered, events)
    if elapsed_s is not None:
        elapsed_s += books.waited_s.get("loading", 0.0)
    return Summary(
        study=study,
        task=task,
        counted=counted(ordered),
        states={s: n for s in State if (n := sum(t.state is s for t in ordered))},
        trials=ordered,
        best=best_trial(ordered, task.direction),
        incumbent=tuple(incumbent(ordered, task.direction)),
        origins=tuple(origins(ordered, task.direction)),
        failures=tuple(failures(ordered)),
        notes=tuple(notes(ordered)),
        cost=cost(ordered, elapsed_s),
        accounts=books,
        sharing=sharing(events),
    )


def origins(trials: Sequence[Trial], direction: Direction) -> list[OriginShare]:
    """Return the share of each origin, the largest first."""
    counts = Counter(t.proposal.origin for t in trials)
    return [
        _origin_share(origin, [t for t in trials if t.proposal.origin == origin], direction, trials)
        for origin, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _origin_share(
    origin: str, own: Sequence[Trial], direction: Direction, trials: Sequence[Trial]
) -> OriginShare:
    best = best_trial(own, direction)
    return OriginShare(
        origin=origin,
        trials=len(own),
        share=len(own) / len(trials),
        complete=sum(t.state is State.COMPLETE for t in own),
        best=None if best is None else best.score,
    )


def failures(trials: Sequence[Trial]) -> list[FailureGroup]:
    """Return the causes of failure, the most frequent first.

    Trials that were refused before they ran are listed as well: their cause is `infeasible`.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if cause := refusals.cause(trial):
            groups.setdefault(cause, []).append(trial)
    return [
        _failure_group(cause, own)
        for cause, own in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _failure_group(cause: str, own: Sequence[Trial]) -> FailureGroup:
    return FailureGroup(
        cause=cause,
        trials=tuple(t.number for t in own),
        message=refusals.message(own[0]),
        stderr_tail=refusals.last_lines(own[0]),
    )


def notes(trials: Sequence[Trial]) -> list[Note]:
    """Return what the proposals' notes say, each text once, with its trials."""
    groups: dict[str, list[int]] = {}
    for trial in trials:
        if trial.proposal.note:
            groups.setdefault(trial.proposal.note, []).append(trial.number)
    return [Note(text, tuple(numbers)) for text, numbers in groups.items()]


def cost(trials: Sequence[Trial], elapsed_s: float | None = None) -> Cost:
    """Return what the trials and their proposals took."""
    return Cost(
        elapsed_s=elapsed_s,
        trial_s=sum(t.usage.wall_s for t in trials),
        proposal_s=sum(t.proposal.seconds for t in trials),
        cpu_s=_total([t.usage.cpu_s for t in trials]),
        prompt_tokens=sum(t.proposal.prompt_tokens for t in trials),
        completion_tokens=sum(t.proposal.completion_tokens for t in trials),
        peak_memory_mb=_largest([t.usage.peak_memory_mb for t in trials]),
        peak_gpu_memory_mb=_largest([t.usage.peak_gpu_memory_mb for t in trials]),
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _total(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return sum(known) if known else None


def _largest(values: Sequence[float | None]) -> float | None:
    return max(_known(values), default=None)
