"""The driver's side of one trial: the calls to its actor, and the outcome they lead to.

The calls are made by a generator. It yields the next call (a method of `NodeTrial` and its
arguments) and is sent the result; where it yields None, no call is made for `POLL_S`. So the
protocol can be read from top to bottom in `RayRun._call_actor`, and nothing ever blocks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from localhpo import __version__
from localhpo.errors import ExecutorError, LocalHPOError
from localhpo.executor.active_runs import ActiveRun
from localhpo.executor.diagnosis import Ending, Verdict, determine_outcome
from localhpo.executor.process import STDERR_LINES, TrialFiles
from localhpo.executor.protocol import Job, Outcome
from localhpo.executor.ray.node import (
    ActorNode,
    FileEntry,
    TrialUpdate,
    list_entries,
    read_part,
    write_part,
)
from localhpo.executor.tail import last_lines
from localhpo.trial import State, Usage

POLL_S = 0.2
"""Seconds between two calls while a trial runs."""
SILENCE_S = 30.0
"""Seconds after the grace period until an actor that does not answer is killed."""
PART_BYTES = 1 << 22
"""Bytes of a file in one call or result."""
LOGS = ("stdout.txt", "stderr.txt", "localhpo/metrics.jsonl")
"""Files that are fetched while the trial runs."""

Call = tuple[str, tuple[Any, ...]]
Calls = Generator[Call | None, Any, Outcome]


class RayRun(ActiveRun):
    """A trial that was given to an actor."""

    def __init__(
        self,
        job: Job,
        actor: Any,
        *,
        check: Callable[[], None],
        may_retry: Callable[[], bool],
    ) -> None:
        """Make the first call.

        Args:
            job: the trial; its folder is made ready here.
            actor: of `NodeTrial`; it belongs to this run now.
            check: raises where the actor will never get a place; called while it waits.
            may_retry: called when the node is lost: whether the trial may run again.

        Raises:
            ExecutorError: the trial's folder cannot be written.
        """
        super().__init__()
        folder = job.task.folder.resolve()  # before it travels
        self._job = dataclasses.replace(job, task=dataclasses.replace(job.task, folder=folder))
        self._files = TrialFiles(job.folder)
        self._actor = actor
        self._check = check
        self._may_retry = may_retry
        self._started: float | None = None
        self._ended: Outcome | None = None  # known, while its files still come
        self._answered_at = time.monotonic()
        self._next_call_at = 0.0
        with _on_disk(job):
            self._files.clear()
        self._calls = self._call_actor()
        self._call = next(self._calls)
        self._result: Any = self._make_call(self._call)

    def kill(self) -> None:
        """End it at once; what it left still comes back."""
        if self.has_ended:
            return
        if self._started is None:
            self.kill_actor()
        else:
            self._actor.kill.remote()

    def kill_actor(self) -> None:
        """Kill its actor, and with it the trial."""
        import ray

        ray.kill(self._actor)

    def wait(self) -> None:
        """Wait until it has ended, once it was stopped; an actor that is silent is ended."""
        while self.outcome is None:
            if time.monotonic() > self._answered_at + self._job.grace_s + SILENCE_S:
                self.kill_actor()
            time.sleep(0.01)

    def _ask_to_end(self, state: State) -> None:
        """Ask for an end; a trial that has not begun is taken from the queue."""
        self._answered_at = time.monotonic()
        if self._started is None:
            self.kill_actor()
        else:
            self._actor.stop.remote(state)

    def _call_actor(self) -> Calls:
        node = yield "describe", (str(self._job.task.folder),)
        self._check_node(node)
        sent = list_entries(self._files.folder)
        yield from self._send([e for e in sent if not self._is_own(e)])
        self._started = time.monotonic()
        yield "start", (self._job,)
        offsets = dict.fromkeys(LOGS, 0)
        while self._ended is None:
            self._ended = yield from self._read_update(offsets)
        yield from self._fetch(sent, offsets)
        yield "remove_folder", ()
        return self._ended

    def _check_node(self, node: ActorNode) -> None:
        if node.version != __version__:
            raise ExecutorError(
                f"node {node.host} runs LocalHPO {node.version}, and the driver {__version__}",
                hint="install the same version on all nodes",
            )
        if not node.has_folder:
            raise ExecutorError(
                f"the folder of the task, {self._job.task.folder}, is not on node {node.host}",
                hint="mount it there under the same path, or put the script and its data where"
                " all nodes have them and name that folder: [task] cwd",
            )

    def _send(self, files: Sequence[FileEntry]) -> Generator[Call, Any, None]:
        for entry in files:
            for offset in range(0, max(entry.size, 1), PART_BYTES):
                part = read_part(self._files.folder, entry.name, offset, PART_BYTES)
                yield "write", (entry, offset, part)

    def _read_update(self, offsets: dict[str, int]) -> Generator[Call | None, Any, Outcome | None]:
        update: TrialUpdate = yield "read_update", (len(self._measurements), dict(offsets))
        self._measurements += update.measurements
        for name, data in update.logs.items():
            self._keep(FileEntry(name, 0), offsets[name], data)
            offsets[name] += len(data)
        if update.outcome is None and not update.measurements:
            yield None
        return update.outcome

    def _fetch(
        self, sent: Sequence[FileEntry], offsets: dict[str, int]
    ) -> Generator[Call, Any, None]:
        """Fetch the files of the trial's folder on the node."""
        there: list[FileEntry] = yield "files", ()
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

    def _is_own(self, entry: FileEntry) -> bool:
        """Return whether LocalHPO makes the file anew for each run."""
        return entry.name.startswith(f"{self._files.own.name}/")

    def _keep(self, entry: FileEntry, offset: int, data: bytes) -> None:
        with _on_disk(self._job):
            write_part(self._files.folder, entry, offset, data)

    def _make_call(self, call: Call | None) -> Any:
        if call is None:
            return None
        method, arguments = call
        return getattr(self._actor, method).remote(*arguments)

    def _advance(self) -> None:
        """Take the result that is there, and make the next call."""
        if self.has_ended or time.monotonic() < self._next_call_at:
            return
        try:
            self._step()
        except LocalHPOError as exc:
            self._outcome = self._conclude(Verdict.ABANDONED, str(exc))
            raise
        finally:
            if self.has_ended:
                self.kill_actor()  # frees its CPUs and GPUs

    def _step(self) -> None:
        import ray

        result = None
        if self._result is not None:
            ready, _ = ray.wait([self._result], timeout=0)
            if not ready:
                if self._started is None:
                    self._check()
                return
            try:
                result = ray.get(self._result)
            except (ray.exceptions.ActorUnavailableError, ray.exceptions.ObjectLostError):
                self._result = self._make_call(self._call)  # the result was lost: call again
                return
            except ray.exceptions.RayError as exc:
                self._outcome = self._ended or self._outcome_of_error(exc)
                return
        self._answered_at = time.monotonic()
        try:
            self._call = self._calls.send(result)
        except StopIteration as end:
            self._outcome = end.value
            return
        self._next_call_at = 0.0 if self._call else self._answered_at + POLL_S
        self._result = self._make_call(self._call)

    def _outcome_of_error(self, exc: Exception) -> Outcome:
        """Return the outcome of a trial whose actor failed.

        Raises:
            LocalHPOError: the trial cannot be run at all.
        """
        import ray

        errors = ray.exceptions
        reason = _last_line(exc)
        if isinstance(exc, errors.RayTaskError) and isinstance(exc.cause, LocalHPOError):
            raise exc.cause
        if isinstance(exc, errors.OutOfMemoryError):
            return self._conclude(Verdict.MEMORY, "its node ran out of memory, and Ray ended it")
        if getattr(exc, "actor_init_failed", False):
            raise ExecutorError(
                f"trial {self._job.number} cannot be run on its node: {reason}",
                hint="the same LocalHPO must be installed on each node",
            ) from exc
        if not isinstance(exc, errors.RayActorError | errors.NodeDiedError):
            raise ExecutorError(f"Ray cannot run trial {self._job.number}: {reason}") from exc
        again = not self.stop_requested and self._may_retry()
        message = f"the node was lost: {reason}" + ("; it runs again" if again else "")
        return self._conclude(Verdict.NODE_LOST, message, retry=again)

    def _conclude(self, verdict: Verdict, message: str, *, retry: bool = False) -> Outcome:
        wall_s = 0.0 if self._started is None else time.monotonic() - self._started
        ending = Ending(
            verdict,
            message=message,
            stop_state=self._stop_state,
            retry=retry,
            usage=Usage(wall_s),
            stderr=last_lines(self._files.stderr, STDERR_LINES),
        )
        return determine_outcome(self._job.task, ending, self._measurements)


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
