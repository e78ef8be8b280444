"""The driver's side of one trial: a course of questions to its actor, and what is made of them.

A course is a generator. It yields the next question (a method of `NodeTrial` and its arguments)
and is sent the answer; where it yields None nothing is asked for a while. So the order of things
can be read from top to bottom in `RayRun._course`, and yet nothing ever blocks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

from localhpo import __version__
from localhpo.errors import ExecutorError, LocalHPOError
from localhpo.executor.diagnosis import Ending, Verdict, conclude
from localhpo.executor.process import STDERR_LINES, Files
from localhpo.executor.protocol import Job, Outcome
from localhpo.executor.ray.files import Entry, entries, read, write
from localhpo.executor.ray.node import Hello, News
from localhpo.executor.tail import last_lines
from localhpo.trial import Measurement, State, Usage

POLL_S = 0.2
"""Between an answer and the next question while a trial runs."""
SILENCE_S = 30.0
"""Beyond the grace period: an actor that is to end and does not answer is killed."""
PART_BYTES = 1 << 22
"""Of a file, in one question or answer."""
LOGS = ("stdout.txt", "stderr.txt", "localhpo/metrics.jsonl")
"""Files that come back while the trial runs."""

Question = tuple[str, tuple[Any, ...]]
Course = Generator[Question | None, Any, Outcome]


class RayRun:
    """A trial that was given to an actor."""

    def __init__(
        self,
        job: Job,
        actor: Any,
        *,
        check: Callable[[], None],
        may_retry: Callable[[], bool],
    ) -> None:
        """Ask the actor for the first time.

        Args:
            job: the trial; its folder is made ready here.
            actor: of `NodeTrial`; it belongs to this run now.
            check: raises where the actor will never get a place; called while it waits.
            may_retry: called when the node is lost: whether the trial may run again.

        Raises:
            ExecutorError: the trial's folder cannot be written.
        """
        folder = job.task.folder.resolve()  # before it travels
        self._job = dataclasses.replace(job, task=dataclasses.replace(job.task, folder=folder))
        self._files = Files(job.folder)
        self._actor = actor
        self._check = check
        self._may_retry = may_retry
        self._asked: State | None = None
        self._started: float | None = None
        self._ended: Outcome | None = None  # known, while its files still come
        self._outcome: Outcome | None = None
        self._measurements: list[Measurement] = []
        self._unread = 0  # index of the first measurement that poll() has not returned
        self._heard = time.monotonic()
        self._ask_at = 0.0
        with _on_disk(job):
            self._files.clear()
        self._course_of_trial = self._course()
        self._question = next(self._course_of_trial)
        self._answer: Any = self._put(self._question)

    @property
    def over(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome is not None

    @property
    def asked(self) -> bool:
        """Whether it was asked to end."""
        return self._asked is not None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it waits or runs, or while files are still to come.

        Raises:
            ExecutorError: no node can run the trial.
        """
        self._advance()
        return self._outcome

    def poll(self) -> Sequence[Measurement]:
        """Return what was reported since the last call.

        Raises:
            ExecutorError: no node can run the trial.
        """
        self._advance()
        news = self._measurements[self._unread :]
        self._unread = len(self._measurements)
        return news

    def stop(self, state: Literal[State.PRUNED, State.INTERRUPTED]) -> None:
        """Ask it to end; one that has not begun is taken from the queue."""
        if self.over:
            return
        self._asked = self._asked or state
        self._heard = time.monotonic()
        if self._started is None:
            self.give_up()
        else:
            self._actor.stop.remote(state)

    def kill(self) -> None:
        """End it at once; what it left still comes back."""
        if self.over:
            return
        if self._started is None:
            self.give_up()
        else:
            self._actor.kill.remote()

    def give_up(self) -> None:
        """End its actor, and with it whatever it runs."""
        import ray

        ray.kill(self._actor)

    def wait(self) -> None:
        """Wait until it has ended, once it was stopped; an actor that is silent is ended."""
        while self.outcome is None:
            if time.monotonic() > self._heard + self._job.grace_s + SILENCE_S:
                self.give_up()
            time.sleep(0.01)

    # The course of a trial.

    def _course(self) -> Course:
        hello = yield "hello", (str(self._job.task.folder),)
        self._check_node(hello)
        sent = entries(self._files.folder)
        yield from self._send([e for e in sent if not self._is_own(e)])
        self._started = time.monotonic()
        yield "start", (self._job,)
        offsets = dict.fromkeys(LOGS, 0)
        while self._ended is None:
            self._ended = yield from self._hear(offsets)
        yield from self._fetch(sent, offsets)
        yield "leave", ()
        return self._ended

    def _check_node(self, hello: Hello) -> None:
        if hello.version != __version__:
            raise ExecutorError(
                f"node {hello.host} runs LocalHPO {hello.version}, and the driver {__version__}",
                hint="install the same version on all nodes",
            )
        if not hello.has_folder:
            raise ExecutorError(
                f"the folder of the task, {self._job.task.folder}, is not on node {hello.host}",
                hint="mount it there under the same path, or put the script and its data where"
                " all nodes have them and name that folder: [task] cwd",
            )

    def _send(self, files: Sequence[Entry]) -> Generator[Question, Any, None]:
        for entry in files:
            for offset in range(0, max(entry.size, 1), PART_BYTES):
                part = read(self._files.folder, entry.name, offset, PART_BYTES)
                yield "write", (entry, offset, part)

    def _hear(self, offsets: dict[str, int]) -> Generator[Question | None, Any, Outcome | None]:
        news: News = yield "news", (len(self._measurements), dict(offsets))
        self._measurements += news.measurements
        for name, data in news.logs.items():
            self._keep(Entry(name, 0), offsets[name], data)
            offsets[name] += len(data)
        if news.outcome is None and not news.measurements:
            yield None
        return news.outcome

    def _fetch(
        self, sent: Sequence[Entry], offsets: dict[str, int]
    ) -> Generator[Question, Any, None]:
        """Make the folder here what it is there."""
        there: list[Entry] = yield "files", ()
        names = {entry.name for entry in there}
        for entry in sent:
            if entry.name not in names and not self._is_own(entry):
                (self._files.folder / entry.name).unlink(missing_ok=True)
        for entry in there:
            start = offsets.get(entry.name, 0)
            for offset in range(start, max(entry.size, start + 1), PART_BYTES):
                part = b""
                if entry.link is None:
                    part = yield "read", (entry.name, offset, PART_BYTES)
                self._keep(entry, offset, part)

    def _is_own(self, entry: Entry) -> bool:
        """Return whether LocalHPO makes the file anew for each run."""
        return entry.name.startswith(f"{self._files.own.name}/")

    def _keep(self, entry: Entry, offset: int, data: bytes) -> None:
        with _on_disk(self._job):
            write(self._files.folder, entry, offset, data)

    # How questions are put.

    def _put(self, question: Question | None) -> Any:
        if question is None:
            return None
        method, arguments = question
        return getattr(self._actor, method).remote(*arguments)

    def _advance(self) -> None:
        """Take the answer that is there, and put the next question."""
        if self.over or time.monotonic() < self._ask_at:
            return
        try:
            self._step()
        except LocalHPOError as exc:
            self._outcome = self._conclude(Verdict.ABANDONED, str(exc))
            raise
        finally:
            if self.over:
                self.give_up()  # its place is free for the next

    def _step(self) -> None:
        import ray

        answer = None
        if self._answer is not None:
            ready, _ = ray.wait([self._answer], timeout=0)
            if not ready:
                if self._started is None:
                    self._check()
                return
            try:
                answer = ray.get(self._answer)
            except (ray.exceptions.ActorUnavailableError, ray.exceptions.ObjectLostError):
                self._answer = self._put(self._question)  # lost on its way: once more
                return
            except ray.exceptions.RayError as exc:
                self._outcome = self._ended or self._after(exc)
                return
        self._heard = time.monotonic()
        try:
            self._question = self._course_of_trial.send(answer)
        except StopIteration as end:
            self._outcome = end.value
            return
        self._ask_at = 0.0 if self._question else self._heard + POLL_S
        self._answer = self._put(self._question)

    def _after(self, exc: Exception) -> Outcome:
        """Return the outcome of a trial whose actor does not answer any more.

        Raises:
            LocalHPOError: the trial cannot be run at all.
        """
        import ray

        errors = ray.exceptions
        said = _last_line(exc)
        if isinstance(exc, errors.RayTaskError) and isinstance(exc.cause, LocalHPOError):
            raise exc.cause
        if isinstance(exc, errors.OutOfMemoryError):
            return self._conclude(Verdict.MEMORY, "its node ran out of memory, and Ray ended it")
        if getattr(exc, "actor_init_failed", False):
            raise ExecutorError(
                f"trial {self._job.number} cannot be run on its node: {said}",
                hint="the same LocalHPO must be installed on each node",
            ) from exc
        if not isinstance(exc, errors.RayActorError | errors.NodeDiedError):
            raise ExecutorError(f"Ray cannot run trial {self._job.number}: {said}") from exc
        again = not self.asked and self._may_retry()
        message = f"the node was lost: {said}" + ("; it runs again" if again else "")
        return self._conclude(Verdict.NODE_LOST, message, retry=again)

    def _conclude(self, verdict: Verdict, message: str, *, retry: bool = False) -> Outcome:
        wall_s = 0.0 if self._started is None else time.monotonic() - self._started
        ending = Ending(
            verdict,
            message=message,
            asked=self._asked,
            retry=retry,
            usage=Usage(wall_s),
            stderr=last_lines(self._files.stderr, STDERR_LINES),
        )
        return conclude(self._job.task, ending, self._measurements)


@contextlib.contextmanager
def _on_disk(job: Job) -> Generator[None, None, None]:
    try:
        yield
    except OSError as exc:
        raise ExecutorError(
            f"trial {job.number} cannot be kept: {exc}",
            hint=f"free space on the disk and the right to write {job.folder}",
        ) from exc


def _last_line(exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
