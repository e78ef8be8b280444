"""The facts of a study for a prompt, in their final spelling.

`build_facts` derives them from a history; `prompt.render_messages` renders them. Training data of
models is rendered from the same `Facts` by the same templates.

Pure: the same history gives the same facts. Finished trials are ordered worst to best (a
small model reads what matters last), failed ones first; a limit keeps the best ones, a spread
of the rest and the latest failures. Trials are ranked by the first objective.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from localhpo.creator.protocol import History
from localhpo.objective import Direction, best_trial
from localhpo.space import Categorical, Ordinal, Parameter, Space, spell_briefly
from localhpo.task import Task
from localhpo.transfer import RetrievedConfig
from localhpo.trial import COUNTED, State, Trial, count_budgeted

DEFAULT_LIMIT = 30
"""Finished trials that are shown at most."""

MAX_RETRIEVED_SHOWN = 6
"""Configurations of past studies that are shown at most."""

_SUMMARY_CHARACTERS = 300
_WAITING = frozenset({State.QUEUED, State.RUNNING, State.INTERRUPTED})
_REFUSED = frozenset({State.FAILED, State.INFEASIBLE})


@dataclass(frozen=True, slots=True)
class ParameterFact:
    """One hyperparameter as the space declares it."""

    name: str
    kind: str
    """float, int, ordinal or categorical."""
    log: bool
    low: str
    """Canonical text of the lower bound; empty for ordinal and categorical."""
    high: str
    step: str
    """In all its digits; empty where there is none."""
    values: tuple[str, ...]
    """Canonical texts of the choices; empty for float and int."""
    default: str
    """Canonical text; empty where the task names none."""
    help: str
    when: str
    """The condition in words, e.g. `booster is dart or gbtree`; empty for none."""


@dataclass(frozen=True, slots=True)
class TrialFact:
    """One trial of the history."""

    number: int
    state: str
    config: str
    """`Space.text` of its configuration."""
    value: str
    """Value of the first objective: four significant digits, more where the best two need them;
    empty where there is none."""
    quality: int | None
    """0 (worst known) to 9 (best known) by rank among the trials with a value; None without one."""
    cause: str
    """Why it failed; empty otherwise."""
    summary: str
    """The Executor's write-up."""
    other_results: str = ""
    """Values of the other objectives and violated constraints; empty where there are none."""


