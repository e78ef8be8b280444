"""The runs of an executor that have not ended, and how it ends them."""

from __future__ import annotations

from typing import Protocol

from localhpo.errors import ExecutorError
from localhpo.executor.protocol import Run
from localhpo.trial import State


class StoppableRun(Run, Protocol):
    """A run that an executor can stop, kill and wait for."""

    @property
    def has_ended(self) -> bool:
        """Whether the outcome is known."""
        ...

    @property
    def stop_requested(self) -> bool:
        """Whether it was asked to end."""
        ...

    def kill(self) -> None:
        """End it at once, without waiting."""
        ...

    def wait(self) -> None:
        """Wait until it has ended, once it was stopped or killed."""
        ...


class ActiveRuns:
    """The runs that have not ended."""

    def __init__(self) -> None:
        """Start without runs."""
        self._runs: list[StoppableRun] = []
        self._closed = False

    def check_open(self) -> None:
        """Refuse to start anything once closed.

        Raises:
            ExecutorError: it is closed.
        """
        if self._closed:
            raise ExecutorError("this executor is closed: no trial can be started")

    def add(self, run: StoppableRun) -> None:
        """Add a run that was started, and drop those that have ended."""
        self._runs = [one for one in self._runs if not one.has_ended]
        self._runs.append(run)

    def close(self) -> None:
        """End all runs, as interrupted, within the grace period. May be called twice.

        A trial that was asked to end before has had its grace period: it is killed at once.
        """
        self._closed = True
        for run in self._runs:
            if run.stop_requested:
                run.kill()
            else:
                run.stop(State.INTERRUPTED)
        for run in self._runs:
            run.wait()
        self._runs = []
