"""The trials of a study as they stand, each change recorded before it counts.

What a kill at any moment leaves behind can be continued: a trial is recorded as queued under
the next number before anything else happens to it, as running before it is started, and its
end once. A trial that the record shows as running when a study is taken up was cut off; it
becomes interrupted, and runs again under its own number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from localhpo.executor.clock import Clock
from localhpo.executor.protocol import Outcome
from localhpo.trial import Measurement, Proposal, State, Trial, Usage, counted


class Recorder(Protocol):
    """Keeps what happens; `store.Writer` is one."""

    def trial(self, trial: Trial) -> None:
        """Keep the trial as it is now, in place of what was kept under its number; durable."""
        ...

    def measurements(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Add to what a running trial reported."""
        ...

    def event(
        self,
        kind: str,
        message: str,
        trial: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep an event."""
        ...

    def flush(self, *, wait_s: float = 0.0) -> bool:
        """Bring all that was kept to where readers look; False if that has to wait."""
        ...


class Ledger:
    """All trials of one study; the only one who changes them."""

    def __init__(
        self, trials: Sequence[Trial], *, recorder: Recorder, clock: Clock, seed: int
    ) -> None:
        """Begin with the trials of earlier runs."""
        self._trials = {trial.number: trial for trial in sorted(trials, key=lambda t: t.number)}
        self._recorder = recorder
        self._clock = clock
        self._seed = seed
        # Asked for at every turn of the loop, and changed by few of them.
        self._counted: int | None = None
        self._waiting: list[Trial] | None = None

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, by number."""
        return tuple(self._trials.values())

    @property
    def next_number(self) -> int:
        """The number that the next trial gets."""
        return max(self._trials, default=-1) + 1

    @property
    def counted(self) -> int:
        """Trials that count against the budget."""
        if self._counted is None:
            self._counted = counted(self.trials)
        return self._counted

    @property
    def waiting(self) -> list[Trial]:
        """Trials to be run, in their order: the user's, interrupted ones, the Creator's."""
        if self._waiting is None:
            waits = (State.QUEUED, State.INTERRUPTED)
            waiting = [t for t in self._trials.values() if t.state in waits]
            self._waiting = sorted(waiting, key=lambda t: (_rank(t), t.number))
        return list(self._waiting)

    def take_up(self) -> list[Trial]:
        """Return the trials that were cut off with an earlier run, now interrupted."""
        cut_off = [t for t in self.trials if t.state is State.RUNNING]
        return [self._put(trial.to(State.INTERRUPTED)) for trial in cut_off]

    def queue(self, proposal: Proposal) -> Trial:
        """Give a proposal its number."""
        number = self.next_number
        return self._put(
            Trial(
                number=number,
                state=State.QUEUED,
                proposal=proposal,
                seed=trial_seed(self._seed, number),
                queued_at=self._clock.time(),
            )
        )

    def refuse(self, trial: Trial, reason: str) -> Trial:
        """Set down that a queued trial must not run."""
        return self._put(trial.to(State.INFEASIBLE, summary=reason, finished_at=self._clock.time()))

    def start(self, trial: Trial) -> Trial:
        """Set down that a waiting trial runs; what an interrupted run of it said is dropped."""
        again = trial.state is State.INTERRUPTED
        return self._put(
            trial.to(
                State.RUNNING,
                restarts=trial.restarts + again,
                score=None,
                measurements=(),
                failure=None,
                usage=Usage(),
                summary="",
                started_at=self._clock.time(),
                finished_at=None,
            )
        )

    def measure(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Add what a running trial reported."""
        self._recorder.measurements(number, measurements)
        trial = self._trials[number]
        self._trials[number] = trial.with_(measurements=trial.measurements + tuple(measurements))

    def end(self, number: int, outcome: Outcome) -> Trial:
        """Set down how a running trial ended."""
        return self._put(
            self._trials[number].to(
                outcome.state,
                score=outcome.score,
                failure=outcome.failure,
                usage=outcome.usage,
                summary=outcome.summary,
                finished_at=self._clock.time(),
            )
        )

    def annotate(self, number: int, user_attrs: Mapping[str, Any]) -> Trial:
        """Attach a user's own values to a trial, in place of those it had."""
        return self._put(self._trials[number].with_(user_attrs=dict(user_attrs)))

    def _put(self, trial: Trial) -> Trial:
        self._recorder.trial(trial)
        self._trials[trial.number] = trial
        self._counted = self._waiting = None
        return trial


def trial_seed(study_seed: int, number: int) -> int:
    """Return the seed of a trial: below 2**31, the same on every machine."""
    digest = hashlib.sha256(f"{study_seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _rank(waiting: Trial) -> int:
    if waiting.state is State.INTERRUPTED:
        return 1
    return 0 if waiting.proposal.origin == "user" else 2
