"""History -> facts: what a prompt may say about a study, in its final spelling.

Pure: the same history gives the same facts. Finished trials are ordered worst to best (a
small model reads what matters last), failed ones first; a cap keeps the best ones, a spread
of the rest and the latest failures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from localhpo.creator.facts import Facts, MemoryFact, ParameterFact, TrialFact
from localhpo.creator.protocol import History
from localhpo.experience import Memory
from localhpo.space import Categorical, Ordinal, Parameter, Space, brief
from localhpo.trial import COUNTED, Direction, State, Trial, best_trial, counted

DEFAULT_LIMIT = 30
"""Finished trials that are shown at most."""

MEMORIES = 6
"""Configurations of past studies that are shown at most."""

_SUMMARY_CHARACTERS = 300
_WAITING = frozenset({State.QUEUED, State.RUNNING, State.INTERRUPTED})
_REFUSED = frozenset({State.FAILED, State.INFEASIBLE})


def facts(
    history: History, *, limit: int = DEFAULT_LIMIT, memories: Sequence[Memory] = ()
) -> Facts:
    """Return the facts of a study.

    Args:
        history: of the study.
        limit: finished trials that are shown at most; and as many of the memories, but no more
            than `MEMORIES`.
        memories: what was good in past studies, the weightiest first.
    """
    task = history.task
    finished = ordered(history.trials, task.direction)
    waiting = [trial for trial in history.trials if trial.state in _WAITING]
    best = best_trial(history.trials, task.direction)
    scored = [trial for trial in finished if trial.score is not None]
    describe = _describer(task.space, scored)
    shown = tuple(describe(trial) for trial in select(finished, limit))
    return Facts(
        task=task.name,
        background=task.background.strip(),
        metric=task.metric,
        direction=task.direction,
        parameters=tuple(parameter_fact(task.space, p) for p in task.space.parameters),
        trials=shown,
        running=tuple(task.space.text(trial.config) for trial in waiting),
        best=None if best is None else describe(best),
        shown=len(shown),
        finished=len(finished),
        remaining=_remaining(history, len(waiting)),
        fixed=tuple((name, brief(value)) for name, value in task.fixed.items()),
        memories=tuple(_memory_fact(task.space, m) for m in memories[: min(MEMORIES, limit)]),
    )


def _memory_fact(space: Space, memory: Memory) -> MemoryFact:
    return MemoryFact(
        study=memory.study,
        config=space.text(memory.config),
        metric=memory.metric,
        score=f"{memory.score:.4g}",
        similarity=f"{memory.similarity:.2f}",
        reasons="; ".join(memory.reasons),
    )


def ordered(trials: Sequence[Trial], direction: Direction) -> list[Trial]:
    """Return the finished trials, worst to best; of equal ones the earlier is better.

    Refused ones (failed, infeasible) come first, then pruned ones: the score of a pruned
    trial is that of an early step, and no match for that of a complete one.
    """
    sign = 1.0 if direction == "maximize" else -1.0

    def merit(trial: Trial) -> tuple[int, float, int]:
        if trial.state in _REFUSED or trial.score is None:
            return (0, 0.0, trial.number)
        tier = 1 if trial.state is State.PRUNED else 2
        return (tier, sign * trial.score, -trial.number)

    finished = COUNTED | {State.INFEASIBLE}
    return sorted((trial for trial in trials if trial.state in finished), key=merit)


def select(trials: Sequence[Trial], limit: int) -> list[Trial]:
    """Return `limit` of the trials, which come ordered worst to best, in that order.

    A quarter goes to the latest without a score, half of the rest to the best, and what is
    left to trials spread evenly over the other ranks.
    """
    if len(trials) <= limit:
        return list(trials)
    unscored = [trial for trial in trials if trial.score is None]
    scored = [trial for trial in trials if trial.score is not None]
    failures = min(len(unscored), max(limit // 4, limit - len(scored)))
    good = min(len(scored), limit - failures)
    top = (good + 1) // 2
    rest = scored[: len(scored) - top]
    latest = sorted(unscored, key=lambda trial: trial.number)[len(unscored) - failures :]
    return [*latest, *_spread(rest, good - top), *scored[len(scored) - top :]]


def quality(worse: int, better: int) -> int:
    """Return 0 (worst known) to 9 (best known) from how many trials are worse and better."""
    others = worse + better
    return 9 if others == 0 else min(9, 10 * worse // others)


def parameter_fact(space: Space, parameter: Parameter) -> ParameterFact:
    """Return what a prompt may say about one hyperparameter."""
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


def score_digits(scores: Sequence[float]) -> int:
    """Return how many significant digits tell the best score from the next (4 to 7).

    Args:
        scores: worst to best.
    """
    distinct = [score for score in scores if score != scores[-1]]
    if not distinct:
        return 4
    best, second = scores[-1], distinct[-1]
    return next((d for d in range(4, 7) if f"{best:.{d}g}" != f"{second:.{d}g}"), 7)


def _describer(space: Space, scored: Sequence[Trial]) -> Callable[[Trial], TrialFact]:
    """Return a function from a trial to its fact, given all scored ones (worst to best)."""
    digits = score_digits([trial.score for trial in scored if trial.score is not None])
    keys = [(trial.state, trial.score) for trial in scored]
    equal = Counter(keys)
    worse: dict[tuple[State, float | None], int] = {}
    for place, key in enumerate(keys):
        worse.setdefault(key, place)

    def describe(trial: Trial) -> TrialFact:
        key = (trial.state, trial.score)
        grade = None
        if key in worse:
            grade = quality(worse[key], len(scored) - worse[key] - equal[key])
        return TrialFact(
            number=trial.number,
            state=trial.state.value,
            config=space.text(trial.config),
            score="" if trial.score is None else f"{trial.score:.{digits}g}",
            quality=grade,
            cause="" if trial.failure is None else trial.failure.cause.value,
            summary=_summary(trial),
        )

    return describe


def _summary(trial: Trial) -> str:
    """Return the write-up of a run on one line; of a failed one what went wrong comes first."""
    parts = [trial.failure.message] if trial.failure is not None else []
    if trial.summary and trial.summary not in parts:
        parts.append(trial.summary)
    line = _one_line(" ".join(parts))
    if len(line) <= _SUMMARY_CHARACTERS:
        return line
    return line[: _SUMMARY_CHARACTERS - 3].rstrip() + "..."


def _remaining(history: History, waiting: int) -> int | None:
    trials = history.task.budget.trials
    return None if trials is None else max(0, trials - counted(history.trials) - waiting)


def _spread(trials: Sequence[Trial], count: int) -> list[Trial]:
    """Return `count` trials at even distances, the first one included."""
    return [trials[index * len(trials) // count] for index in range(count)]


def _one_line(words: str) -> str:
    return " ".join(words.split())
