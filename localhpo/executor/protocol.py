"""The Executor protocol: it runs one trial and reports what happened.

Laws, which `tests/contracts/test_executor_contract.py` runs over every implementation:

- `start` does not block on the trial, and never raises because of the trial itself: a
  command that does not exist is an outcome (`could not start`), not an exception;
- `Run.poll` returns each measurement exactly once, in the order of report, without blocking;
- once `Run.outcome` is not None it never changes, and every measurement can be polled;
- `Run.stop` ends all processes of the trial within the grace period; the outcome
  then has the requested state, unless the trial had ended by itself before;
- no process of the trial runs after its outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from localhpo.task import Task
from localhpo.trial import Config, Failure, Measurement, State, Usage


@dataclass(frozen=True, slots=True)
class Job:
    """One trial, ready to run."""

    task: Task
    number: int
    config: Config
    seed: int
    folder: Path
    """The trial's own folder, empty or left by an interrupted run of the same trial."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment, over the task's own: the devices granted, for instance."""
    memory_mb: float | None = None
    """Limit on the resident memory of the process group."""
    timeout_s: float | None = None
    """Limit on the wall-clock time; None for no limit."""
    grace_s: float = 5.0
    """Seconds between SIGTERM and SIGKILL."""

    @property
    def values(self) -> Config:
        """Everything that the script is given: fixed values and the configuration."""
        return {**self.task.fixed, **self.config}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    state: State
    """complete, pruned, failed or interrupted."""
    values: tuple[float, ...]
    """One for each objective; empty where the run has none."""
    failure: Failure | None
    usage: Usage
    summary: str
    """What happened, for a person and for the Creator: deterministic text."""
    violations: tuple[float, ...] = ()
    """One for each constraint, as in `Trial.violations`."""

    @property
    def value(self) -> float | None:
        """The value of the one objective; None where there is none."""
        return self.values[0] if len(self.values) == 1 else None


class Run(Protocol):
    """A trial that was started."""

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs."""
        ...

    def poll(self) -> Sequence[Measurement]:
        """Return what was reported since the last call."""
        ...

    def stop(self, state: Literal[State.PRUNED, State.INTERRUPTED]) -> None:
        """Ask it to end, as pruned or interrupted. Returns at once; may be called twice."""
        ...


class Executor(Protocol):
    """Runs trials. See the module for the laws."""

    def start(self, job: Job) -> Run:
        """Start the trial.

        Raises:
            ExecutorError: the machine does not let trials be supervised at all.
        """
        ...

    def close(self) -> None:
        """End all runs, as interrupted; kill at once those whose `stop` was called before.

        May be called twice.
        """
        ...
