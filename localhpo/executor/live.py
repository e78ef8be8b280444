"""The runs that an executor has started, and how it ends them."""

from __future__ import annotations

from typing import Protocol

from localhpo.errors import ExecutorError
from localhpo.executor.protocol import Run
from localhpo.trial import State


class Endable(Run, Protocol):
    """A run that can be ended for good."""

    @property
    def over(self) -> bool:
        """Whether the outcome is known."""
        ...

    @property
    def asked(self) -> bool:
        """Whether it was asked to end."""
        ...

    def kill(self) -> None:
        """End it at once, without waiting."""
        ...

    def wait(self) -> None:
        """Wait until it has ended, once it was stopped or killed."""
        ...


class Live:
    """Keeps the runs that have not ended."""

    def __init__(self) -> None:
        """Begin with none."""
        self._runs: list[Endable] = []
        self._closed = False

    def check_open(self) -> None:
        """Refuse to start anything once closed.

        Raises:
            ExecutorError: it is closed.
        """
        if self._closed:
            raise ExecutorError("this executor is closed: no trial can be started")

    def add(self, run: Endable) -> None:
        """Keep a run that was started; those that have ended are let go."""
        self._runs = [one for one in self._runs if not one.over]
        self._runs.append(run)

    def close(self) -> None:
        """End all, as interrupted, within the grace period. May be called twice.

        A trial that was asked to end before has had its time: it is killed at once.
        """
        self._closed = True
        for run in self._runs:
            if run.asked:
                run.kill()
            else:
                run.stop(State.INTERRUPTED)
        for run in self._runs:
            run.wait()
        self._runs = []
