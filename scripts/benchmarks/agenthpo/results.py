"""Computes the results of the experiment from the stored trials of its studies.

Notation: R runs, T trials. A run counts if every Creator has completed it, so that all comparisons
are paired. Before the first value of a run, means leave the run out and say how many runs they are
over; tests take it as worse than any value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from localhpo.errors import InputError
from localhpo.task import Task
from scripts.benchmarks import statistics
from scripts.benchmarks.agenthpo import paper
from scripts.benchmarks.agenthpo.runner import RANDOM, ExperimentPlan, Studies
from scripts.benchmarks.agenthpo.subjects import Subject
from scripts.benchmarks.comparison import ProposalStatistics, proposals_record, summarize_proposals
from scripts.benchmarks.results import TrialRow, UnitRow
from scripts.benchmarks.statistics import Array, PairedTest


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """Statistics of one value of each run."""

    mean: float | None
    """None where no run has a value."""
    deviation: float | None
    """Standard deviation of the sample; None for a single value."""
    runs: int
    """Number of runs that have a value."""


@dataclass(frozen=True)
class CreatorResult:
    """The runs of one Creator on one task."""

    creator: str
    best: Array
    """Best value so far, shape (R, T); NaN before there is one."""
    test: Array
    """Test value of the configuration with the best value, shape (R,); NaN for none."""
    proposals: ProposalStatistics
    prompt_tokens: float
    """Mean per run, as are the next two."""
    completion_tokens: float
    training_s: float


@dataclass(frozen=True, slots=True)
class PairedGap:
    """The first Creator compared with another after some number of trials."""

    ahead: float | None
    """Difference of the means; positive where the first Creator is better."""
    test: PairedTest
    """Wilcoxon's test on the runs, paired by seed."""


@dataclass(frozen=True)
class TaskResult:
    """The results on one task."""

    subject: Subject
    runs: tuple[int, ...]
    lines: tuple[CreatorResult, ...]
    """One for each Creator."""
    human: float | None
    """Best value of random search in `human_trials` trials, the baseline for a human."""
    human_trials: int


@dataclass(frozen=True)
class ExperimentResult:
    """The results on all tasks that have any."""

    creators: tuple[str, ...]
    trials: int
    columns: tuple[int, ...]
    """Numbers of trials at which Creators are compared."""
    tasks: tuple[TaskResult, ...]


def collect(plan: ExperimentPlan, studies: Studies) -> ExperimentResult:
    """Return the results of the studies.

    Raises:
        InputError: no task has a run that every Creator has completed.
    """
    found = [_task_result(plan, studies, name) for name in plan.subjects]
    tasks = tuple(task for task in found if task.runs)
    if not tasks:
        raise InputError("no task has a run that every creator has completed")
    return ExperimentResult(
        creators=tuple(choice.name for choice in plan.creators),
        trials=plan.trials,
        columns=statistics.report_trials(plan.trials),
        tasks=tasks,
    )


def _task_result(plan: ExperimentPlan, studies: Studies, name: str) -> TaskResult:
    subject, creators = plan.subjects[name], [choice.name for choice in plan.creators]
    runs = tuple(
        run
        for run in range(plan.runs)
        if all((name, creator, run) in studies for creator in creators)
    )
    pool = [
        trial
        for run in range(plan.random_runs)
        if (name, RANDOM.name, run) in studies
        for trial in studies[name, RANDOM.name, run].trials
    ][: plan.best_of]
    human = _best_trial(pool, subject.task)
    return TaskResult(
        subject=subject,
        runs=runs,
        lines=tuple(
            _line(creator, subject.task, [studies[name, creator, run] for run in runs], plan.trials)
            for creator in creators
        ),
        human=None if human is None else human.value,
        human_trials=len(pool),
    )


