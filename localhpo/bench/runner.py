"""Runs a suite: what is missing in the results, by several processes, kept as it comes.

A unit of work is one study (problem, Creator, seed), or the reference scores of a problem.
Whatever ended before a kill is in the results, and the same command goes on from there.
Processes are started afresh (spawn) with one thread each, and hold the problems and models
that they have opened.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing.connection import wait as wait_for_death

from localhpo.bench import creators, references, simulation
from localhpo.bench.comparison import Selection, select
from localhpo.bench.creators import Backends, Choice
from localhpo.bench.problems import opening
from localhpo.bench.problems.opening import Places
from localhpo.bench.problems.problem import Problem
from localhpo.bench.suites import Suite
from localhpo.errors import LocalHPOError, StudyInterruptedError
from localhpo.llm import offline
from localhpo.store import DatabaseBusyError
from localhpo.store.results import ProblemRow, Results, UnitKey, UnitRow

_Future = Future[ProblemRow | UnitRow]

_WRITE_EVERY_S = 1.0
"""Writing costs tens of milliseconds, however little: a kill loses no more than this."""

ONE_THREAD: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""For the processes: as many as there are cores run side by side."""


@dataclass(frozen=True)
class Plan:
    """What to run."""

    suite: Suite
    creators: tuple[Choice, ...]
    seeds: int
    trials: int
    jobs: int
    places: Places


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    done: int
    total: int
    """Units that were missing when it began."""
    elapsed_s: float
    latest: str
    """What ended last."""


@dataclass(frozen=True)
class Failed:
    """A unit that has no result."""

    what: str
    error: Exception


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
    failed: list[Failed] = field(default_factory=list)


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
    if work.problems or work.units:
        _work_off(work, plan, results, progress)
    rows = {row.problem_digest: row for row in results.problems(plan.suite.problems)}
    by_name = {p.name: rows[p.digest] for p in problems if p.digest in rows}
    have = set(results.keys(plan.suite.problems))
    names = [choice.name for choice in plan.creators]
    chosen = select(plan.suite, names, plan.trials, by_name, [k for k, _ in keys if k in have])
    return chosen, work.failed


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
) -> None:
    before = set(multiprocessing.active_children())
    with offline.environment(ONE_THREAD):
        pool = ProcessPoolExecutor(
            plan.jobs, multiprocessing.get_context("spawn"), initializer=_begin
        )
        try:
            _collect(_submit(work, plan, pool), work, results, progress)
        except BaseException as error:
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            if isinstance(error, KeyboardInterrupt):
                total = len(work.problems) + len(work.units)
                raise StudyInterruptedError(
                    f"the run was interrupted; {total} units were missing when it began"
                ) from None
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            results.add(work.done, work.references)


def _submit(work: _Work, plan: Plan, pool: ProcessPoolExecutor) -> dict[_Future, str]:
    futures: dict[_Future, str] = {}
    for name in work.problems:
        futures[pool.submit(_reference, name, plan.places)] = f"best and median of {name}"
    for key, choice in work.units:
        what = f"{choice.name} on {key.problem}, seed {key.seed}"
        futures[pool.submit(_unit, key, choice, plan.places)] = what
    return futures


def _collect(
    futures: dict[_Future, str],
    work: _Work,
    results: Results,
    progress: Callable[[Progress], None],
) -> None:
    began = written = time.monotonic()
    pending = set(futures)
    while pending:
        ended, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in ended:
            _take(future, futures[future], work)
        done = len(futures) - len(pending)
        latest = futures[next(iter(ended))]
        progress(Progress(done, len(futures), time.monotonic() - began, latest))
        if time.monotonic() - written >= _WRITE_EVERY_S:
            _save(work, results)
            written = time.monotonic()


def _take(future: _Future, what: str, work: _Work) -> None:
    """Keep what a unit came to; one that failed costs no other.

    Raises:
        LocalHPOError: a process died, and nothing more can come.
    """
    from concurrent.futures.process import BrokenProcessPool

    try:
        row = future.result()
    except BrokenProcessPool as error:
        raise LocalHPOError(
            f"a process of the run died (the last unit: {what})",
            hint="it may have run out of memory: try fewer --jobs; what is done is kept",
        ) from error
    except Exception as error:  # noqa: BLE001 - reported at the end, with all others
        work.failed.append(Failed(what, error))
        return
    if isinstance(row, ProblemRow):
        work.references.append(row)
    else:
        work.done.append(row)


def _save(work: _Work, results: Results) -> None:
    """Write what has come; where a shell has the file, it is kept for the next time."""
    with contextlib.suppress(DatabaseBusyError):
        results.add(work.done, work.references)
        work.done.clear()
        work.references.clear()


# In the processes.


def _begin() -> None:
    """Leave Ctrl-C to the main process, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_death([parent.sentinel])
        os._exit(1)


@functools.cache
def _backends() -> Backends:
    return Backends()


_problem = functools.cache(opening.open_problem)


def _reference(name: str, places: Places) -> ProblemRow | UnitRow:
    problem = _problem(name, places)
    known = references.reference(problem)
    return ProblemRow(name, problem.digest, problem.direction, known.best, known.median)


def _unit(key: UnitKey, choice: Choice, places: Places) -> ProblemRow | UnitRow:
    problem = _problem(key.problem, places)
    backend = _backends().of(choice)
    digest = creators.model_digest(choice)
    started = time.perf_counter()
    creator = creators.make(choice, problem.task, backend)
    try:
        trials = simulation.run(problem, creator, seed=key.seed, trials=key.budget)
    finally:
        creator.close()
    return UnitRow(key, digest, time.perf_counter() - started, tuple(trials))
