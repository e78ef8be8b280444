"""Determines the outcome of a run from its end and its reports. Pure functions.

The cause of a failure is the first of these that applies: an action of the supervisor (time,
memory, a command that does not start), out of memory by the last lines of standard error (on the
device or the host), a signal or an exit code, and missing reports or a last value of NaN.
"""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from localhpo.executor.protocol import Outcome
from localhpo.executor.summary import summarize_run
from localhpo.objective import MEASURED_ON_DEVICES
from localhpo.task import Task
from localhpo.trial import Cause, Failure, Measurement, State, Usage

TAIL_LINES = 20
"""Last lines of standard error that are kept with a failure."""


class Verdict(StrEnum):
    """Why a run has ended, by its supervisor."""

    EXITED = "exited"
    """By itself."""
    STOPPED = "stopped"
    """It was asked to end, through `Run.stop`."""
    TIMEOUT = "timeout"
    MEMORY = "memory"
    COULD_NOT_START = "could not start"
    ABANDONED = "abandoned"
    """Its supervisor was stopped, or LocalHPO had ended."""
    LOST = "lost"
    """Its supervisor died."""
    NODE_LOST = "node lost"
    """The machine that it ran on was lost, and its supervisor with it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    verdict: Verdict
    message: str = ""
    """What the supervisor adds to its verdict."""
    exit_code: int | None = None
    """Exit code of the trial's own process; -9 for signal 9."""
    failure: Failure | None = None
    """Its failure, where it is already known."""
    stop_state: State | None = None
    """The state that `Run.stop` asked for."""
    retry: bool = False
    """Whether it runs again, since it did not cause its end."""
    usage: Usage = field(default_factory=Usage)
    stderr: str = ""
    """Last lines of standard error."""
    oom_kills: int = 0
    """Processes of this machine that the kernel killed for lack of memory meanwhile."""
    left_behind: int = 0
    """Descendants that ran on after the trial's main process, and were ended."""
    unreadable: int = 0
    """Reported lines that could not be parsed."""
    thinned: bool = False
    """Too many measurements were reported to keep them all."""
    log_error: str = ""
    """Why some output was not kept."""

    @property
    def notes(self) -> list[str]:
        """Further remarks for the user."""
        notes = [self.message.strip("; ")] if self.verdict is Verdict.EXITED else []
        if self.left_behind:
            notes.append(f"left {self.left_behind} process(es) running, which were ended")
        if self.unreadable:
            notes.append(f"{self.unreadable} reported line(s) unreadable")
        if self.thinned:
            notes.append("reported so often that not every value was kept")
        if self.log_error:
            notes.append(f"output not kept ({self.log_error})")
        return [note for note in notes if note]


_NOT_BY_ITSELF = (Verdict.STOPPED, Verdict.LOST, Verdict.NODE_LOST)
_DEVICE_MEMORY = re.compile(
    r"(CUDA|HIP|MPS backend|XPU) out of memory|torch\.(cuda\.)?OutOfMemoryError"
    r"|CU(BLAS|DNN|SPARSE|SOLVER)_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation"
    r"|CUDA_ERROR_OUT_OF_MEMORY|out_of_memory: CUDA|RESOURCE_EXHAUSTED|OOM when allocating tensor"
)
_HOST_MEMORY = re.compile(
    r"\b_?(Array)?MemoryError\b|[Cc](annot|an't) allocate memory|std::bad_alloc"
    r"|java\.lang\.OutOfMemoryError"
)
# Output of a parent process whose worker was killed.
_WORKER_KILLED = re.compile(r"killed by signal|BrokenProcessPool|TerminatedWorkerError|SIGKILL")
_ERROR_LINE = re.compile(r"(Error|Exception|Interrupt)\b|\berror:", re.IGNORECASE)


def determine_outcome(task: Task, ending: Ending, measurements: Sequence[Measurement]) -> Outcome:
    """Return the outcome of a run."""
    state, failure = diagnose(task, ending, measurements)
    summary = summarize_run(task, state, failure, measurements, ending.usage, ending.notes)
    if state not in (State.COMPLETE, State.PRUNED):
        return Outcome(state, (), failure, ending.usage, summary)
    found = task.evaluate(measurements, ending.usage)
    return Outcome(state, found.values, failure, ending.usage, summary, found.violations)


