"""Real trials for the tests of the Executor: scripts that behave badly, and how they end."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from localhpo.executor import Job, Outcome, ProcessExecutor
from localhpo.executor.process import ProcessRun, kill_leftovers
from localhpo.task import Task
from localhpo.trial import Measurement, Value

JOB_FIELDS = {field.name for field in dataclasses.fields(Job)}


class Trials:
    """Starts scripts as trials of one executor and waits for them."""

    def __init__(self, make_task: Callable[..., Task], folder: Path) -> None:
        self.executor = ProcessExecutor(log_limit_mb=1.0)
        self.folder = folder
        self._make_task = make_task

    def job(self, config: Mapping[str, Value] | None = None, **changes: Any) -> Job:
        """Return a job; changes go to it where it has such a field, else to its task.

        A field that both have is called `task_...` for the task.
        """
        ours = {name: changes.pop(name) for name in list(changes) if name in JOB_FIELDS}
        task = {name.removeprefix("task_"): value for name, value in changes.items()}
        job = Job(
            task=self._make_task(**task),
            number=0,
            config={"learning_rate": 0.001, "depth": 3} if config is None else config,
            seed=7,
            folder=self.folder / "trial",
            grace_s=5.0,
        )
        return dataclasses.replace(job, **ours)

    def start(self, source: str, **changes: Any) -> ProcessRun:
        """Start Python source as a trial."""
        (self.folder / "train.py").write_text(source)
        return self.executor.start(self.job(**changes))

    def finish(self, run: ProcessRun) -> Outcome:
        """Wait for the outcome."""
        give_up = time.monotonic() + 60
        while (outcome := run.outcome) is None:
            assert time.monotonic() < give_up, "the trial does not end"
            time.sleep(0.01)
        return outcome

    def run(self, source: str, **changes: Any) -> Outcome:
        """Run Python source as a trial."""
        return self.finish(self.start(source, **changes))

    def until_reported(self, run: ProcessRun) -> list[Measurement]:
        """Wait until the trial has reported; return what."""
        give_up = time.monotonic() + 60
        while not (reported := list(run.poll())):
            assert time.monotonic() < give_up, "the trial does not report"
            time.sleep(0.01)
        return reported

    def is_locked(self) -> bool:
        """Return whether anything of the trial still holds the file that it has locked."""
        with (self.folder / "trial" / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def read(self, name: str) -> str:
        """Return the text of a file in the trial's folder."""
        return (self.folder / "trial" / name).read_text(errors="replace")

    def pids(self) -> list[int]:
        """Return the process ids that the script has written to a file called pids."""
        return [int(pid) for pid in self.read("pids").split()]


@pytest.fixture
def trials(make_task: Callable[..., Task], tmp_path: Path) -> Iterator[Trials]:
    made = Trials(make_task, tmp_path)
    yield made
    made.executor.close()
    kill_leftovers(made.folder / "trial")  # a test that fails leaves nothing either


@pytest.fixture
def is_alive() -> Callable[[int], bool]:
    """Return whether a process runs; a zombie that nobody has waited for does not."""

    def check(pid: int) -> bool:
        try:
            return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    return check


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < give_up, "what was waited for does not come"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def own_namespace() -> list[str]:
    """Return the command that runs another as root of a mount namespace of its own."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    if os.system(" ".join([*command, "true", "2>/dev/null"])) != 0:
        pytest.skip("this machine gives no user namespaces")
    return command
