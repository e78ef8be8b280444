"""What goes on beside the loop: one job at a time, on a thread or in simulated time.

A large model may think for a minute and take another one to wake up; polling goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread
from typing import Protocol

from localhpo.executor.clock import Clock, SimulatedClock

Job = Callable[[], None]
"""Keeps its result, and its errors, to itself."""


class Worker(Protocol):
    """Does one job at a time, in the order in which it is given them."""

    @property
    def busy(self) -> bool:
        """Whether the last job is not done."""
        ...

    def start(self, job: Job, *, patience_s: float = 0.0) -> None:
        """Begin a job, and wait for its end no longer than that; only when not busy."""
        ...

    def close(self) -> None:
        """Take no further job."""
        ...


def worker(clock: Clock, *, concurrent: bool) -> Worker:
    """Return a worker: a thread, or one in the time of the clock."""
    return ThreadWorker() if concurrent else ClockWorker(clock)


class ThreadWorker:
    """Works in a thread.

    The thread is always the same, for libraries that keep state per thread. It does not keep
    the process alive: a user who will not wait for a model can leave.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Job, Event] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._done = Event()
        self._done.set()

    @property
    def busy(self) -> bool:
        """Whether the last job is not done."""
        return not self._done.is_set()

    def start(self, job: Job, *, patience_s: float = 0.0) -> None:
        """Begin a job."""
        self._done = Event()
        if self._thread is None:
            self._thread = Thread(target=self._work, name="localhpo-creator", daemon=True)
            self._thread.start()
        self._jobs.put((job, self._done))
        self._done.wait(patience_s)

    def close(self) -> None:
        """Let the thread end, after the job it is at."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (order := self._jobs.get()) is not None:
            job, done = order
            try:
                job()
            finally:
                done.set()


class ClockWorker:
    """Works at once, and says to be busy for as long as it took by a simulated clock.

    By a real clock the loop waits for it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._busy_until_s = clock.monotonic()

    @property
    def busy(self) -> bool:
        """Whether the last job is not done."""
        return self._clock.monotonic() < self._busy_until_s

    @property
    def busy_until_s(self) -> float:
        """When the last job is done, on the monotonic clock."""
        return self._busy_until_s

    def start(self, job: Job, *, patience_s: float = 0.0) -> None:  # noqa: ARG002 - of threads
        """Do a job."""
        if isinstance(self._clock, SimulatedClock):
            self._busy_until_s = self._clock.aside(job)
        else:
            job()

    def close(self) -> None:
        """Nothing goes on."""