def _line(creator: str, task: Task, runs: Sequence[UnitRow], trials: int) -> CreatorResult:
    best = [
        statistics.best_so_far([trial.value for trial in run.trials], task.direction, trials)
        for run in runs
    ]
    rows, each = [trial for run in runs for trial in run.trials], 1.0 / max(1, len(runs))
    return CreatorResult(
        creator=creator,
        best=np.array(best).reshape(len(runs), trials),
        test=np.array([_test_value(run.trials, task) for run in runs]),
        proposals=summarize_proposals(runs),
        prompt_tokens=each * sum(row.prompt_tokens for row in rows),
        completion_tokens=each * sum(row.completion_tokens for row in rows),
        training_s=each * sum(row.training_s for row in rows),
    )


def _test_value(trials: Sequence[TrialRow], task: Task) -> float:
    """Return the test value of the trial with the best validation value; NaN where it has none."""
    best = _best_trial(trials, task)
    return math.nan if best is None or best.test is None else best.test


def _best_trial(trials: Sequence[TrialRow], task: Task) -> TrialRow | None:
    """Return the best complete trial, the earliest of equal ones; None where there is none."""
    sign = 1.0 if task.direction == "minimize" else -1.0
    complete = [
        (sign * t.value, t) for t in trials if t.state == "complete" and t.value is not None
    ]
    return min(complete, key=lambda pair: pair[0], default=(0.0, None))[1]


def describe_runs(values: Array) -> RunStatistics:
    """Return mean and standard deviation of the finite values, shape (R,)."""
    finite = values[np.isfinite(values)]
    return RunStatistics(
        mean=float(finite.mean()) if len(finite) else None,
        deviation=float(finite.std(ddof=1)) if len(finite) > 1 else None,
        runs=len(finite),
    )


def compute_gap(task: TaskResult, other: int, trial: int) -> PairedGap:
    """Compare the first Creator with another after trial number `trial` (from 1)."""
    sign = 1.0 if task.subject.task.direction == "minimize" else -1.0
    losses = sign * np.array([task.lines[c].best[:, trial - 1] for c in (0, other)])
    first, second = (describe_runs(row).mean for row in losses)
    none = np.nanmax(losses, initial=0.0) + 1.0
    return PairedGap(
        ahead=None if first is None or second is None else second - first,
        test=statistics.compare_pair(*np.nan_to_num(losses, nan=none)),
    )


def to_record(result: ExperimentResult) -> dict[str, Any]:
    """Return the results as JSON, beside those of the paper."""
    return {
        "paper": {
            "arxiv": "2402.01881",
            "runs": dict(paper.run_counts()),
            "tokens_k": {name: dataclasses.asdict(c) for name, c in paper.costs().items()},
        },
        "creators": list(result.creators),
        "trials": result.trials,
        "columns": list(result.columns),
        "tasks": {task.subject.name: _task_record(result, task) for task in result.tasks},
    }


def _task_record(result: ExperimentResult, task: TaskResult) -> dict[str, Any]:
    reported = task.subject.reported
    return {
        "metric": task.subject.task.metric,
        "direction": task.subject.task.direction,
        "runs": list(task.runs),
        "human": {"best": task.human, "of_trials": task.human_trials},
        "creators": {
            line.creator: {
                "best_so_far": {
                    str(trial): dataclasses.asdict(describe_runs(line.best[:, trial - 1]))
                    for trial in result.columns
                },
                "runs": [[_finite(value) for value in row] for row in line.best.tolist()],
                "test": dataclasses.asdict(describe_runs(line.test)),
                "prompt_tokens": line.prompt_tokens,
                "completion_tokens": line.completion_tokens,
                "training_s": line.training_s,
                "proposals": proposals_record(line.proposals),
                "conduct": proposals_record(line.proposals),  # the name in version 0.1.0
            }
            for line in task.lines
        },
        f"{result.creators[0]} against": {
            line.creator: {
                str(trial): _gap_record(compute_gap(task, c, trial)) for trial in result.columns
            }
            for c, line in enumerate(task.lines[1:], start=1)
        },
        "paper": None if reported is None else dataclasses.asdict(reported),
    }


def _gap_record(gap: PairedGap) -> dict[str, Any]:
    record = dataclasses.asdict(gap)
    return {**record, "duel": record["test"]}  # "duel" is the name in version 0.1.0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
