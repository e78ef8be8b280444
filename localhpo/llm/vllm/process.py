"""The server's process, which ends with its last user, and what its log says of its end.

It runs below the supervisor that trials run below: that one ends it, and all that it has started,
once nobody holds a lease (see `localhpo.llm.vllm.lease`); keeps its log to a size; and measures
its memory. It is no matter who of them has started it.
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
"""From being asked to end to being killed."""
STUCK_S = 15.0
"""Beyond it: then the supervisor itself is taken to be stuck."""
TAIL_BYTES = 65_536
"""Of the log, searched for a reason."""
TAIL_LINES = 12
"""Of the log, shown where it names no error."""

_ERROR = re.compile(r"(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception): .+|\S+: error: .+")
_PREFIX = re.compile(r"^\((?:APIServer|EngineCore|Worker)[^)]*\)\s*(?:ERROR \S+ \S+ \[[^]]*\]\s*)?")
_CONSEQUENCE = ("Engine core initialization failed", "See root cause above", "EngineDeadError")
"""What is raised because of an error that stands further above."""


_left: list[subprocess.Popen[bytes]] = []
"""Started here, and used by others yet: looked after, so that none stays undead when it ends."""


class ServerProcess:
    """A program below a supervisor, which ends once nobody holds a lease.

    Attributes:
        log: What it prints, on both of its streams.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        keep_open: Sequence[int] = (),
    ) -> None:
        """Start it; the caller holds a lease on the folder.

        Args:
            argv: The program and its arguments.
            environment: Variables that it gets besides those of this process.
            folder: One of its own: it runs there, and its log lies there.
            keep_open: File descriptors that stay open for as long as it runs.

        Raises:
            BackendError: the folder cannot be written, or no process be started.
        """
        from localhpo.executor.supervisor import __file__ as supervisor

        self.log = folder / LOG
        reap()
        try:
            if self.log.exists():  # it may say why the one before has crashed
                self.log.replace(self.log.with_suffix(".previous.log"))
            (folder / RESULT).unlink(missing_ok=True)
            shutil.copyfile(auth_middleware.__file__, folder / f"{auth_middleware.MODULE}.py")
            orders = json.dumps(_orders(argv, folder), indent=2)
            (folder / "job.json").write_text(f"{orders}\n")
            with (folder / lease.FILE).open("r+b") as users:
                self._supervisor = subprocess.Popen(
                    [sys.executable, "-I", "-S", supervisor, str(folder / "job.json")],
                    stdin=users,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=folder,
                    env={**os.environ, **offline.cuda_device_order(), **environment},
                    pass_fds=tuple(keep_open),
                    start_new_session=True,  # Ctrl-C in a terminal reaches LocalHPO alone
                )
        except OSError as exc:
            raise BackendError(
                f"the model's server cannot be started: {exc}",
                hint=f"free space on the disk and the right to write {folder}",
            ) from exc

    @property
    def pid(self) -> int:
        """The process below which all of the server hangs."""
        return self._supervisor.pid

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end, and say whether it came."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._supervisor.wait(seconds)
        return self._supervisor.poll() is not None

    def leave(self) -> None:
        """Have no more to do with it; it runs on for others, or has ended."""
        if not self.ends_within(0.0):
            _left.append(self._supervisor)


def reap() -> None:
    """Look after those that were left to others: of one that has ended nothing stays."""
    _left[:] = [process for process in _left if process.poll() is None]


def _orders(argv: Sequence[str], folder: Path) -> Mapping[str, object]:
    """Return what the supervisor is told."""
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


def why_ended(folder: Path) -> str:
    """Say why the server of a folder ended, in the words of its log."""
    return reason(tail(folder / LOG), _exit(folder / RESULT))


def _exit(path: Path) -> str:
    """Say how it ended, in the words of its supervisor."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError):
        return "its supervisor was killed"
    if result["oom_kills"]:
        return "this machine ran out of memory while it ran"
    if result["message"]:
        return str(result["message"])
    return f"it ended with exit code {result['exit_code']}"


def tail(log: Path) -> str:
    """Return the end of a log; nothing where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def reason(log: str, exit_: str) -> str:
    """Return what a log of vLLM says went wrong: its last error that is no other's consequence.

    Its engine is a process of its own; the server prints the engine's traceback, then its own,
    which says only that the engine failed.

    Args:
        log: The end of it.
        exit_: How the process ended, for a log that names no error.
    """
    lines = [_PREFIX.sub("", line).rstrip() for line in log.splitlines()]
    errors = [line for line in lines if _ERROR.match(line)]
    causes = [error for error in errors if not any(word in error for word in _CONSEQUENCE)]
    if causes:
        return causes[-1]
    said = "\n".join(f"  {line}" for line in lines[-TAIL_LINES:] if line)
    return f"{exit_}; the end of its log:\n{said}" if said else exit_
