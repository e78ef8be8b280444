"""Computes the results of the experiment from the trials of its studies.

Notation: R runs, T trials. A run counts if every Creator has completed it, so that all comparisons
are paired. Before the first value of a run, means leave the run out and say how many runs they are
over; tests take it as worse than any value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from localhpo.errors import InputError
from localhpo.objective import best_trial
from localhpo.task import Task
from localhpo.trial import Trial, values_of
from scripts.benchmarks import creators, simulation, statistics
from scripts.benchmarks.agenthpo import paper
from scripts.benchmarks.agenthpo.runner import RANDOM, ExperimentPlan, RunKey, Studies
from scripts.benchmarks.agenthpo.subjects import Subject
from scripts.benchmarks.comparison import ProposalStatistics, proposals_record, summarize_proposals
from scripts.benchmarks.creators import CreatorChoice
from scripts.benchmarks.results import UnitKey, UnitRow
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
    found = [_task_result(plan, studies, index) for index in range(len(plan.subjects))]
    tasks = tuple(task for task in found if task.runs)
    if not tasks:
        raise InputError("no task has a run that every creator has completed")
    return ExperimentResult(
        creators=tuple(choice.name for choice in plan.creators),
        trials=plan.trials,
        columns=statistics.report_trials(plan.trials),
        tasks=tasks,
    )


def _task_result(plan: ExperimentPlan, studies: Studies, index: int) -> TaskResult:
    subject = plan.subjects[index]
    runs = tuple(
        run
        for run in range(plan.runs)
        if all(RunKey(index, choice, run) in studies for choice in plan.creators)
    )
    pool = [
        trial
        for run in range(plan.random_runs)
        for trial in studies.get(RunKey(index, RANDOM, run), ())
    ][: plan.best_of]
    human = best_trial(pool, subject.task.objectives)
    return TaskResult(
        subject=subject,
        runs=runs,
        lines=tuple(
            _line(plan, choice, subject, {run: studies[RunKey(index, choice, run)] for run in runs})
            for choice in plan.creators
        ),
        human=None if human is None else human.value,
        human_trials=len(pool),
    )


def _line(
    plan: ExperimentPlan,
    choice: CreatorChoice,
    subject: Subject,
    runs: Mapping[int, Sequence[Trial]],
) -> CreatorResult:
    task, trials = subject.task, [trial for run in runs.values() for trial in run]
    best = [
        statistics.best_so_far([trial.value for trial in run], task.direction, plan.trials)
        for run in runs.values()
    ]
    digest, each = creators.compute_model_digest(choice), 1.0 / max(1, len(runs))
    return CreatorResult(
        creator=choice.name,
        best=np.array(best).reshape(len(runs), plan.trials),
        test=np.array([test_value(run, task) for run in runs.values()]),
        proposals=summarize_proposals(
            [_unit_row(choice, digest, task, *run) for run in runs.items()]
        ),
        prompt_tokens=each * sum(trial.proposal.prompt_tokens for trial in trials),
        completion_tokens=each * sum(trial.proposal.completion_tokens for trial in trials),
        training_s=each * sum(trial.usage.wall_s for trial in trials),
    )


def test_value(trials: Sequence[Trial], task: Task) -> float:
    """Return the test value of a run's best trial; NaN where its script reports none.

    The best trial is chosen by its validation value, such as `val_f1`. Its script also reports
    `test_f1` at its end; the last finite one counts.
    """
    best = best_trial(trials, task.objectives)
    name = f"test_{task.metric.removeprefix('val_')}"
    values = [] if best is None else [value for _, value in values_of(best.measurements, name)]
    return next((value for value in reversed(values) if math.isfinite(value)), math.nan)


def _unit_row(
    choice: CreatorChoice, model_digest: str, task: Task, run: int, trials: Sequence[Trial]
) -> UnitRow:
    seconds = {trial.number: trial.proposal.seconds for trial in trials}
    rows = simulation.to_trial_rows(trials, task.space, seconds)
    wall_s = sum(trial.usage.wall_s for trial in trials) + sum(seconds.values())
    key = UnitKey(task.name, "", choice.name, "", run, len(trials))
    return UnitRow(key, model_digest, wall_s, tuple(rows))


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