def diagnose(
    task: Task, ending: Ending, measurements: Sequence[Measurement]
) -> tuple[State, Failure | None]:
    """Return the state of a run that has ended, and why it failed if it did."""
    if ending.stop_state is not None and ending.verdict in _NOT_BY_ITSELF:
        return ending.stop_state, None
    if ending.verdict is Verdict.ABANDONED:
        return State.INTERRUPTED, None
    if ending.verdict is Verdict.EXITED and ending.failure is not None:
        return State.FAILED, ending.failure
    found = _by_verdict(ending) or _by_exit(ending) or _by_metric(task, ending, measurements)
    if found is None:
        return State.COMPLETE, None
    cause, message = found
    tail = "\n".join(ending.stderr.splitlines()[-TAIL_LINES:])
    state = State.INTERRUPTED if ending.retry else State.FAILED
    return state, Failure(cause, message, tail)


_Found = tuple[Cause, str] | None


def _by_verdict(ending: Ending) -> _Found:
    message = ending.message
    match ending.verdict:
        case Verdict.COULD_NOT_START:
            return Cause.COULD_NOT_START, f"the command could not be started: {message}"
        case Verdict.TIMEOUT:
            return Cause.TIMEOUT, f"the trial was ended: {message}"
        case Verdict.MEMORY:
            return Cause.OUT_OF_MEMORY_HOST, f"the trial was ended: {message}"
        case Verdict.LOST:
            return Cause.SIGNAL, f"the process that supervised the trial died: {message}"
        case Verdict.NODE_LOST:
            return Cause.NODE_LOST, message
        case _:
            return None


def _by_exit(ending: Ending) -> _Found:
    code = ending.exit_code or 0
    if code == 0:
        return None
    if match := _DEVICE_MEMORY.search(ending.stderr):
        return Cause.OUT_OF_MEMORY_DEVICE, f"the device ran out of memory ({match[0]})"
    if match := _HOST_MEMORY.search(ending.stderr):
        return Cause.OUT_OF_MEMORY_HOST, f"the trial ran out of host memory ({match[0]})"
    killed = code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    if ending.oom_kills and (killed or _WORKER_KILLED.search(ending.stderr)):
        return Cause.OUT_OF_MEMORY_HOST, "the machine ran out of memory and ended the trial"
    if code < 0:
        name = _signal_name(-code)
        why = " from outside, as a kernel does when memory runs out" if killed else ""
        return Cause.SIGNAL, f"the trial was ended by {name}{why}"
    return Cause.EXIT_CODE, f"the trial ended with exit code {code}{_last_error(ending.stderr)}"


def _by_metric(task: Task, ending: Ending, measurements: Sequence[Measurement]) -> _Found:
    found = task.evaluate(measurements, ending.usage)
    missing = [name for name in found.missing if name not in MEASURED_ON_DEVICES]
    if missing:
        return Cause.NOTHING_REPORTED, _how_to_report(task, missing, ending, measurements)
    if found.not_finite is not None:
        last = found.not_finite
        return Cause.NOT_FINITE, f"the last {last.name} is {last.value}, at step {last.step}"
    return None


def _how_to_report(
    task: Task, missing: Sequence[str], ending: Ending, measurements: Sequence[Measurement]
) -> str:
    names = list(dict.fromkeys(m.name for m in measurements))
    metric = missing[0]
    kind = "script" if task.command else "function"
    parts = [f"the {kind} ended without an error and did not report {' and '.join(missing)}"]
    if names:
        near = difflib.get_close_matches(metric, names, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        parts.append(f"it reported {', '.join(names[:8])}{meant}")
    if ending.unreadable:
        parts.append(f"{ending.unreadable} of its lines could not be read as measurements")
    if task.stdout_regex and task.metric in missing:
        parts.append(f"no number was found in its output by stdout_regex {task.stdout_regex!r}")
    elif task.stdout_regex:
        parts.append(f"stdout_regex reads {task.metric} alone")
    argument = f"{metric}=value" if metric.isidentifier() else f"**{{{metric!r}: value}}"
    how = f"`from localhpo import report` and `report(step=step, {argument})`"
    if metric in ("step", "time"):
        how = f"choose a name other than {metric!r}, which `report` uses itself"
    is_one = len(task.objectives) == 1 and not task.constraints
    returned = "the number" if is_one else "a dict of numbers by name"
    parts.append(f"how to: {how}" + ("" if task.command else f", or return {returned}"))
    return "; ".join(parts)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_error(stderr: str) -> str:
    for line in reversed(stderr.splitlines()):
        if _ERROR_LINE.search(line):
            line = line.strip()
            return f": {line if len(line) <= 200 else line[:200] + '...'}"
    return ""
