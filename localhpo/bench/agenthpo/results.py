"""From studies to what the paper tabulates: pure functions on trials.

Notation: R runs, T trials. A run counts where every Creator has completed it, so that all
comparisons are paired. Before a run has a score it has no best: means leave it out and say over
how many runs they are; for tests it is worse than any score.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from localhpo.bench import creators, simulation, statistics
from localhpo.bench.agenthpo import paper
from localhpo.bench.agenthpo.runner import RANDOM, Plan, Studies, Unit
from localhpo.bench.agenthpo.subjects import Subject
from localhpo.bench.comparison import Conduct, conduct_of
from localhpo.bench.creators import Choice
from localhpo.bench.statistics import Array, Duel
from localhpo.errors import InputError
from localhpo.store.results import UnitKey, UnitRow
from localhpo.task import Task
from localhpo.trial import Trial, best_trial, values_of


@dataclass(frozen=True, slots=True)
class Spread:
    """Scores of runs."""

    mean: float | None
    """None where no run has a score."""
    deviation: float | None
    """Standard deviation of the sample; None of a single score."""
    runs: int
    """That have a score."""


@dataclass(frozen=True)
class Line:
    """One Creator on one task."""

    creator: str
    best: Array
    """Best so far, shape (R, T); NaN before there is a score."""
    test: Array
    """Held-out score of the configuration with the best score, shape (R,); NaN for none."""
    conduct: Conduct
    prompt_tokens: float
    """Of a run, at the mean; so are the next two."""
    completion_tokens: float
    training_s: float


@dataclass(frozen=True, slots=True)
class Gap:
    """The first Creator against another after so many trials."""

    ahead: float | None
    """Difference of the means; above zero where the first one is better."""
    duel: Duel
    """Wilcoxon's test on the runs, paired by their seeds."""


@dataclass(frozen=True)
class TaskResult:
    """One task."""

    subject: Subject
    runs: tuple[int, ...]
    lines: tuple[Line, ...]
    """By Creator."""
    human: float | None
    """Best score of random search in `human_trials` trials."""
    human_trials: int


@dataclass(frozen=True)
class Result:
    """All tasks that have results."""

    creators: tuple[str, ...]
    trials: int
    columns: tuple[int, ...]
    """Trials after which is compared."""
    tasks: tuple[TaskResult, ...]


def collect(plan: Plan, studies: Studies) -> Result:
    """Return what the studies come to.

    Raises:
        InputError: no task has a run that every Creator has completed.
    """
    found = [_task_result(plan, studies, place) for place in range(len(plan.subjects))]
    tasks = tuple(task for task in found if task.runs)
    if not tasks:
        raise InputError("no task has a run that every creator has completed")
    return Result(
        creators=tuple(choice.name for choice in plan.creators),
        trials=plan.trials,
        columns=statistics.columns_of(plan.trials),
        tasks=tasks,
    )


def _task_result(plan: Plan, studies: Studies, place: int) -> TaskResult:
    subject = plan.subjects[place]
    runs = tuple(
        run
        for run in range(plan.runs)
        if all(Unit(place, choice, run) in studies for choice in plan.creators)
    )
    pool = [
        trial
        for run in range(plan.random_runs)
        for trial in studies.get(Unit(place, RANDOM, run), ())
    ][: plan.best_of]
    human = best_trial(pool, subject.task.direction)
    return TaskResult(
        subject=subject,
        runs=runs,
        lines=tuple(
            _line(plan, choice, subject, {run: studies[Unit(place, choice, run)] for run in runs})
            for choice in plan.creators
        ),
        human=None if human is None else human.score,
        human_trials=len(pool),
    )


