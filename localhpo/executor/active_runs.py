"""What runs here and on a cluster have in common, and how an executor ends its runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from localhpo.errors import ExecutorError
from localhpo.executor.protocol import Outcome
from localhpo.trial import Measurement, State


class ActiveRun(ABC):
    """A run whose measurements and outcome arrive by `_advance`."""

    def __init__(self) -> None:
        """Start without measurements."""
        self._stop_state: State | None = None
        self._outcome: Outcome | None = None
        self._measurements: list[Measurement] = []
        self._unread = 0  # index of the first measurement that poll() has not returned

    @property
    def has_ended(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome is not None

    @property
    def stop_requested(self) -> bool:
        """Whether it was asked to end."""
        return self._stop_state is not None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it waits or runs, or while reports or files are to come.

        Raises:
            ExecutorError: no node of a cluster can run the trial.
        """
        self._advance()
        return self._outcome

    def poll(self) -> Sequence[Measurement]:
        """Return what was reported since the last call.

        Raises:
            ExecutorError: no node of a cluster can run the trial.
        """
        self._advance()
        new = self._measurements[self._unread :]
        self._unread = len(self._measurements)
        return new

    def stop(self, state: Literal[State.PRUNED, State.INTERRUPTED]) -> None:
        """Ask it to end, as pruned or interrupted. The first state asked for holds."""
        if not self.has_ended:
            self._stop_state = self._stop_state or state
            self._ask_to_end(state)

    @abstractmethod
    def kill(self) -> None:
        """End it at once, without waiting."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until it has ended, once it was stopped or killed."""

    @abstractmethod
    def _advance(self) -> None:
        """Take what has arrived, without blocking."""

    @abstractmethod
    def _ask_to_end(self, state: State) -> None:
        """Pass on that it should end in a state; it has not ended."""


class ActiveRuns:
    """The runs that have not ended."""

    def __init__(self) -> None:
        """Start without runs."""
        self._runs: list[ActiveRun] = []
        self._closed = False

    def check_open(self) -> None:
        """Refuse to start anything once closed.

        Raises:
            ExecutorError: it is closed.
        """
        if self._closed:
            raise ExecutorError("this executor is closed: no trial can be started")

    def add(self, run: ActiveRun) -> None:
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
