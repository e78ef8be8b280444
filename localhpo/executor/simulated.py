"""Replays trials that were computed before, in simulated time: for benchmarks and tests.

    clock = SimulatedClock()
    executor = SimulatedExecutor(lambda config, seed: replay_of(config), clock)

The loop, given the same clock, is the real one; a trial of an hour takes no time at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from localhpo.errors import ExecutorError
from localhpo.executor.clock import Clock
from localhpo.executor.diagnosis import Ending, Verdict, determine_outcome
from localhpo.executor.protocol import Job, Outcome
from localhpo.trial import Config, Failure, Measurement, State, Usage


@dataclass(frozen=True, slots=True)
class Replay:
    """A run to replay: its measurements and its end."""

    measurements: Sequence[Measurement]
    """In the order of report; `time` in seconds since the start of the trial."""
    duration_s: float
    """Seconds until it ends by itself."""
    failure: Failure | None = None
    """How it fails; None where it succeeds."""
    usage: Usage = field(default_factory=Usage)
    """What it uses; the wall clock is `duration_s`, or less where it is ended earlier."""


Evaluate = Callable[[Config, int], Replay]
"""Returns the run of a configuration and a seed; the same every time."""


class SimulatedExecutor:
    """Replays runs against a clock."""

    def __init__(self, evaluate: Evaluate, clock: Clock) -> None:
        """Take the runs from `evaluate` and the time from `clock`."""
        self._evaluate = evaluate
        self._clock = clock
        self._runs: list[SimulatedRun] = []
        self._closed = False

    def start(self, job: Job) -> SimulatedRun:
        """Start a trial; calls `evaluate` once.

        Raises:
            ExecutorError: the executor is closed.
        """
        if self._closed:
            raise ExecutorError("this executor is closed: no trial can be started")
        self._runs = [run for run in self._runs if run.outcome is None]
        run = SimulatedRun(job, self._evaluate(job.config, job.seed), self._clock)
        self._runs.append(run)
        return run

    def close(self) -> None:
        """End whatever still runs, as interrupted."""
        self._closed = True
        for run in self._runs:
            run.stop(State.INTERRUPTED)


class SimulatedRun:
    """A trial that is replayed."""

    def __init__(self, job: Job, replay: Replay, clock: Clock) -> None:
        """Start it now."""
        self._job = job
        self._replay = replay
        self._reports = sorted(replay.measurements, key=lambda m: m.time)
        self._clock = clock
        self._started = clock.monotonic()
        self._started_at = clock.time()
        self._reported_before = 0
        self._outcome: Outcome | None = None
        self._ended_s = replay.duration_s

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs."""
        if self._outcome is None:
            limit_s = self._job.timeout_s
            if limit_s is not None and limit_s < min(self._elapsed_s, self._replay.duration_s):
                self._end(limit_s, Verdict.TIMEOUT, f"it ran longer than {limit_s:g} s")
            elif self._elapsed_s >= self._replay.duration_s:
                self._end(self._replay.duration_s, Verdict.EXITED)
        return self._outcome

    def poll(self) -> Sequence[Measurement]:
        """Return what was reported since the last call."""
        ended = self.outcome is not None
        reported = self._reported(self._ended_s if ended else self._elapsed_s)
        new, self._reported_before = reported[self._reported_before :], len(reported)
        return new

    def stop(self, state: Literal[State.PRUNED, State.INTERRUPTED]) -> None:
        """End it now, as pruned or interrupted, unless it has ended."""
        if self.outcome is None:
            self._end(self._elapsed_s, Verdict.STOPPED, stop_state=state)

    @property
    def _elapsed_s(self) -> float:
        return self._clock.monotonic() - self._started

    def _reported(self, elapsed_s: float) -> list[Measurement]:
        return [
            dataclasses.replace(m, time=self._started_at + m.time)
            for m in self._reports
            if m.time <= elapsed_s
        ]

    def _end(
        self, after_s: float, verdict: Verdict, message: str = "", stop_state: State | None = None
    ) -> None:
        self._ended_s = after_s
        ending = Ending(
            verdict,
            message,
            exit_code=0,
            failure=self._replay.failure,
            stop_state=stop_state,
            usage=dataclasses.replace(self._replay.usage, wall_s=after_s),
        )
        self._outcome = determine_outcome(self._job.task, ending, self._reported(after_s))
