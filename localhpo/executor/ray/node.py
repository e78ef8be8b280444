"""What runs on a node: one trial, and its files. An actor of Ray, which is not imported here.

Each method may be called twice with the same arguments and answers the same, so that the driver
can ask again when the network has swallowed an answer. Files travel in parts.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localhpo import __version__
from localhpo.executor.process import ProcessExecutor, ProcessRun
from localhpo.executor.protocol import Job, Outcome
from localhpo.trial import Measurement, State


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a folder."""

    name: str
    """Path below the folder."""
    size: int
    """In bytes; 0 for a link."""
    mode: int = 0o644
    link: str | None = None
    """What it points to, of a symbolic link."""


def list_entries(folder: Path) -> list[FileEntry]:
    """Return the files and symbolic links below a folder; pipes, sockets and the like stay."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found.append(FileEntry(name, 0, link=os.readlink(path)))  # noqa: PTH115 - text
        elif path.is_file():
            stat = path.stat()
            found.append(FileEntry(name, stat.st_size, stat.st_mode & 0o777))
    return found


def read_part(folder: Path, name: str, offset: int, count: int) -> bytes:
    """Return a part of a file; nothing where there is none."""
    try:
        with (folder / name).open("rb") as file:
            file.seek(offset)
            return file.read(count)
    except FileNotFoundError:
        return b""


def write_part(folder: Path, entry: FileEntry, offset: int, data: bytes) -> None:
    """Write a part of a file, whose earlier parts are there; a link as a whole."""
    path = folder / entry.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.link is not None:
        path.unlink(missing_ok=True)
        path.symlink_to(entry.link)
        return
    if path.is_symlink():
        path.unlink()
    with path.open("r+b" if path.exists() and offset else "wb") as file:
        file.seek(offset)
        file.write(data)
    path.chmod(entry.mode | 0o200)


UPDATE_MEASUREMENTS = 5_000
"""Measurements in one update."""
LOG_BYTES = 1 << 18
"""Bytes of one output in one update."""
WATCH_S = 1.0
"""Seconds between two checks that the raylet runs."""
OWN_SWITCHES = ("RAY_kill_child_processes_on_worker_exit", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO")
"""Variables that are meant for the actor's process and no business of the trial's."""


@dataclass(frozen=True, slots=True)
class ActorNode:
    """The node that an actor runs on."""

    host: str
    folder: str
    """Folder of the trial on the node."""
    version: str
    """Version of LocalHPO."""
    has_folder: bool
    """Whether the folder of the task is there."""


@dataclass(frozen=True, slots=True)
class TrialUpdate:
    """What a trial reported and printed since the last update."""

    measurements: Sequence[Measurement]
    logs: Mapping[str, bytes]
    """New output of each file that was asked for, by name."""
    outcome: Outcome | None
    """None until all measurements were returned."""


class NodeTrial:
    """One trial on a node."""

    def __init__(self, *, log_limit_mb: float) -> None:
        """Make its folder, and end with the node's part of Ray."""
        self._executor = ProcessExecutor(log_limit_mb=log_limit_mb)
        self._folder = Path(tempfile.mkdtemp(prefix="localhpo-"))
        self._run: ProcessRun | None = None
        self._measurements: list[Measurement] = []
        for name in OWN_SWITCHES:
            os.environ.pop(name, None)
        raylet = os.getppid()
        end_when(lambda: os.getppid() != raylet)

    def describe(self, task_folder: str) -> ActorNode:
        """Return the node, and whether the task's folder is there."""
        return ActorNode(
            platform.node(), str(self._folder), __version__, Path(task_folder).is_dir()
        )

    def write(self, entry: FileEntry, offset: int, data: bytes) -> None:
        """Put a part of a file where the trial finds it."""
        write_part(self._folder, entry, offset, data)

    def start(self, job: Job) -> None:
        """Start the trial.

        Raises:
            TaskError: `[task] env` cannot be an environment.
            ExecutorError: see `ProcessExecutor.start`.
        """
        if self._run is None:
            here = dataclasses.replace(job, folder=self._folder, env=_with_devices(job.env))
            self._run = self._executor.start(here)

    def read_update(self, seen: int, offsets: Mapping[str, int]) -> TrialUpdate:
        """Return what was reported after the first `seen` measurements, and printed."""
        outcome = None
        if self._run is not None:
            outcome = self._run.outcome
            self._measurements += self._run.poll()
        new = self._measurements[seen : seen + UPDATE_MEASUREMENTS]
        logs = {
            name: read_part(self._folder, name, offset, LOG_BYTES)
            for name, offset in offsets.items()
        }
        is_all = seen + len(new) == len(self._measurements)
        return TrialUpdate(new, logs, outcome if is_all else None)

    def stop(self, state: Literal[State.PRUNED, State.INTERRUPTED]) -> None:
        """Ask the trial to end."""
        if self._run is not None:
            self._run.stop(state)

    def kill(self) -> None:
        """End the trial at once."""
        if self._run is not None:
            self._run.kill()

    def files(self) -> list[FileEntry]:
        """Return what the trial's folder holds."""
        return list_entries(self._folder)

    def read(self, name: str, offset: int, count: int) -> bytes:
        """Return a part of a file."""
        return read_part(self._folder, name, offset, count)

    def remove_folder(self) -> None:
        """Remove the trial's folder, once all of it was brought back."""
        self._executor.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def end_when(condition: Callable[[], bool]) -> None:
    """End this process, and so its trial, as soon as the condition holds.

    A worker of Ray outlives its raylet: measured with Ray 2.60, for as long as one looked. Its
    trial would then go on while another node runs it again.
    """

    def watch() -> None:
        while not condition():
            time.sleep(WATCH_S)
        os._exit(1)  # closes the supervisor's control pipe, which ends all of the trial

    threading.Thread(target=watch, daemon=True).start()


def _with_devices(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the devices that Ray grants here.

    The names that the driver knows are those of its inventory, and mean nothing on a node.
    """
    kept = {name: value for name, value in env.items() if name != "CUDA_VISIBLE_DEVICES"}
    granted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if len(kept) < len(env) and granted is not None:
        kept["CUDA_VISIBLE_DEVICES"] = granted  # over [task] env
    return kept
