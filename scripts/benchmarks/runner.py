"""Runs the studies that have no results yet, in several processes.

A unit of work is one study (problem, Creator, seed), or the reference values of a problem. Results
are stored as they arrive, so a run that was killed continues with the same command. Suites and the
paper's protocol (`agenthpo`) run in this way; they differ in how one study is run.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scripts.benchmarks import creators, digests, pool, simulation
from scripts.benchmarks.comparison import ResultSelection, select_keys
from scripts.benchmarks.creators import CreatorChoice
from scripts.benchmarks.pool import FailedCall, PoolCall, ProgressCallback
from scripts.benchmarks.problems import registry
from scripts.benchmarks.problems.problem import compute_reference
from scripts.benchmarks.problems.registry import DataFolders
from scripts.benchmarks.problems.suites import Suite
from scripts.benchmarks.results import ProblemRow, Results, UnitKey, UnitRow

_WRITE_EVERY_S = 1.0
"""Each write takes tens of milliseconds, so it is not done more often; a kill loses this much."""


@dataclass(frozen=True)
class BenchPlan:
    """Which studies of a suite to run."""

    suite: Suite
    creators: tuple[CreatorChoice, ...]
    seeds: int
    trials: int
    jobs: int
    folders: DataFolders


@dataclass(frozen=True)
class PlannedStudy:
    """A study to run: its key in the results, and the Creator."""

    key: UnitKey
    choice: CreatorChoice


def plan_studies(
    problems: Iterable[tuple[str, str]], choices: Sequence[CreatorChoice], seeds: int, trials: int
) -> list[PlannedStudy]:
    """Return all studies, seed by seed, so that an interrupted run has complete comparisons.

    Args:
        problems: name and digest of each problem.
        choices: the Creators.
        seeds: number of repetitions.
        trials: budget of a study.
    """
    known = list(problems)
    hashes = {choice: digests.compute_digest(choice) for choice in choices}
    return [
        PlannedStudy(UnitKey(name, digest, choice.name, hashes[choice], seed, trials), choice)
        for seed in range(seeds)
        for name, digest in known
        for choice in choices
    ]


def run_missing(
    studies: Sequence[PlannedStudy],
    run_study: Callable[[PlannedStudy], UnitRow],
    results: Results,
    *,
    jobs: int,
    on_progress: ProgressCallback,
    first: Sequence[PoolCall] = (),
    environment: Mapping[str, str] | None = None,
) -> list[FailedCall]:
    """Run the studies that have no results, and store their results; return those that failed.

    Args:
        studies: all studies.
        run_study: runs one, in a process of the pool.
        results: where the results are kept.
        jobs: number of processes.
        on_progress: called after each study.
        first: calls to make before, which return a `ProblemRow`.
        environment: variables for the processes.

    Raises:
        StudyInterruptedError: Ctrl-C; the same command goes on.
        LocalHPOError: a process died.
    """
    have = set(results.keys({study.key.problem for study in studies}))
    calls = [
        *first,
        *(
            PoolCall(_describe(study.key), run_study, (study,))
            for study in studies
            if study.key not in have
        ),
    ]
    if not calls:
        return []
    ended: list[UnitRow | ProblemRow] = []
    written = time.monotonic()

    def save() -> None:
        results.add(
            [row for row in ended if isinstance(row, UnitRow)],
            [row for row in ended if isinstance(row, ProblemRow)],
        )
        ended.clear()

    def on_result(row: UnitRow | ProblemRow) -> None:
        nonlocal written
        ended.append(row)
        if time.monotonic() - written >= _WRITE_EVERY_S:
            save()
            written = time.monotonic()

    try:
        return pool.run_calls(
            calls, jobs=jobs, on_result=on_result, on_progress=on_progress, environment=environment
        )
    finally:
        save()


def _describe(key: UnitKey) -> str:
    return f"{key.creator} on {key.problem}, seed {key.seed}"


def run_suite(
    plan: BenchPlan, results: Results, on_progress: ProgressCallback
) -> tuple[ResultSelection, list[FailedCall]]:
    """Run the missing studies; return all results of the plan, and the calls that failed.

    Raises:
        InputError: a problem, a Creator or the data folder is not there.
        MissingExtraError: a package is not installed.
        StudyInterruptedError: Ctrl-C; the same command goes on.
        LocalHPOError: a process died.
    """
    names = plan.suite.problems
    for choice in plan.creators:
        creators.check_past_studies(choice, ())  # suites have no past studies
    registry.check_requirements(names, plan.folders)
    problems = {name: registry.open_problem(name, plan.folders).digest for name in names}
    studies = plan_studies(problems.items(), plan.creators, plan.seeds, plan.trials)
    known = {row.problem_digest for row in results.problems(names)}
    failed = run_missing(
        studies,
        functools.partial(_run_simulated, plan.folders),
        results,
        jobs=plan.jobs,
        on_progress=on_progress,
        first=[
            PoolCall(f"best and median of {name}", _run_reference, (plan.folders, name))
            for name, digest in problems.items()
            if digest not in known
        ],
    )
    rows = {row.problem_digest: row for row in results.problems(names)}
    have = set(results.keys(names))
    selection = select_keys(
        plan.suite,
        [choice.name for choice in plan.creators],
        plan.trials,
        {name: rows[digest] for name, digest in problems.items() if digest in rows},
        [study.key for study in studies if study.key in have],
    )
    return selection, failed


# Functions that run in the processes of the pool, which keep what they have opened.


_problem = functools.cache(registry.open_problem)


def _run_reference(folders: DataFolders, name: str) -> ProblemRow:
    problem = _problem(name, folders)
    known = compute_reference(problem)
    return ProblemRow(name, problem.digest, problem.direction, known.best, known.median)


def _run_simulated(folders: DataFolders, study: PlannedStudy) -> UnitRow:
    key, choice = study.key, study.choice
    problem = _problem(key.problem, folders)
    backend = creators.process_backends().get(choice)
    digest = digests.compute_model_digest(choice)
    started = time.perf_counter()
    creator = creators.make_creator(choice, problem.task, backend)
    try:
        trials = simulation.run_study(problem, creator, seed=key.seed, trials=key.budget)
    finally:
        creator.close()
    return UnitRow(key, digest, time.perf_counter() - started, tuple(trials))
