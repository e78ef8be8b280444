"""The Creator at work beside the loop, the model's server awake for it, answers in hand."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence

from localhpo.creator.protocol import Creator, History
from localhpo.errors import CreatorError
from localhpo.executor.clock import Clock
from localhpo.scheduler.drafts import Drafts
from localhpo.scheduler.worker import Worker
from localhpo.trial import Proposal, Trial, best_trial

_PATIENCE_S = 0.02
"""An engine answers within this, and the free slot need not wait for the loop's next turn."""

_REMEMBERED = 8
"""So many questions make the mean time of one."""


class Proposer:
    """Asks a Creator, one question at a time, and keeps what it answered until it is needed.

    What the Creator raised is raised by `collect`.
    """

    def __init__(self, creator: Creator, worker: Worker, clock: Clock, history: History) -> None:
        """Ask about the task of `history`, whose trials do not matter."""
        self._creator = creator
        self._worker = worker
        self._clock = clock
        self._history = history
        self._busy = False
        self._answer: Sequence[Proposal] | BaseException = ()
        self._best: Trial | None = None  # when it was asked
        self._took_s: deque[float] = deque(maxlen=_REMEMBERED)
        self.drafts = Drafts(history.task.space)
        """Proposals that no trial was made of yet."""

    @property
    def busy(self) -> bool:
        """Whether it is at work, or what came of it was not collected yet."""
        return self._busy

    @property
    def question_s(self) -> float:
        """How long a question takes; 0 before the first."""
        return sum(self._took_s) / len(self._took_s) if self._took_s else 0.0

    def wake(self, wake: Callable[[], None]) -> None:
        """Have the model woken: what it is asked then takes account of what ended meanwhile.

        Only when the worker is not busy; so too `ask`.
        """

        def job() -> Sequence[Proposal]:
            wake()
            return ()

        self._start(job)

    def ask(self, trials: Sequence[Trial], next_number: int, n: int) -> None:
        """Ask for up to `n` proposals beside those in hand.

        Args:
            trials: All trials of the study.
            next_number: The number that the next trial will get.
            n: How many.
        """
        history = dataclasses.replace(
            self._history,
            trials=(*trials, *self.drafts.as_trials(next_number)),
            next_number=next_number + len(self.drafts),
        )
        self._best = best_trial(history.trials, history.task.direction)
        self._start(lambda: self._think(history, n), patience_s=_PATIENCE_S)

    def collect(self) -> list[Proposal]:
        """Put what was answered into `drafts`; return those that gave way to it.

        Raises:
            Exception: what the Creator raised.
        """
        if not self._busy or self._worker.busy:
            return []
        self._busy = False
        answer, self._answer = self._answer, ()
        if isinstance(answer, BaseException):
            raise answer
        return self.drafts.add(answer, self._best)

    def _start(self, job: Callable[[], Sequence[Proposal]], *, patience_s: float = 0.0) -> None:
        def work() -> None:
            try:
                self._answer = job()
            except BaseException as error:  # noqa: BLE001 - raised again by `collect`, by the loop
                self._answer = error

        self._busy = True
        self._worker.start(work, patience_s=patience_s)

    def _think(self, history: History, n: int) -> Sequence[Proposal]:
        began_s = self._clock.monotonic()
        proposals = self._creator.propose(history, n)
        self._took_s.append(self._clock.monotonic() - began_s)
        if not 1 <= len(proposals) <= n:
            raise CreatorError(
                f"{self._creator.name} must make 1 to {n} proposals, made {len(proposals)}"
            )
        return proposals
