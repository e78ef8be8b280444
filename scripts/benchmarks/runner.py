"""Runs the studies of a suite that have no results yet, in several processes.

A unit of work is one study (problem, Creator, seed), or the reference values of a problem. Results
are stored as they arrive, so a run that was killed continues with the same command. Each process
keeps the problems and models that it has opened.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from scripts.benchmarks import creators, pool, simulation
from scripts.benchmarks.comparison import ResultSelection, select_keys
from scripts.benchmarks.creators import CreatorChoice
from scripts.benchmarks.pool import FailedCall, PoolCall, RunProgress
from scripts.benchmarks.problems import references, registry
from scripts.benchmarks.problems.problem import Problem
from scripts.benchmarks.problems.registry import DataFolders
from scripts.benchmarks.results import ProblemRow, Results, UnitKey, UnitRow
from scripts.benchmarks.suites import Suite

_WRITE_EVERY_S = 1.0
"""Each write takes tens of milliseconds, so it is not done more often; a kill loses this much."""


@dataclass(frozen=True)
class BenchPlan:
    """Which studies to run."""

    suite: Suite
    creators: tuple[CreatorChoice, ...]
    seeds: int
    trials: int
    jobs: int
    folders: DataFolders


@dataclass
class _MissingWork:
    """The missing units of work, and the results of those that ended."""

    problems: list[str]
    """Problems whose reference values are missing."""
    units: list[tuple[UnitKey, CreatorChoice]]
    done: list[UnitRow] = field(default_factory=list)
    """Ended, but not stored yet."""
    references: list[ProblemRow] = field(default_factory=list)
    """Ended, but not stored yet."""


def run_suite(
    plan: BenchPlan, results: Results, progress: Callable[[RunProgress], None]
) -> tuple[ResultSelection, list[FailedCall]]:
    """Run the missing studies; return all results of the plan, and the calls that failed.

    Raises:
        InputError: a problem, a Creator or the data folder is not there.
        MissingExtraError: a package is not installed.
        StudyInterruptedError: Ctrl-C; the same command goes on.
        LocalHPOError: a process died.
    """
    for choice in plan.creators:
        creators.check_past_studies(choice, ())  # suites have no past studies
    registry.check_requirements(plan.suite.problems, plan.folders)
    problems = [registry.open_problem(name, plan.folders) for name in plan.suite.problems]
    keys = _keys(plan, problems)
    known = {row.problem_digest for row in results.problems(plan.suite.problems)}
    have = set(results.keys(plan.suite.problems))
    work = _MissingWork(
        problems=[problem.name for problem in problems if problem.digest not in known],
        units=[(key, choice) for key, choice in keys if key not in have],
    )
    failed = _run_missing(work, plan, results, progress)
    rows = {row.problem_digest: row for row in results.problems(plan.suite.problems)}
    by_name = {p.name: rows[p.digest] for p in problems if p.digest in rows}
    have = set(results.keys(plan.suite.problems))
    names = [choice.name for choice in plan.creators]
    chosen = select_keys(plan.suite, names, plan.trials, by_name, [k for k, _ in keys if k in have])
    return chosen, failed


def _keys(plan: BenchPlan, problems: Sequence[Problem]) -> list[tuple[UnitKey, CreatorChoice]]:
    """Return all units, seed by seed, so that an interrupted run has complete comparisons."""
    digests = {choice: creators.compute_digest(choice) for choice in plan.creators}
    return [
        (
            UnitKey(problem.name, problem.digest, choice.name, digests[choice], seed, plan.trials),
            choice,
        )
        for seed in range(plan.seeds)
        for problem in problems
        for choice in plan.creators
    ]


def _run_missing(
    work: _MissingWork, plan: BenchPlan, results: Results, progress: Callable[[RunProgress], None]
) -> list[FailedCall]:
    calls = list(_calls(work, plan))
    written = time.monotonic()

    def on_result(row: ProblemRow | UnitRow) -> None:
        nonlocal written
        if isinstance(row, ProblemRow):
            work.references.append(row)
        else:
            work.done.append(row)
        if time.monotonic() - written >= _WRITE_EVERY_S:
            _save(work, results)
            written = time.monotonic()

    if not calls:
        return []
    try:
        return pool.run_calls(calls, jobs=plan.jobs, on_result=on_result, on_progress=progress)
    finally:
        _save(work, results)


def _calls(work: _MissingWork, plan: BenchPlan) -> Iterator[PoolCall]:
    for name in work.problems:
        yield PoolCall(f"best and median of {name}", _run_reference, (name, plan.folders))
    for key, choice in work.units:
        what = f"{choice.name} on {key.problem}, seed {key.seed}"
        yield PoolCall(what, _run_unit, (key, choice, plan.folders))


def _save(work: _MissingWork, results: Results) -> None:
    results.add(work.done, work.references)
    work.done.clear()
    work.references.clear()


# Functions that run in the processes of the pool.


_problem = functools.cache(registry.open_problem)


def _run_reference(name: str, folders: DataFolders) -> ProblemRow:
    problem = _problem(name, folders)
    known = references.compute_reference(problem)
    return ProblemRow(name, problem.digest, problem.direction, known.best, known.median)


def _run_unit(key: UnitKey, choice: CreatorChoice, folders: DataFolders) -> UnitRow:
    problem = _problem(key.problem, folders)
    backend = creators.process_backends().get(choice)
    digest = creators.compute_model_digest(choice)
    started = time.perf_counter()
    creator = creators.make_creator(choice, problem.task, backend)
    try:
        trials = simulation.run_study(problem, creator, seed=key.seed, trials=key.budget)
    finally:
        creator.close()
    return UnitRow(key, digest, time.perf_counter() - started, tuple(trials))
