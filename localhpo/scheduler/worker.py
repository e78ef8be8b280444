"""Runs one job at a time beside the loop: in a thread, or in simulated time.

A large model may take a minute to propose, and another one to start; the loop goes on polling.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread
from typing import Protocol

from localhpo.executor.clock import Clock, SimulatedClock

WorkerJob = Callable[[], None]
"""Stores its result by itself, and does not raise."""


class Worker(Protocol):
    """Runs one job at a time, in the order in which they are given."""

    @property
    def busy(self) -> bool:
        """Whether the last job still runs."""
        ...

    def start(self, job: WorkerJob, *, wait_s: float = 0.0) -> None:
        """Start a job, and wait at most `wait_s` for its end; only when not busy."""
        ...

    def close(self) -> None:
        """Take no further job."""
        ...


class ThreadWorker:
    """Runs jobs in a thread.

    It is always the same thread, for libraries that keep state per thread. The thread does not
    keep the process alive: a user who will not wait for a model can leave.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[WorkerJob, Event] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._done = Event()
        self._done.set()

    @property
    def busy(self) -> bool:
        """Whether the last job still runs."""
        return not self._done.is_set()

    def start(self, job: WorkerJob, *, wait_s: float = 0.0) -> None:
        """Start a job."""
        self._done = Event()
        if self._thread is None:
            self._thread = Thread(target=self._work, name="localhpo-creator", daemon=True)
            self._thread.start()
        self._jobs.put((job, self._done))
        self._done.wait(wait_s)

    def close(self) -> None:
        """Let the thread end after its current job."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                job()
            finally:
                done.set()


class SimulatedWorker:
    """Runs a job at once, and reports to be busy for as long as it took by a simulated clock.

    With a real clock, the loop waits for the job.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._busy_until_s = clock.monotonic()

    @property
    def busy(self) -> bool:
        """Whether the last job still runs."""
        return self._clock.monotonic() < self._busy_until_s

    def start(self, job: WorkerJob, *, wait_s: float = 0.0) -> None:  # noqa: ARG002 - of threads
        """Run a job."""
        if isinstance(self._clock, SimulatedClock):
            self._busy_until_s = self._clock.aside(job)
        else:
            job()

    def close(self) -> None:
        """Do nothing: no job runs between calls."""
