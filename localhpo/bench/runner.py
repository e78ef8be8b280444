"""Runs a suite: what is missing in the results, by several processes, kept as it comes.

A unit of work is one study (problem, Creator, seed), or the reference scores of a problem.
Whatever ended before a kill is in the results, and the same command goes on from there. The
processes hold the problems and models that they have opened.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from localhpo.bench import creators, pool, references, simulation
from localhpo.bench.comparison import Selection, select
from localhpo.bench.creators import Choice
from localhpo.bench.pool import Call, Failed, Progress
from localhpo.bench.problems import opening
from localhpo.bench.problems.opening import Places
from localhpo.bench.problems.problem import Problem
from localhpo.bench.suites import Suite
from localhpo.store.results import ProblemRow, Results, UnitKey, UnitRow

_WRITE_EVERY_S = 1.0
"""Writing costs tens of milliseconds, however little: a kill loses no more than this."""


@dataclass(frozen=True)
class Plan:
    """What to run."""

    suite: Suite
    creators: tuple[Choice, ...]
    seeds: int
    trials: int
    jobs: int
    places: Places


@dataclass
class _Work:
    """What is missing, and what came of it."""

    problems: list[str]
    """Whose reference scores are missing."""
    units: list[tuple[UnitKey, Choice]]
    done: list[UnitRow] = field(default_factory=list)
    """Not in the results yet."""
    references: list[ProblemRow] = field(default_factory=list)
    """Not in the results yet."""


def run(
    plan: Plan, results: Results, progress: Callable[[Progress], None]
) -> tuple[Selection, list[Failed]]:
    """Run what is missing; return the selection of all results of the plan, and what failed.

    Raises:
        InputError: a problem, a Creator or the data folder is not there.
        MissingExtraError: a package is not installed.
        StudyInterruptedError: Ctrl-C; the same command goes on.
        LocalHPOError: a process died.
    """
    for choice in plan.creators:
        creators.check_pasts(choice, ())  # no suite has any
    opening.check(plan.suite.problems, plan.places)
    problems = [opening.open_problem(name, plan.places) for name in plan.suite.problems]
    keys = _keys(plan, problems)
    known = {row.problem_digest for row in results.problems(plan.suite.problems)}
    have = set(results.keys(plan.suite.problems))
    work = _Work(
        problems=[problem.name for problem in problems if problem.digest not in known],
        units=[(key, choice) for key, choice in keys if key not in have],
    )
    failed = _work_off(work, plan, results, progress)
    rows = {row.problem_digest: row for row in results.problems(plan.suite.problems)}
    by_name = {p.name: rows[p.digest] for p in problems if p.digest in rows}
    have = set(results.keys(plan.suite.problems))
    names = [choice.name for choice in plan.creators]
    chosen = select(plan.suite, names, plan.trials, by_name, [k for k, _ in keys if k in have])
    return chosen, failed


def _keys(plan: Plan, problems: Sequence[Problem]) -> list[tuple[UnitKey, Choice]]:
    """Return all units, seed by seed: a run that is cut short has whole comparisons."""
    digests = {choice: creators.digest(choice) for choice in plan.creators}
    return [
        (
            UnitKey(problem.name, problem.digest, choice.name, digests[choice], seed, plan.trials),
            choice,
        )
        for seed in range(plan.seeds)
        for problem in problems
        for choice in plan.creators
    ]


def _work_off(
    work: _Work, plan: Plan, results: Results, progress: Callable[[Progress], None]
) -> list[Failed]:
    calls = list(_calls(work, plan))
    written = time.monotonic()

    def take(row: ProblemRow | UnitRow) -> None:
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
        return pool.work_off(calls, jobs=plan.jobs, take=take, tell=progress)
    finally:
        _save(work, results)


def _calls(work: _Work, plan: Plan) -> Iterator[Call]:
    for name in work.problems:
        yield Call(f"best and median of {name}", _reference, (name, plan.places))
    for key, choice in work.units:
        what = f"{choice.name} on {key.problem}, seed {key.seed}"
        yield Call(what, _unit, (key, choice, plan.places))


def _save(work: _Work, results: Results) -> None:
    results.add(work.done, work.references)
    work.done.clear()
    work.references.clear()


# In the processes.


_problem = functools.cache(opening.open_problem)


def _reference(name: str, places: Places) -> ProblemRow:
    problem = _problem(name, places)
    known = references.reference(problem)
    return ProblemRow(name, problem.digest, problem.direction, known.best, known.median)


def _unit(key: UnitKey, choice: Choice, places: Places) -> UnitRow:
    problem = _problem(key.problem, places)
    backend = creators.backends().of(choice)
    digest = creators.model_digest(choice)
    started = time.perf_counter()
    creator = creators.make(choice, problem.task, backend)
    try:
        trials = simulation.run(problem, creator, seed=key.seed, trials=key.budget)
    finally:
        creator.close()
    return UnitRow(key, digest, time.perf_counter() - started, tuple(trials))
