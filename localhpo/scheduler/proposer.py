"""Runs the Creator beside the loop, and buffers what it proposes."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence

from localhpo.creator.protocol import Creator, History
from localhpo.errors import CreatorError
from localhpo.executor.clock import Clock
from localhpo.scheduler.proposal_buffer import ProposalBuffer, find_reference
from localhpo.scheduler.worker import Worker
from localhpo.trial import Proposal, Trial

_ENGINE_WAIT_S = 0.02
"""An engine answers within this, so that a free slot need not wait for the loop's next turn."""

_MEAN_OVER = 8
"""Number of last calls that the mean duration of a call is taken over."""


class Proposer:
    """Calls a Creator, one call at a time, and buffers its proposals until they are needed.

    What the Creator raised is raised by `collect`.
    """

    def __init__(self, creator: Creator, worker: Worker, clock: Clock, history: History) -> None:
        """Propose for the task of `history`, whose trials are ignored."""
        self._creator = creator
        self._worker = worker
        self._clock = clock
        self._history = history
        self._busy = False
        self._answer: Sequence[Proposal] | BaseException = ()
        self._best: Trial | None = None  # when the Creator was called
        self._took_s: deque[float] = deque(maxlen=_MEAN_OVER)
        self.buffer = ProposalBuffer(history.task.space)
        """Prefetched proposals."""

    @property
    def busy(self) -> bool:
        """Whether a call runs, or its result has not been collected yet."""
        return self._busy

    @property
    def mean_propose_s(self) -> float:
        """Mean duration of a call; 0 before the first."""
        return sum(self._took_s) / len(self._took_s) if self._took_s else 0.0

    def wake_model(self, wake: Callable[[], None]) -> None:
        """Wake the model. It is asked afterwards, with the trials that end meanwhile.

        To be called only while the worker is idle, like `ask`.
        """

        def job() -> Sequence[Proposal]:
            wake()
            return ()

        self._start(job)

    def ask(self, trials: Sequence[Trial], next_number: int, n: int) -> None:
        """Ask for up to `n` proposals beside the buffered ones.

        Args:
            trials: All trials of the study.
            next_number: The number of the next trial.
            n: How many.
        """
        history = dataclasses.replace(
            self._history,
            trials=(*trials, *self.buffer.as_trials(next_number)),
            next_number=next_number + len(self.buffer),
        )
        self._best = find_reference(history.trials, history.task.objectives)
        self._start(lambda: self._propose(history, n), wait_s=_ENGINE_WAIT_S)

    def collect(self) -> list[Proposal]:
        """Move new proposals into the buffer; return the stale ones that they replace.

        Raises:
            Exception: What the Creator raised.
        """
        if not self._busy or self._worker.busy:
            return []
        self._busy = False
        answer, self._answer = self._answer, ()
        if isinstance(answer, BaseException):
            raise answer
        return self.buffer.add(answer, self._best)

    def _start(self, job: Callable[[], Sequence[Proposal]], *, wait_s: float = 0.0) -> None:
        def work() -> None:
            try:
                self._answer = job()
            except BaseException as error:  # noqa: BLE001 - `collect` raises it, in the loop
                self._answer = error

        self._busy = True
        self._worker.start(work, wait_s=wait_s)

    def _propose(self, history: History, n: int) -> Sequence[Proposal]:
        began_s = self._clock.monotonic()
        proposals = self._creator.propose(history, n)
        self._took_s.append(self._clock.monotonic() - began_s)
        if not 1 <= len(proposals) <= n:
            raise CreatorError(
                f"{self._creator.name} must make 1 to {n} proposals, made {len(proposals)}"
            )
        return proposals