def _line(
    plan: Plan, choice: Choice, subject: Subject, runs: Mapping[int, Sequence[Trial]]
) -> Line:
    task, trials = subject.task, [trial for run in runs.values() for trial in run]
    best = [
        statistics.best_so_far([trial.score for trial in run], task.direction, plan.trials)
        for run in runs.values()
    ]
    digest, each = creators.model_digest(choice), 1.0 / max(1, len(runs))
    return Line(
        creator=choice.name,
        best=np.array(best).reshape(len(runs), plan.trials),
        test=np.array([held_out(run, task) for run in runs.values()]),
        conduct=conduct_of([_unit_row(choice, digest, task, *run) for run in runs.items()]),
        prompt_tokens=each * sum(trial.proposal.prompt_tokens for trial in trials),
        completion_tokens=each * sum(trial.proposal.completion_tokens for trial in trials),
        training_s=each * sum(trial.usage.wall_s for trial in trials),
    )


def held_out(trials: Sequence[Trial], task: Task) -> float:
    """Return the held-out score of a run's choice; NaN where its script reports none.

    The choice is the trial with the best score, which is a validation score: `val_f1`. Its
    script reports `test_f1` besides, at its end; the last finite one counts.
    """
    best = best_trial(trials, task.direction)
    name = f"test_{task.metric.removeprefix('val_')}"
    values = [] if best is None else [value for _, value in values_of(best.measurements, name)]
    return next((value for value in reversed(values) if math.isfinite(value)), math.nan)


def _unit_row(
    choice: Choice, model_digest: str, task: Task, run: int, trials: Sequence[Trial]
) -> UnitRow:
    seconds = {trial.number: trial.proposal.seconds for trial in trials}
    rows = simulation.rows_of(trials, task.space, seconds)
    wall_s = sum(trial.usage.wall_s for trial in trials) + sum(seconds.values())
    key = UnitKey(task.name, "", choice.name, "", run, len(trials))
    return UnitRow(key, model_digest, wall_s, tuple(rows))


def spread(values: Array) -> Spread:
    """Return mean and standard deviation of what is there of values, shape (R,)."""
    there = values[np.isfinite(values)]
    return Spread(
        mean=float(there.mean()) if len(there) else None,
        deviation=float(there.std(ddof=1)) if len(there) > 1 else None,
        runs=len(there),
    )


def gap(task: TaskResult, other: int, trial: int) -> Gap:
    """Return how the first Creator stands against another after so many trials, from 1."""
    sign = 1.0 if task.subject.task.direction == "minimize" else -1.0
    losses = sign * np.array([task.lines[c].best[:, trial - 1] for c in (0, other)])
    first, second = (spread(row).mean for row in losses)
    none = np.nanmax(losses, initial=0.0) + 1.0
    return Gap(
        ahead=None if first is None or second is None else second - first,
        duel=statistics.duel(*np.nan_to_num(losses, nan=none)),
    )


def record(result: Result) -> dict[str, Any]:
    """Return a result as JSON, the paper's figures beside it."""
    return {
        "paper": {
            "arxiv": "2402.01881",
            "runs": dict(paper.runs()),
            "tokens_k": {name: dataclasses.asdict(c) for name, c in paper.costs().items()},
        },
        "creators": list(result.creators),
        "trials": result.trials,
        "columns": list(result.columns),
        "tasks": {task.subject.name: _task_record(result, task) for task in result.tasks},
    }


def _task_record(result: Result, task: TaskResult) -> dict[str, Any]:
    reported = task.subject.reported
    return {
        "metric": task.subject.task.metric,
        "direction": task.subject.task.direction,
        "runs": list(task.runs),
        "human": {"best": task.human, "of_trials": task.human_trials},
        "creators": {
            line.creator: {
                "best_so_far": {
                    str(trial): dataclasses.asdict(spread(line.best[:, trial - 1]))
                    for trial in result.columns
                },
                "runs": [[_finite(value) for value in row] for row in line.best.tolist()],
                "test": dataclasses.asdict(spread(line.test)),
                "prompt_tokens": line.prompt_tokens,
                "completion_tokens": line.completion_tokens,
                "training_s": line.training_s,
                "conduct": dataclasses.asdict(line.conduct),
            }
            for line in task.lines
        },
        f"{result.creators[0]} against": {
            line.creator: {
                str(trial): dataclasses.asdict(gap(task, c, trial)) for trial in result.columns
            }
            for c, line in enumerate(task.lines[1:], start=1)
        },
        "paper": None if reported is None else dataclasses.asdict(reported),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
