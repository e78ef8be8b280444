"""The Creator at work beside the loop: a large model may think for a minute, polling goes on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Thread

from localhpo.creator.protocol import Creator, History
from localhpo.errors import CreatorError
from localhpo.trial import Proposal

_Answer = Future[Sequence[Proposal]]

_PATIENCE_S = 0.02
"""An engine answers within this, and the free slot need not wait for the loop's next turn."""


class Proposer:
    """Asks a Creator, one question at a time, in a thread of its own.

    The thread is always the same, for libraries that keep state per thread. It does not keep
    the process alive: a user who will not wait for a model can leave.
    """

    def __init__(self, creator: Creator, *, concurrent: bool) -> None:
        """With `concurrent=False`, `ask` itself waits for the answer: for simulations."""
        self._creator = creator
        self._concurrent = concurrent
        self._questions: SimpleQueue[tuple[History, int, _Answer] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._answer: _Answer | None = None

    @property
    def busy(self) -> bool:
        """Whether there is a question whose answer was not taken yet."""
        return self._answer is not None

    def ask(self, history: History, n: int) -> None:
        """Ask for up to `n` proposals; only when not busy."""
        self._answer = _Answer()
        if not self._concurrent:
            self._think(history, n, self._answer)
            return
        if self._thread is None:
            self._thread = Thread(target=self._work, name="localhpo-creator", daemon=True)
            self._thread.start()
        self._questions.put((history, n, self._answer))
        wait([self._answer], timeout=_PATIENCE_S)

    def take(self) -> Sequence[Proposal] | None:
        """Return the proposals; None while the Creator thinks, or when it was not asked.

        Raises:
            Exception: what the Creator raised.
        """
        if self._answer is None or not self._answer.done():
            return None
        answer, self._answer = self._answer, None
        return answer.result()

    def close(self) -> None:
        """Let the thread end, after the question it is at."""
        self._questions.put(None)

    def _work(self) -> None:
        while (question := self._questions.get()) is not None:
            self._think(*question)

    def _think(self, history: History, n: int, answer: _Answer) -> None:
        try:
            proposals = self._creator.propose(history, n)
            if not 1 <= len(proposals) <= n:
                raise CreatorError(
                    f"{self._creator.name} must make 1 to {n} proposals, made {len(proposals)}"
                )
            answer.set_result(proposals)
        except BaseException as error:  # noqa: BLE001 - raised again by `take`, in the loop's thread
            answer.set_exception(error)
