"""The small process that runs one trial: starts it, measures it, and ends all of it.

    python -I -S supervisor.py JOB.json

It is a separate program that uses the standard library only: it starts in about 30 ms, and
neither a script's PYTHONPATH nor a user's module called `json.py` affects it.

Standard input is its control pipe: `p` asks for the end of a pruned trial, `i` of an interrupted
one, and the end of the file means that LocalHPO has ended. At the end it writes one JSON object to
standard output and to the file that the job names (written, synced, then renamed into place).
A job without a parent is a server of several processes: its standard input is a file that each
of them locks while it uses the server, which is stopped when no process uses it any more.

What is covered:

- the trial's process leads its own session. Descendants that leave it (setsid, double fork)
  are found too: orphans become children of the supervisor (a "subreaper"), so all processes of
  the trial are its descendants, and have ended when it has no child left;
- LocalHPO's death, however sudden, closes the control pipe (and changes the parent, should
  a fork of LocalHPO hold the pipe open): everything is killed at once;
- the death of the supervisor kills the trial's own process (a death signal);
- wall clock: TERM to all, and KILL after the grace period;
- memory: the sum of resident memory over all descendants, polled; KILL above the limit. Pages
  that several processes share are counted once before anything is killed for them;
- output of any amount: pipes are always drained; files keep the head up to a limit, and the tail.

What is not covered:

- supervisor and LocalHPO killed in the same instant: descendants beyond the trial's own
  process live on until its folder is used again, where `localhpo.executor.process` ends them;
- work that other services run (docker, systemd-run, a cluster's queue, ssh);
- processes under another user (sudo): they can be neither measured nor signalled;
- memory that comes and goes between two polls (0.1 s, more on machines with thousands of
  processes), and memory of devices. Mapped files count while their pages are resident;
- the size of files that the script writes itself, its reports among them;
- anything but Linux; any malice: this supervises scripts, it does not contain them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

MB = 2**20
TAIL_BYTES = MB  # what is kept of the end of an output that grew over its limit
POLL_S = 0.1  # between two measurements of memory...
POLL_SHARE = 0.02  # ...which take at most this share of one core
KILL_EVERY_S = 0.01
GIVE_UP_S = 10.0  # after KILL: a process stuck in the kernel does not end
OOM_SCORE = 500  # where the kernel runs out of memory it takes a trial before LocalHPO

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
NEVER = float("inf")
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_libc = ctypes.CDLL(None, use_errno=True)


class OutputLog:
    """One output stream of the trial, in a file: its head up to a limit, and its tail."""

    def __init__(self, path: str, limit_bytes: int) -> None:
        """Open the file to append to it."""
        self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - until close()
        self._remaining_bytes = limit_bytes
        self._tail: deque[bytes] = deque()
        self._tail_bytes = self._left_out = 0
        self.error = ""

    def write(self, data: bytes) -> None:
        """Write output of the trial; never raises, so that the trial continues on a full disk."""
        head, rest = data[: self._remaining_bytes], data[self._remaining_bytes :]
        self._remaining_bytes -= len(head)
        self._put(head)
        if rest:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
        while self._tail_bytes > TAIL_BYTES and len(self._tail) > 1:
            dropped = len(self._tail.popleft())
            self._tail_bytes -= dropped
            self._left_out += dropped

    def close(self) -> None:
        """Append a line on the omitted output, and then the tail."""
        if self._left_out:
            self._put(b"\n[%d bytes left out: too much output]\n" % self._left_out)
        for data in self._tail:
            self._put(data)
        self._file.close()

    def _put(self, data: bytes) -> None:
        while data and not self.error:
            try:
                data = data[self._file.write(data) or 0 :]
            except OSError as exc:
                self.error = f"{self._file.name}: {exc.strerror}"


class Supervisor:
    """Supervises one trial, from its start until none of its processes is left."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Set up this process: its signal handlers, and orphans become its children."""
        self._job = job
        limit = int(job["log_limit_mb"] * MB)
        self._logs = [OutputLog(job["stdout"], limit), OutputLog(job["stderr"], limit)]
        self._selector = selectors.DefaultSelector()
        self._listening = job["parent"] is not None
        if self._listening:
            self._selector.register(0, selectors.EVENT_READ, self._read_control_pipe)
        self._child = 0
        self._exit_code: int | None = None
        self._verdict = self._message = ""
        self._started = time.monotonic()
        self._exited: float | None = None
        self._timeout_at = self._poll_at = self._term_at = self._kill_at = NEVER
        self._peak_mb, self._left_behind = 0.0, 0
        self._oom_kills = _oom_kills()
        self._become_subreaper()

    def run(self) -> dict[str, Any]:
        """Run the trial; return how it ended, as the JSON object that LocalHPO reads."""
        if self._start():
            while self._reap():
                self._check_limits()
                self._wait_for_events()
                if time.monotonic() > self._kill_at + GIVE_UP_S:
                    self._message += "; what it started cannot be killed"
                    break
            self._empty_pipes()
        for log in self._logs:
            log.close()
        return self._result()

    def _become_subreaper(self) -> None:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        wake, woken = os.pipe()
        for end in (0, wake, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        self._selector.register(wake, selectors.EVENT_READ, lambda: os.read(wake, 4096))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in ENDING:
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(
            signal.SIG_SETMASK, []
        )  # deliver signals that were blocked since its start

    def _start(self) -> bool:
        job = self._job
        try:
            child = subprocess.Popen(
                job["argv"],
                cwd=job["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                preexec_fn=_before_exec,  # safe: there is no other thread
            )
        except (OSError, ValueError) as exc:
            self._end(
                "could not start", explain_start_failure(exc, job), term_in=NEVER, kill_in=NEVER
            )
            return False
        self._child = child.pid
        child.returncode = 0  # _reap waits for it, not the Popen
        for stream, log in zip((child.stdout, child.stderr), self._logs, strict=True):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ, self._drain(stream, log))
        self._started = time.monotonic()
        self._poll_at = self._started + POLL_S
        if job["timeout_s"] is not None:
            self._timeout_at = self._started + job["timeout_s"]
        return True

    def _wait_for_events(self) -> None:
        """Handle control pipe, output and signals, or wait until the next deadline."""
        now = time.monotonic()
        until = min(self._timeout_at, self._poll_at, self._term_at, self._kill_at)
        if now >= self._kill_at:
            until = now + KILL_EVERY_S
        for key, _ in self._selector.select(max(0.0, min(until - now, 1.0))):
            key.data()

    def _empty_pipes(self) -> None:
        for _ in range(64):  # times 64 kB: more than pipes hold
            for key, _ in self._selector.select(0):
                key.data()

    def _drain(self, stream: Any, log: OutputLog) -> Any:
        def read() -> None:
            if data := stream.read(1 << 16):
                log.write(data)
            elif data is not None:
                self._selector.unregister(stream)

        return read

    def _read_control_pipe(self) -> None:
        try:
            asked = os.read(0, 64) if self._listening else b"-"
        except BlockingIOError:
            return
        grace_s = self._job["grace_s"]
        if b"i" in asked:
            self._end("stopped", term_in=0.0, kill_in=grace_s)
        elif b"p" in asked:
            # The next report() of the script returns True; SIGTERM is for scripts that ignore it.
            self._end("stopped", term_in=grace_s / 2, kill_in=grace_s)
        elif not asked:
            self._listening = False
            self._selector.unregister(0)
            self._end("abandoned", term_in=NEVER, kill_in=0.0)

    def _on_signal(self, number: int, _frame: object) -> None:
        message = f"its supervisor was sent {signal.Signals(number).name}"
        self._end("abandoned", message, term_in=0.0, kill_in=self._job["grace_s"])

    def _end(self, verdict: str, message: str = "", *, term_in: float, kill_in: float) -> None:
        """End the trial; the first verdict and the earliest deadlines apply."""
        now = time.monotonic()
        if not self._verdict:
            self._verdict, self._message = verdict, message
        self._term_at = min(self._term_at, now + term_in)
        self._kill_at = min(self._kill_at, now + kill_in)

    def _check_limits(self) -> None:
        now = time.monotonic()
        if self._job["parent"] is None and not self._verdict:
            with contextlib.suppress(
                OSError
            ):  # a process holds a lock on the input, that is, uses the server
                fcntl.lockf(0, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._end("stopped", term_in=0.0, kill_in=self._job["grace_s"])
        elif self._job["parent"] not in (None, os.getppid()):
            self._end("abandoned", term_in=NEVER, kill_in=0.0)
        if now >= self._timeout_at:
            self._timeout_at = NEVER
            message = f"it ran longer than {self._job['timeout_s']:g} s"
            self._end("timeout", message, term_in=0.0, kill_in=self._job["grace_s"])
        if now >= self._poll_at:
            self._measure()
            cost_s = time.monotonic() - now
            self._poll_at = now + max(POLL_S, cost_s / POLL_SHARE)
        if now >= self._kill_at:
            _signal_all(signal.SIGKILL)
        elif now >= self._term_at:
            self._term_at = NEVER
            found = _signal_all(signal.SIGTERM)
            self._left_behind = found if self._verdict == "exited" else 0

    def _measure(self) -> None:
        resident = descendants(os.getpid())
        used_mb = sum(resident.values()) / MB
        if len(resident) > 1 and used_mb > self._peak_mb:
            used_mb = sum(_unshared_bytes(pid, size) for pid, size in resident.items()) / MB
        self._peak_mb = max(self._peak_mb, used_mb)
        limit_mb = self._job["memory_mb"]
        if limit_mb is not None and used_mb > limit_mb:
            message = f"it used {used_mb:.0f} MB, and its limit is {limit_mb:g} MB"
            self._end("memory", message, term_in=NEVER, kill_in=0.0)

    def _reap(self) -> bool:
        """Collect ended processes; return whether anything of the trial still runs."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self._child:
                self._on_exit(os.waitstatus_to_exitcode(status))

    def _on_exit(self, exit_code: int) -> None:
        self._exit_code = exit_code
        self._exited = time.monotonic()
        self._timeout_at = NEVER
        if -exit_code in ENDING:  # sent to all, as at a shutdown, it is on its way here as well
            time.sleep(0.1)
        self._read_control_pipe()  # asked to end just before it did: then that is why
        self._end("exited", term_in=0.0, kill_in=self._job["grace_s"])

    def _result(self) -> dict[str, Any]:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "verdict": self._verdict,
            "exit_code": self._exit_code,
            "message": self._message,
            "wall_s": (self._exited or time.monotonic()) - self._started,
            "cpu_s": spent.ru_utime + spent.ru_stime,
            # ru_maxrss is the kernel's own peak of the largest process, between polls too.
            "peak_memory_mb": max(self._peak_mb, spent.ru_maxrss / 1024),
            "left_behind": self._left_behind,
            "oom_kills": _oom_kills() - self._oom_kills,
            "log_error": next((log.error for log in self._logs if log.error), ""),
        }


def descendants(root: int) -> dict[int, int]:
    """Return the descendants of a process with their resident bytes, parents first."""
    children: dict[int, list[tuple[int, int]]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_bytes()
        except OSError:
            continue
        # pid (name, which may hold anything) state ppid ... rss: see proc_pid_stat(5). Zombies
        # count: a process whose first thread has ended looks like one, and still runs.
        fields = stat[stat.rindex(b")") + 2 :].split()
        resident = int(fields[21]) * resource.getpagesize()
        children.setdefault(int(fields[1]), []).append((int(entry.name), resident))
    found: dict[int, int] = {}
    todo = children.get(root, [])
    while todo:
        found.update(todo)
        todo = [child for pid, _ in todo for child in children.get(pid, [])]
    return found


def _unshared_bytes(pid: int, resident: int) -> int:
    """Return the memory of a process with shared pages divided among their users."""
    shared_kb = _number(f"/proc/{pid}/smaps_rollup", "Pss:")
    return resident if shared_kb is None else shared_kb * 1024


def _signal_all(number: int) -> int:
    found = descendants(os.getpid())
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return len(found)


def _oom_kills() -> int:
    """Return how many processes the kernel of this machine has killed for lack of memory."""
    return _number("/proc/vmstat", "oom_kill") or 0


def _number(path: str, label: str) -> int | None:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(path).read_text().split(f"\n{label} ", 1)[1].split(None, 1)[0])
    return None


def _before_exec() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with contextlib.suppress(OSError):  # a container may hold it: then the kernel chooses
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(min(1000, int(score.read_text()) + OOM_SCORE)))


def explain_start_failure(exc: OSError | ValueError, job: dict[str, Any]) -> str:
    """Return why a command could not be started, and what to do."""
    program, cwd = job["argv"][0], job["cwd"]
    if isinstance(exc, ValueError):
        return f"a value cannot be an argument: {exc}"
    if exc.filename == cwd and program != cwd:
        return f"its folder {cwd} cannot be entered: {exc.strerror}"
    if isinstance(exc, FileNotFoundError):
        if Path(cwd, program).exists():
            return f"{program} exists, but the interpreter that its first line names does not"
        return f"the command {program!r} was not found"
    if isinstance(exc, PermissionError):
        return f"{program} may not be executed: chmod +x, or name its interpreter first"
    if exc.errno == errno.ENOEXEC:
        return f"{program} is no program: its first line must be like #!/usr/bin/env python3"
    return f"{program}: {exc.strerror}"


def write_result(result: str, path: Path) -> None:
    """Write the result atomically: a reader sees all of it or no file."""
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        file.write(result)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def main(path: str) -> None:
    """Supervise the trial that the job file describes."""
    job = json.loads(Path(path).read_text())
    result = json.dumps(Supervisor(job).run())
    with contextlib.suppress(OSError):  # a full disk: LocalHPO reads standard output anyway
        write_result(result, Path(job["result"]))
    os.write(1, result.encode())


if __name__ == "__main__":
    main(sys.argv[1])
