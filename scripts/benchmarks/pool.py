"""Makes calls in a pool of new processes (spawn), which end when this process ends.

Results are handed over as they arrive; a call that fails does not stop the others. Each process
uses one thread for arithmetic, so as many processes as there are cores can run.
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
class PoolCall:
    """A call: a function of a module, and its arguments."""

    what: str
    """Description in a few words, for progress and errors."""
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Progress of a run."""

    done: int
    total: int
    """Calls to make."""
    elapsed_s: float
    latest: str
    """Description of the call that ended last."""


@dataclass(frozen=True)
class FailedCall:
    """A call that failed."""

    what: str
    error: Exception


ProgressCallback = Callable[[RunProgress], None]


def run_calls(
    calls: Sequence[PoolCall],
    *,
    jobs: int,
    on_result: Callable[[Any], None],
    on_progress: ProgressCallback,
    environment: Mapping[str, str] | None = None,
) -> list[FailedCall]:
    """Make all calls in order, `jobs` at a time; return those that failed.

    Args:
        calls: the calls to make.
        jobs: number of processes.
        on_result: called with the result of each call.
        on_progress: called with the progress after each call.
        environment: variables for the processes, beside those that limit them to one thread.

    Raises:
        StudyInterruptedError: Ctrl-C; the same command goes on.
        LocalHPOError: a process died.
    """
    before = set(multiprocessing.active_children())
    with offline.set_environment({**ONE_THREAD, **(environment or {})}):
        pool = ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn"), initializer=_prepare_process
        )
        try:
            futures = {pool.submit(call.function, *call.arguments): call.what for call in calls}
            return _collect(futures, on_result, on_progress)
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
    futures: Mapping[Future[Any], str],
    on_result: Callable[[Any], None],
    on_progress: ProgressCallback,
) -> list[FailedCall]:
    failed: list[FailedCall] = []
    began = time.monotonic()
    pending = set(futures)
    while pending:
        ended, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in ended:
            error = _error(future, futures[future])
            if error is None:
                on_result(future.result())
            else:
                failed.append(FailedCall(futures[future], error))
        latest = futures[next(iter(ended))]
        done = len(futures) - len(pending)
        on_progress(RunProgress(done, len(futures), time.monotonic() - began, latest))
    return failed


def _error(future: Future[Any], what: str) -> Exception | None:
    """Return the error of a call that failed, to be reported at the end; None for a success.

    Raises:
        LocalHPOError: a process died, so the pool is broken.
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


# Functions that run in the processes of the pool.


def _prepare_process() -> None:
    """Ignore Ctrl-C, which the main process handles, and end when the main process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_death([parent.sentinel])
        os._exit(1)