@dataclass(frozen=True, slots=True)
class RetrievedFact:
    """A configuration that was good in a past study of a similar task."""

    study: str
    config: str
    """`Space.text` of it, in the space of the task at hand."""
    metric: str
    """Metric of that study."""
    value: str
    similarity: str
    """0 to 1, two decimals."""
    reasons: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a prompt may say about a study."""

    task: str
    background: str
    metric: str
    """Name of the first objective, by which trials are ranked."""
    direction: Direction
    parameters: tuple[ParameterFact, ...]
    trials: tuple[TrialFact, ...]
    """Finished trials that are shown, worst to best: failed ones first, then by value."""
    running: tuple[str, ...]
    """Configurations (texts) that run now or wait."""
    best: TrialFact | None
    shown: int
    """How many finished trials are shown, of `finished`."""
    finished: int
    remaining: int | None
    """Trials left in the budget; None where trials do not bound it."""
    fixed: tuple[tuple[str, str], ...] = ()
    """Name and text of what is not tuned, and has one value."""
    other_objectives: tuple[str, ...] = ()
    """Direction and name of each objective after the first: `minimize size`."""
    constraints: tuple[str, ...] = ()
    """`latency_ms <= 200`."""
    retrieved: tuple[RetrievedFact, ...] = ()
    """What was good elsewhere, largest weight first. Only the template `propose` shows it."""


def build_facts(
    history: History, *, limit: int = DEFAULT_LIMIT, retrieved: Sequence[RetrievedConfig] = ()
) -> Facts:
    """Return the facts of a study.

    Args:
        history: of the study.
        limit: finished trials that are shown at most; and retrieved configurations, but no more
            than `MAX_RETRIEVED_SHOWN`.
        retrieved: what was good in past studies, largest weight first.
    """
    task = history.task
    finished = rank_trials(history.trials, task.direction)
    waiting = [trial for trial in history.trials if trial.state in _WAITING]
    best = best_by_first_objective(history)
    describe = _trial_describer(task, [trial for trial in finished if trial.values])
    shown = tuple(describe(trial) for trial in select_trials(finished, limit))
    return Facts(
        task=task.name,
        background=task.background.strip(),
        metric=task.metric,
        direction=task.direction,
        parameters=tuple(describe_parameter(task.space, p) for p in task.space.parameters),
        trials=shown,
        running=tuple(task.space.text(trial.config) for trial in waiting),
        best=None if best is None else describe(best),
        shown=len(shown),
        finished=len(finished),
        remaining=_remaining(history, len(waiting)),
        fixed=tuple((name, spell_briefly(value)) for name, value in task.fixed.items()),
        other_objectives=tuple(f"{one.direction} {one.name}" for one in task.objectives[1:]),
        constraints=tuple(constraint.describe() for constraint in task.constraints),
        retrieved=tuple(
            _describe_retrieved(task.space, one)
            for one in retrieved[: min(MAX_RETRIEVED_SHOWN, limit)]
        ),
    )


def _describe_retrieved(space: Space, retrieved: RetrievedConfig) -> RetrievedFact:
    return RetrievedFact(
        study=retrieved.study,
        config=space.text(retrieved.config),
        metric=retrieved.metric,
        value=f"{retrieved.value:.4g}",
        similarity=f"{retrieved.similarity:.2f}",
        reasons="; ".join(retrieved.reasons),
    )


def best_by_first_objective(history: History) -> Trial | None:
    """Return the best trial by the first objective; a feasible one where there is one."""
    trials = (trial.with_(values=trial.values[:1]) for trial in history.trials)
    best = best_trial(trials, history.task.objectives[:1])
    return None if best is None else next(t for t in history.trials if t.number == best.number)


def rank_trials(trials: Sequence[Trial], direction: Direction) -> list[Trial]:
    """Return the finished trials, worst to best; of equal ones the earlier is better.

    Refused ones (failed, infeasible) come first, then those that break a constraint, then pruned
    ones: the value of a pruned trial is that of an early step, and no match for that of a
    complete one.
    """
    sign = 1.0 if direction == "maximize" else -1.0

    def sort_key(trial: Trial) -> tuple[int, float, int]:
        tier = _tier(trial)
        return (tier, sign * trial.values[0] if tier else 0.0, trial.number * (-1 if tier else 1))

    finished = COUNTED | {State.INFEASIBLE}
    return sorted((trial for trial in trials if trial.state in finished), key=sort_key)


def _tier(trial: Trial) -> int:
    """Return the group of a trial in the ranking: 0 for those without a value, 3 is best."""
    if trial.state in _REFUSED or not trial.values:
        return 0
    if trial.feasible is False:
        return 1
    return 2 if trial.state is State.PRUNED else 3


def select_trials(trials: Sequence[Trial], limit: int) -> list[Trial]:
    """Return `limit` of the trials, which come ordered worst to best, in that order.

    A quarter are the latest without a value, half of the rest the best, and the others are
    spread evenly over the remaining ranks.
    """
    if len(trials) <= limit:
        return list(trials)
    without_value = [trial for trial in trials if not trial.values]
    with_value = [trial for trial in trials if trial.values]
    failures = min(len(without_value), max(limit // 4, limit - len(with_value)))
    good = min(len(with_value), limit - failures)
    top = (good + 1) // 2
    rest = with_value[: len(with_value) - top]
    by_number = sorted(without_value, key=lambda trial: trial.number)
    latest = by_number[len(without_value) - failures :]
    return [*latest, *_spread(rest, good - top), *with_value[len(with_value) - top :]]


def quality_digit(worse: int, better: int) -> int:
    """Return 0 (worst known) to 9 (best known) from how many trials are worse and better."""
    others = worse + better
    return 9 if others == 0 else min(9, 10 * worse // others)


def describe_parameter(space: Space, parameter: Parameter) -> ParameterFact:
    """Return the facts of one hyperparameter."""
    default = "" if parameter.default is None else parameter.text(parameter.default)
    when = space.condition_text(parameter.name)
    if isinstance(parameter, Categorical | Ordinal):
        return ParameterFact(
            name=parameter.name,
            kind=parameter.kind,
            log=False,
            low="",
            high="",
            step="",
            values=tuple(parameter.text(value) for value in parameter.values),
            default=default,
            help=_one_line(parameter.help),
            when=when,
        )
    return ParameterFact(
        name=parameter.name,
        kind=parameter.kind,
        log=parameter.log,
        low=parameter.text(parameter.low),
        high=parameter.text(parameter.high),
        step="" if parameter.step is None else f"{parameter.step:.15g}",
        values=(),
        default=default,
        help=_one_line(parameter.help),
        when=when,
    )


def value_digits(values: Sequence[float]) -> int:
    """Return how many significant digits tell the best value from the next (4 to 7).

    Args:
        values: worst to best.
    """
    distinct = [value for value in values if value != values[-1]]
    if not distinct:
        return 4
    best, second = values[-1], distinct[-1]
    return next((d for d in range(4, 7) if f"{best:.{d}g}" != f"{second:.{d}g}"), 7)


def _trial_describer(task: Task, ranked: Sequence[Trial]) -> Callable[[Trial], TrialFact]:
    """Return a function from a trial to its fact, given all with a value (worst to best)."""
    digits = value_digits([trial.values[0] for trial in ranked])
    # Trials that are equally good share a quality: that of the first of them.
    keys = [(_tier(trial), trial.values[0]) for trial in ranked]
    equal = Counter(keys)
    worse: dict[tuple[int, float], int] = {}
    for rank, key in enumerate(keys):
        worse.setdefault(key, rank)

    def describe(trial: Trial) -> TrialFact:
        quality = None
        if trial.values and (key := (_tier(trial), trial.values[0])) in worse:
            quality = quality_digit(worse[key], len(ranked) - worse[key] - equal[key])
        return TrialFact(
            number=trial.number,
            state=trial.state.value,
            config=task.space.text(trial.config),
            value=f"{trial.values[0]:.{digits}g}" if trial.values else "",
            quality=quality,
            cause="" if trial.failure is None else trial.failure.cause.value,
            summary=_summary(trial),
            other_results=_other_results(task, trial),
        )

    return describe


def _other_results(task: Task, trial: Trial) -> str:
    """Return the values of the other objectives, and the constraints that the trial breaks."""
    parts = [
        f"{objective.name} {value:.4g}"
        for objective, value in zip(task.objectives[1:], trial.values[1:], strict=False)
    ]
    parts += [
        f"violates {constraint.describe()} by {violation:.4g}"
        for constraint, violation in zip(task.constraints, trial.violations, strict=False)
        if violation > 0.0
    ]
    return ", ".join(parts)


def _summary(trial: Trial) -> str:
    """Return the write-up of a run on one line; of a failed run the error comes first."""
    parts = [trial.failure.message] if trial.failure is not None else []
    if trial.summary and trial.summary not in parts:
        parts.append(trial.summary)
    line = _one_line(" ".join(parts))
    if len(line) <= _SUMMARY_CHARACTERS:
        return line
    return line[: _SUMMARY_CHARACTERS - 3].rstrip() + "..."


def _remaining(history: History, waiting: int) -> int | None:
    trials = history.task.budget.trials
    return None if trials is None else max(0, trials - count_budgeted(history.trials) - waiting)


def _spread(trials: Sequence[Trial], count: int) -> list[Trial]:
    """Return `count` trials at even distances, the first one included."""
    return [trials[index * len(trials) // count] for index in range(count)]


def _one_line(words: str) -> str:
    return " ".join(words.split())
