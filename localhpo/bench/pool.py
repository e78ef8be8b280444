"""Works off calls in processes, which are started afresh (spawn) and end with this one.

What a call returns is taken as it comes; one that fails costs no other. Each process has one
thread for arithmetic: as many as there are cores run side by side.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_death
from typing import Any

from localhpo.errors import LocalHPOError, StudyInterruptedError
from localhpo.llm import offline

ONE_THREAD: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass(frozen=True)
class Call:
    """A unit of work: a function of a module, and what it is called with."""

    what: str
    """It, in a few words."""
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


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


Tell = Callable[[Progress], None]


def work_off(
    calls: Sequence[Call],
    *,
    jobs: int,
    take: Callable[[Any], None],
    tell: Tell,
    environment: Mapping[str, str] | None = None,
) -> list[Failed]:
    """Make all calls, in order, so many at a time; return those that failed.

    Args:
        calls: what to do.
        jobs: processes.
        take: called with what each call returns.
        tell: called with the progress.
        environment: variables for the processes, besides those that hold them to one thread.

    Raises:
        StudyInterruptedError: Ctrl-C; the same command goes on.
        LocalHPOError: a process died.
    """
    before = set(multiprocessing.active_children())
    with offline.set_environment({**ONE_THREAD, **(environment or {})}):
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_begin)
        try:
            futures = {pool.submit(call.function, *call.arguments): call.what for call in calls}
            return _collect(futures, take, tell)
        except BaseException as error:
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            if isinstance(error, KeyboardInterrupt):
                raise StudyInterruptedError(
                    f"the run was interrupted; {len(calls)} units were missing when it began"
                ) from None
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _collect(
    futures: Mapping[Future[Any], str], take: Callable[[Any], None], tell: Tell
) -> list[Failed]:
    failed: list[Failed] = []
    began = time.monotonic()
    pending = set(futures)
    while pending:
        ended, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in ended:
            error = _error(future, futures[future])
            if error is None:
                take(future.result())
            else:
                failed.append(Failed(futures[future], error))
        latest = futures[next(iter(ended))]
        done = len(futures) - len(pending)
        tell(Progress(done, len(futures), time.monotonic() - began, latest))
    return failed


def _error(future: Future[Any], what: str) -> Exception | None:
    """Return why a call failed, to be reported at the end with all others.

    Raises:
        LocalHPOError: a process died, and nothing more can come.
    """
    from concurrent.futures.process import BrokenProcessPool

    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise LocalHPOError(
            f"a process of the run died (the last unit: {what})",
            hint="it may have run out of memory: try fewer --jobs; what is done is kept",
        ) from error
    if error is not None and not isinstance(error, Exception):
        raise error
    return error


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
