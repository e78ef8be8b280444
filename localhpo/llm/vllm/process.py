"""The process of a server, and why it ended according to its log.

It runs under the supervisor that also runs trials. The supervisor ends it and its child processes
when no process holds a lease (see `localhpo.llm.vllm.lease`), limits the size of its log, and
measures its memory. It does not matter which process has started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from localhpo.errors import BackendError
from localhpo.llm import offline
from localhpo.llm.vllm import auth_middleware, lease

LOG = "server.log"
RESULT = "result.json"
LOG_LIMIT_MB = 16.0
GRACE_S = 10.0
"""Seconds from SIGTERM to SIGKILL."""
STUCK_S = 15.0
"""Further seconds after which the supervisor itself counts as stuck."""
TAIL_BYTES = 65_536
"""Bytes at the end of the log that are searched for an error."""
TAIL_LINES = 12
"""Lines at the end of the log that are shown if it has no error."""

_ERROR = re.compile(r"(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception): .+|\S+: error: .+")
_PREFIX = re.compile(r"^\((?:APIServer|EngineCore|Worker)[^)]*\)\s*(?:ERROR \S+ \S+ \[[^]]*\]\s*)?")
_CONSEQUENCE = ("Engine core initialization failed", "See root cause above", "EngineDeadError")
"""Errors that only follow from an earlier one."""


_left: list[subprocess.Popen[bytes]] = []
"""Supervisors started here that others still use; they are reaped when they end."""


class ServerProcess:
    """A program under a supervisor, which ends when no process holds a lease.

    Attributes:
        log: File with its stdout and stderr.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        keep_open: Sequence[int] = (),
    ) -> None:
        """Start the program; the caller holds a lease on the folder.

        Args:
            argv: The program and its arguments.
            environment: Variables besides those of this process.
            folder: Its working directory, also for its log.
            keep_open: File descriptors that stay open while it runs.

        Raises:
            BackendError: the folder cannot be written, or the process cannot be started.
        """
        from localhpo.executor.supervisor import __file__ as supervisor

        self.log = folder / LOG
        reap_ended()
        try:
            if self.log.exists():  # it may explain a crash
                self.log.replace(self.log.with_suffix(".previous.log"))
            (folder / RESULT).unlink(missing_ok=True)
            shutil.copyfile(auth_middleware.__file__, folder / f"{auth_middleware.MODULE}.py")
            job = json.dumps(_make_job(argv, folder), indent=2)
            (folder / "job.json").write_text(f"{job}\n")
            with (folder / lease.FILE).open("r+b") as users:
                self._supervisor = subprocess.Popen(
                    [sys.executable, "-I", "-S", supervisor, str(folder / "job.json")],
                    stdin=users,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=folder,
                    env={**os.environ, **offline.cuda_device_order(), **environment},
                    pass_fds=tuple(keep_open),
                    start_new_session=True,  # Ctrl-C in a terminal reaches LocalHPO only
                )
        except OSError as exc:
            raise BackendError(
                f"the model's server cannot be started: {exc}",
                hint=f"check the free disk space and the write permission of {folder}",
            ) from exc

    @property
    def pid(self) -> int:
        """Process id of the supervisor, parent of all processes of the server."""
        return self._supervisor.pid

    def ends_within(self, seconds: float) -> bool:
        """Wait for the end; return whether it came."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._supervisor.wait(seconds)
        return self._supervisor.poll() is not None

    def leave(self) -> None:
        """Detach from the process; it goes on for others, or has ended."""
        if not self.ends_within(0.0):
            _left.append(self._supervisor)


def reap_ended() -> None:
    """Reap the detached supervisors that have ended."""
    _left[:] = [process for process in _left if process.poll() is None]


def _make_job(argv: Sequence[str], folder: Path) -> Mapping[str, object]:
    """Return the job description for the supervisor."""
    return {
        "argv": list(argv),
        "cwd": str(folder),
        "stdout": str(folder / LOG),
        "stderr": str(folder / LOG),
        "result": str(folder / RESULT),
        "timeout_s": None,
        "grace_s": GRACE_S,
        "memory_mb": None,
        "log_limit_mb": LOG_LIMIT_MB,
        "parent": None,
    }


def find_end_reason(folder: Path) -> str:
    """Return why the server of a folder ended, by its log."""
    return find_reason(read_tail(folder / LOG), _describe_exit(folder / RESULT))


def _describe_exit(path: Path) -> str:
    """Return how the process ended, by its supervisor."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError):
        return "its supervisor was killed"
    if result["oom_kills"]:
        return "this machine ran out of memory"
    if result["message"]:
        return str(result["message"])
    return f"it ended with exit code {result['exit_code']}"


def read_tail(log: Path) -> str:
    """Return the end of a log; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def find_reason(log: str, exit_: str) -> str:
    """Return the last error in a log of vLLM that does not just follow from another.

    The engine is a separate process: the server prints the engine's traceback, then its own, which
    says only that the engine failed.

    Args:
        log: The end of the log.
        exit_: How the process ended, for a log without an error.
    """
    lines = [_PREFIX.sub("", line).rstrip() for line in log.splitlines()]
    errors = [line for line in lines if _ERROR.match(line)]
    causes = [error for error in errors if not any(word in error for word in _CONSEQUENCE)]
    if causes:
        return causes[-1]
    shown = "\n".join(f"  {line}" for line in lines[-TAIL_LINES:] if line)
    return f"{exit_}; the end of its log:\n{shown}" if shown else exit_
