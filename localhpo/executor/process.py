"""Runs a trial as a process of this machine, below a supervisor of its own.

What is covered and what is not, of ending, measuring and logging, stands at the top of
`localhpo.executor.supervisor`. The folder of a trial afterwards:

    stdout.txt  stderr.txt    what it printed: head and tail where it was too much
    stop                      a marker: the trial was asked to end (`report()` says True)
    localhpo/config.json      its hyperparameters
    localhpo/metrics.jsonl    what it reported
    localhpo/job.json         argument list, folder, limits: enough to run it by hand
    localhpo/result.json      how it ended; there only when nothing of the trial was left

and whatever the script itself put there. A run in a folder that was used before kills processes
that an earlier run left behind (only possible where LocalHPO and the supervisor were killed at
once), removes the files above and keeps the script's own, such as checkpoints.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Any

from localhpo.errors import ExecutorError, TaskError
from localhpo.executor.active_runs import ActiveRun, ActiveRuns
from localhpo.executor.command import build_arguments
from localhpo.executor.diagnosis import Ending, Verdict, determine_outcome
from localhpo.executor.protocol import Job
from localhpo.executor.tail import (
    MeasurementReader,
    compile_pattern,
    last_lines,
    parse_line,
    parse_stdout,
)
from localhpo.trial import State, Usage

SUPERVISOR = str(Path(__file__).with_name("supervisor.py"))
"""A program, not a module of this process."""
STDERR_LINES = 100
"""Last lines of standard error that are searched for the cause of a failure."""
CLOSE_S = 15.0
"""Seconds after the grace period until the supervisor itself counts as stuck."""
LEFTOVERS_S = 10.0
"""Seconds that processes of an earlier run have to end after KILL."""


class ProcessExecutor:
    """Runs the command of a task. Not for several threads at once."""

    def __init__(self, *, log_limit_mb: float = 64.0) -> None:
        """Create an executor that keeps `log_limit_mb` of standard output and of standard error.

        Raises:
            ExecutorError: this is not Linux, where processes can be supervised.
        """
        if sys.platform != "linux":
            raise ExecutorError(
                f"trials can be supervised on Linux only, and this is {sys.platform}",
                hint="run LocalHPO in a Linux container or virtual machine",
            )
        self._log_limit_mb = log_limit_mb
        self._active_runs = ActiveRuns()

    def start(self, job: Job) -> ProcessRun:
        """Start the command of the job's task.

        Raises:
            TaskError: the command holds a placeholder that means nothing.
            ExecutorError: the trial's folder cannot be written, or no process be started.
        """
        files = TrialFiles(job.folder)
        known = {
            "config": str(files.config),
            "trial.dir": str(files.folder),
            "trial.number": str(job.number),
            "seed": str(job.seed),
        }
        argv = build_arguments(job.task.command, job.values, job.task.names, known)
        return self.launch(job, argv)

    def launch(self, job: Job, argv: Sequence[str]) -> ProcessRun:
        """Start any argument list as the trial.

        Raises:
            ExecutorError: the trial's folder cannot be written, or no process be started.
        """
        self._active_runs.check_open()
        run = ProcessRun(job, argv, log_limit_mb=self._log_limit_mb)
        self._active_runs.add(run)
        return run

    def close(self) -> None:
        """End whatever still runs, as interrupted, within the grace period."""
        self._active_runs.close()


class TrialFiles:
    """The files of one trial; all paths are absolute."""

    def __init__(self, folder: Path) -> None:
        """Derive the paths; nothing is created."""
        self.folder = folder.resolve()
        self.stdout = self.folder / "stdout.txt"
        self.stderr = self.folder / "stderr.txt"
        self.stop = self.folder / "stop"
        self.own = self.folder / "localhpo"
        self.config = self.own / "config.json"
        self.metrics = self.own / "metrics.jsonl"
        self.job = self.own / "job.json"
        self.result = self.own / "result.json"

    def clear(self) -> None:
        """Create the folder; delete the files of an earlier run of the trial."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.job.exists() and not self.result.exists():
            kill_leftovers(self.folder)
        if self.own.exists():
            shutil.rmtree(self.own)
        for path in (self.stdout, self.stderr, self.stop):
            path.unlink(missing_ok=True)
        self.own.mkdir()
        self.metrics.touch()

    def environment(self, job: Job) -> dict[str, str]:
        """Return the environment of the trial."""
        return {
            "PYTHONUNBUFFERED": "1",  # what a killed script printed last is in its log
            **os.environ,
            **job.task.env,
            **job.env,
            "LOCALHPO_CONFIG": str(self.config),
            "LOCALHPO_METRICS": str(self.metrics),
            "LOCALHPO_SEED": str(job.seed),
            "LOCALHPO_TRIAL_DIR": str(self.folder),
        }


