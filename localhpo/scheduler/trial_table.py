"""The trials of a study in memory; each change is recorded before it counts.

A study that is killed at any moment can be continued. A trial is recorded as queued, under the
next number, before anything else happens to it. It is recorded as running before it is started,
and its end is recorded once. A trial that is still recorded as running when a study is opened was
cut off: it becomes interrupted, and runs again under its own number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from localhpo.executor.clock import Clock
from localhpo.executor.protocol import Outcome
from localhpo.trial import Measurement, Proposal, State, Trial, Usage, count_budgeted


class Recorder(Protocol):
    """Stores what happens in a study; `store.StudyWriter` is one."""

    def write_trial(self, trial: Trial) -> None:
        """Store the trial durably, in place of what was stored under its number."""
        ...

    def write_measurements(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Append to what a running trial reported."""
        ...

    def write_event(
        self,
        kind: str,
        message: str,
        trial: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Store an event."""
        ...

    def flush(self, *, wait_s: float = 0.0) -> bool:
        """Make everything visible to readers; False if that has to wait."""
        ...


class TrialTable:
    """All trials of one study. They are changed only here."""

    def __init__(
        self, trials: Sequence[Trial], *, recorder: Recorder, clock: Clock, seed: int
    ) -> None:
        """Start with the trials of earlier runs; `seed` is the study's."""
        self._trials = {trial.number: trial for trial in sorted(trials, key=lambda t: t.number)}
        self.recorder = recorder
        self._clock = clock
        self.seed = seed
        self.trials = tuple(self._trials.values())
        """All trials, by number; replaced as a whole, since the Creator's thread reads it too."""
        # Caches: read in every turn of the loop, changed in few.
        self._counted: int | None = None
        self._waiting: list[Trial] | None = None

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    @property
    def next_number(self) -> int:
        """The number of the next trial."""
        return max(self._trials, default=-1) + 1

    @property
    def counted(self) -> int:
        """Number of trials that count against the budget."""
        if self._counted is None:
            self._counted = count_budgeted(self.trials)
        return self._counted

    @property
    def waiting(self) -> list[Trial]:
        """Trials to run, in order: enqueued by the user, interrupted, proposed by the Creator."""
        if self._waiting is None:
            states = (State.QUEUED, State.INTERRUPTED)
            waiting = [t for t in self._trials.values() if t.state in states]
            self._waiting = sorted(waiting, key=lambda t: (_priority(t), t.number))
        return list(self._waiting)

    def recover(self) -> list[Trial]:
        """Mark trials that an earlier run left running as interrupted, and return them."""
        cut_off = [t for t in self.trials if t.state is State.RUNNING]
        return [self._put(trial.to(State.INTERRUPTED)) for trial in cut_off]

    def queue(self, proposal: Proposal) -> Trial:
        """Add a trial of this proposal, under the next number."""
        number = self.next_number
        return self._put(
            Trial(
                number=number,
                state=State.QUEUED,
                proposal=proposal,
                seed=trial_seed(self.seed, number),
                queued_at=self._clock.time(),
            )
        )

    def mark_infeasible(self, trial: Trial, reason: str) -> Trial:
        """Record that a queued trial must not run, and why."""
        return self._put(trial.to(State.INFEASIBLE, summary=reason, finished_at=self._clock.time()))

    def start(self, trial: Trial) -> Trial:
        """Record that a waiting trial runs; what an interrupted run of it left is cleared."""
        again = trial.state is State.INTERRUPTED
        return self._put(
            trial.to(
                State.RUNNING,
                restarts=trial.restarts + again,
                values=(),
                violations=(),
                measurements=(),
                failure=None,
                usage=Usage(),
                summary="",
                started_at=self._clock.time(),
                finished_at=None,
            )
        )

    def add_measurements(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Append what a running trial reported."""
        self.recorder.write_measurements(number, measurements)
        trial = self._trials[number]
        self._replace(trial.with_(measurements=trial.measurements + tuple(measurements)))

    def end(self, number: int, outcome: Outcome) -> Trial:
        """Record how a running trial ended."""
        return self._put(
            self._trials[number].to(
                outcome.state,
                values=outcome.values,
                violations=outcome.violations,
                failure=outcome.failure,
                usage=outcome.usage,
                summary=outcome.summary,
                finished_at=self._clock.time(),
            )
        )

    def set_user_attrs(self, number: int, user_attrs: Mapping[str, Any]) -> Trial:
        """Replace the user's own attributes of a trial."""
        return self._put(self._trials[number].with_(user_attrs=dict(user_attrs)))

    def _put(self, trial: Trial) -> Trial:
        self.recorder.write_trial(trial)
        self._replace(trial)
        self._counted = self._waiting = None
        return trial

    def _replace(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        self.trials = tuple(self._trials.values())


def trial_seed(study_seed: int, number: int) -> int:
    """Return the seed of a trial: below 2**31, the same on every machine."""
    digest = hashlib.sha256(f"{study_seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _priority(waiting: Trial) -> int:
    """Return the rank of a trial among those that wait; the lowest runs first."""
    if waiting.state is State.INTERRUPTED:
        return 1
    return 0 if waiting.proposal.origin.uses("user") else 2