class ProcessRun(ActiveRun):
    """A trial that was started as a process."""

    def __init__(self, job: Job, argv: Sequence[str], *, log_limit_mb: float) -> None:
        """Start it.

        Raises:
            ExecutorError: the trial's folder cannot be written, or no process be started.
        """
        super().__init__()
        self._job = job
        self._files = TrialFiles(job.folder)
        self._readers = [MeasurementReader(self._files.metrics, parse_line)]
        if job.task.stdout_regex is not None:
            pattern = compile_pattern(job.task.stdout_regex)
            parse = partial(parse_stdout, pattern, job.task.metric)
            self._readers.append(MeasurementReader(self._files.stdout, parse))
        try:
            self._supervisor = self._start(argv, log_limit_mb)
        except OSError as exc:
            raise ExecutorError(
                f"trial {job.number} cannot be started: {exc}",
                hint=f"free space on the disk and the right to write {self._files.folder}",
            ) from exc
        except ValueError as exc:
            raise TaskError(f"[task] env cannot be an environment: {exc}") from exc

    def kill(self) -> None:
        """End it at once: a supervisor whose control pipe is closed does not wait."""
        if not self.has_ended and self._supervisor.stdin is not None:
            self._supervisor.stdin.close()

    def wait(self) -> None:
        """Wait until it has ended, once it was stopped; end a supervisor that is stuck."""
        deadline = time.monotonic() + self._job.grace_s + CLOSE_S
        while self.outcome is None:
            if time.monotonic() > deadline:
                self._supervisor.kill()
            time.sleep(0.01)

    def _ask_to_end(self, state: State) -> None:
        """Ask for an end.

        A pruned trial learns of it through `report()`, and by TERM after half of the grace
        period; an interrupted one gets TERM at once.
        """
        control_pipe = self._supervisor.stdin
        with contextlib.suppress(OSError):  # it has ended, or the disk is full
            if control_pipe is not None:
                # Before the marker: a script that sees it and ends has then been asked.
                control_pipe.write(b"p" if state is State.PRUNED else b"i")
            self._files.stop.touch()

    def _start(self, argv: Sequence[str], log_limit_mb: float) -> subprocess.Popen[bytes]:
        job, files = self._job, self._files
        files.clear()
        files.config.write_text(json.dumps(dict(job.values), indent=2) + "\n")
        settings = {
            "argv": list(argv),
            "cwd": str(job.task.folder.resolve()),
            "stdout": str(files.stdout),
            "stderr": str(files.stderr),
            "result": str(files.result),
            "timeout_s": job.timeout_s,
            "grace_s": job.grace_s,
            "memory_mb": job.memory_mb,
            "log_limit_mb": log_limit_mb,
            "parent": os.getpid(),
        }
        files.job.write_text(json.dumps(settings, indent=2) + "\n")
        with files.stderr.open("ab") as stderr, _signals_blocked():  # its own traceback
            return subprocess.Popen(
                [sys.executable, "-I", "-S", SUPERVISOR, str(files.job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                cwd=files.folder,
                env=files.environment(job),
                start_new_session=True,  # Ctrl-C in a terminal reaches LocalHPO alone
            )

    def _advance(self) -> None:
        if self.has_ended:
            return
        ended = self._supervisor.poll() is not None  # checked first: then all output is there
        for reader in self._readers:
            self._measurements += reader.read()
        if ended and all(reader.at_end for reader in self._readers):
            for reader in self._readers:
                self._measurements += reader.finish()
            self._outcome = determine_outcome(self._job.task, self._ending(), self._measurements)

    def _ending(self) -> Ending:
        with self._supervisor as process:  # closes the pipes
            output = process.stdout.read() if process.stdout else b""
        try:
            result: dict[str, Any] = json.loads(output)
        except ValueError:
            kill_leftovers(self._files.folder)
            code = self._supervisor.returncode
            result = {"verdict": Verdict.LOST, "message": f"it ended with {code}"}
        usage = Usage(result.get("wall_s", 0.0), result.get("cpu_s"), result.get("peak_memory_mb"))
        return Ending(
            Verdict(result["verdict"]),
            message=result["message"],
            exit_code=result.get("exit_code"),
            stop_state=self._stop_state,
            usage=usage,
            stderr=last_lines(self._files.stderr, STDERR_LINES),
            oom_kills=result.get("oom_kills", 0),
            left_behind=result.get("left_behind", 0),
            unreadable=sum(reader.skipped for reader in self._readers),
            thinned=any(reader.thinned for reader in self._readers),
            log_error=result.get("log_error", ""),
        )


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals while a supervisor starts: it unblocks them once its handlers are set."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {SIGTERM, SIGINT, SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill_leftovers(folder: Path) -> None:
    """Kill the processes of a trial whose supervisor was killed.

    They are recognized by the LOCALHPO_TRIAL_DIR of their environment.

    Raises:
        ExecutorError: they do not end.
    """
    import psutil

    def find_leftovers() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                mine = process.environ().get("LOCALHPO_TRIAL_DIR") == str(folder)
                if mine and process.pid != os.getpid():
                    found.append(process)
        return found

    deadline = time.monotonic() + LEFTOVERS_S
    while left := find_leftovers():
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in left)
            raise ExecutorError(f"processes of an earlier run in {folder} do not end: {pids}")
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)
