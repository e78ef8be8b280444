"""`localhpo.executor.diagnosis`: the causes of failure told apart, as a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from localhpo.executor.diagnosis import Ending, Verdict, determine_outcome, diagnose
from localhpo.objective import Constraint, Objective
from localhpo.task import Task
from localhpo.trial import Cause, Failure, Measurement, State

GOOD = [Measurement(1, "loss", 0.5, 0.0), Measurement(2, "loss", 0.25, 1.0)]


def curve(*values: float, name: str = "loss") -> list[Measurement]:
    return [Measurement(step, name, value, 0.0) for step, value in enumerate(values, 1)]


def ended(exit_code: int = 0, stderr: str = "", **changes: Any) -> Ending:
    return Ending(Verdict.EXITED, exit_code=exit_code, stderr=stderr, **changes)


TORCH_OOM = """Traceback (most recent call last):
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ..."""
JAX_OOM = "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while ..."
NUMPY_OOM = "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.28 TiB for an array"
TORCH_CPU_OOM = "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you ..."
LOADER = "RuntimeError: DataLoader worker (pid 42) is killed by signal: Killed."


@pytest.mark.parametrize(
    ("ending", "cause", "message"),
    [
        (Ending(Verdict.COULD_NOT_START, "the command 'x' was not found"),
         Cause.COULD_NOT_START, "could not be started: the command 'x' was not found"),
        (Ending(Verdict.TIMEOUT, "it ran longer than 5 s", exit_code=-15),
         Cause.TIMEOUT, "the trial was ended: it ran longer than 5 s"),
        (Ending(Verdict.MEMORY, "it used 9 MB, and its limit is 8 MB", exit_code=-9),
         Cause.OUT_OF_MEMORY_HOST, "its limit is 8 MB"),
        (Ending(Verdict.LOST, "exit code -9"), Cause.SIGNAL, "supervised the trial died"),
        # the device
        (ended(1, TORCH_OOM), Cause.OUT_OF_MEMORY_DEVICE, "(torch.OutOfMemoryError)"),
        (ended(1, JAX_OOM), Cause.OUT_OF_MEMORY_DEVICE, "(RESOURCE_EXHAUSTED)"),
        (ended(1, "RuntimeError: HIP out of memory."), Cause.OUT_OF_MEMORY_DEVICE, "device"),
        (ended(1, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
         Cause.OUT_OF_MEMORY_DEVICE, "CUBLAS_STATUS_ALLOC_FAILED"),
        (ended(-6, "what():  std::bad_alloc: cudaErrorMemoryAllocation: out of memory"),
         Cause.OUT_OF_MEMORY_DEVICE, "cudaErrorMemoryAllocation"),
        # the host
        (ended(1, "MemoryError"), Cause.OUT_OF_MEMORY_HOST, "(MemoryError)"),
        (ended(1, NUMPY_OOM), Cause.OUT_OF_MEMORY_HOST, "_ArrayMemoryError"),
        (ended(1, TORCH_CPU_OOM), Cause.OUT_OF_MEMORY_HOST, "can't allocate memory"),
        (ended(1, "OSError: [Errno 12] Cannot allocate memory"), Cause.OUT_OF_MEMORY_HOST, "host"),
        (ended(-6, "terminate called after throwing an instance of 'std::bad_alloc'"),
         Cause.OUT_OF_MEMORY_HOST, "std::bad_alloc"),
        (ended(-9, oom_kills=1), Cause.OUT_OF_MEMORY_HOST, "the machine ran out of memory"),
        (ended(137, oom_kills=1), Cause.OUT_OF_MEMORY_HOST, "the machine ran out of memory"),
        (ended(1, LOADER, oom_kills=1), Cause.OUT_OF_MEMORY_HOST, "the machine ran out"),
        # neither
        (ended(1, LOADER), Cause.EXIT_CODE, "exit code 1: RuntimeError: DataLoader worker"),
        (ended(1, "ValueError: x", oom_kills=3), Cause.EXIT_CODE, "exit code 1: ValueError: x"),
        (ended(-9), Cause.SIGNAL, "SIGKILL from outside, as a kernel does when memory runs out"),
        (ended(-11), Cause.SIGNAL, "the trial was ended by SIGSEGV"),
        (ended(-40), Cause.SIGNAL, "signal 40"),
        (ended(3), Cause.EXIT_CODE, "the trial ended with exit code 3"),
        (ended(2, "usage: train.py\ntrain.py: error: unrecognized arguments: --lr 1\n"),
         Cause.EXIT_CODE, "exit code 2: train.py: error: unrecognized arguments: --lr 1"),
        (ended(1, "KeyError: 'x'\n\n  0%|   | 0/10 [00:00<?]\n"),
         Cause.EXIT_CODE, "exit code 1: KeyError: 'x'"),
        (ended(1, "done well\n"), Cause.EXIT_CODE, "the trial ended with exit code 1"),
    ],
)  # fmt: skip
def test_causes(make_task: Callable[..., Task], ending: Ending, cause: Cause, message: str) -> None:
    state, failure = diagnose(make_task(), ending, GOOD)
    assert state is State.FAILED
    assert failure is not None
    assert failure.cause is cause
    assert message in failure.message
    assert failure.stderr_tail == ending.stderr.rstrip("\n")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.5, math.nan), "the last loss is nan, at step 2"),
        ((0.5, math.inf), "the last loss is inf, at step 2"),
        ((-math.inf,), "the last loss is -inf, at step 1"),
    ],
)
@pytest.mark.parametrize("objective", ["last", "best"])
def test_a_metric_that_ends_as_no_number_is_a_failure(
    make_task: Callable[..., Task], values: tuple[float, ...], expected: str, objective: str
) -> None:
    outcome = determine_outcome(make_task(value=objective), ended(), curve(*values))
    assert outcome.failure == Failure(Cause.NOT_FINITE, expected)
    assert (outcome.state, outcome.value) == (State.FAILED, None)


def test_a_passing_nan_is_none(make_task: Callable[..., Task]) -> None:
    outcome = determine_outcome(make_task(), ended(), curve(0.5, math.nan, 0.3))
    assert (outcome.state, outcome.value) == (State.COMPLETE, 0.3)


@pytest.mark.parametrize(
    ("changes", "ending", "reported", "parts"),
    [
        ({}, ended(), [],
         ["the script ended without an error and did not report loss",
          "`from localhpo import report` and `report(step=step, loss=value)`"]),
        ({"objectives": (Objective("val_f1"),)}, ended(),
         [*curve(1, name="valf1"), *curve(1, name="train_loss")],
         ["did not report val_f1",
          "it reported valf1, train_loss (did you mean 'valf1'?)"]),
        ({"objectives": (Objective("val/f1"),)}, ended(), curve(1, name="x"),
         ["it reported x; ", "report(step=step, **{'val/f1': value})"]),
        ({}, ended(unreadable=3), [], ["3 of its lines could not be read as measurements"]),
        ({"stdout_regex": "l: (.*)"}, ended(), [], ["by stdout_regex 'l: (.*)'"]),
        ({"stdout_regex": "l: (.*)", "constraints": (Constraint("size", max=1.0),)},
         ended(), curve(0.5),
         ["did not report size; it reported loss; stdout_regex reads loss alone"]),
        ({"objectives": (Objective("time"),)}, ended(), [], ["choose a name other than 'time'"]),
        ({"command": (), "constraints": (Constraint("size", max=1.0),)}, ended(), curve(0.5),
         ["or return a dict of numbers by name"]),
        ({"command": ()}, ended(), [],
         ["the function ended without an error", "or return the number"]),
    ],
)  # fmt: skip
def test_trial_without_reports_explains_how_to_report(
    make_task: Callable[..., Task],
    changes: dict[str, Any],
    ending: Ending,
    reported: list[Measurement],
    parts: list[str],
) -> None:
    state, failure = diagnose(make_task(**changes), ending, reported)
    assert failure is not None
    assert (state, failure.cause) == (State.FAILED, Cause.NOTHING_REPORTED)
    for part in parts:
        assert part in failure.message


def test_requested_state_is_the_outcome(make_task: Callable[..., Task]) -> None:
    task = make_task()
    pruned = Ending(Verdict.STOPPED, exit_code=-15, stop_state=State.PRUNED)
    assert diagnose(task, pruned, GOOD) == (State.PRUNED, None)
    assert determine_outcome(task, pruned, GOOD).value == 0.25
    interrupted = Ending(
        Verdict.STOPPED, exit_code=1, stop_state=State.INTERRUPTED, stderr=TORCH_OOM
    )
    assert diagnose(task, interrupted, GOOD) == (State.INTERRUPTED, None)
    assert determine_outcome(task, interrupted, GOOD).value is None
    lost = Ending(Verdict.LOST, stop_state=State.INTERRUPTED)
    assert diagnose(task, lost, GOOD) == (State.INTERRUPTED, None)
    # It had ended by itself before it could be asked.
    assert diagnose(task, ended(stop_state=State.PRUNED), GOOD) == (State.COMPLETE, None)
    assert diagnose(task, Ending(Verdict.ABANDONED), GOOD) == (State.INTERRUPTED, None)


@pytest.mark.parametrize(("retry", "state"), [(True, State.INTERRUPTED), (False, State.FAILED)])
def test_a_lost_node_is_a_cause_whether_or_not_the_trial_runs_again(
    make_task: Callable[..., Task], retry: bool, state: State
) -> None:
    task = make_task()
    ending = Ending(Verdict.NODE_LOST, "no heartbeat", retry=retry)
    assert diagnose(task, ending, GOOD) == (state, Failure(Cause.NODE_LOST, "no heartbeat"))
    pruned = Ending(Verdict.NODE_LOST, stop_state=State.PRUNED)
    assert diagnose(task, pruned, GOOD) == (State.PRUNED, None)


def test_the_tail_of_standard_error_is_short(make_task: Callable[..., Task]) -> None:
    stderr = "\n".join(f"line {i}" for i in range(100))
    _, failure = diagnose(make_task(), ended(1, stderr), GOOD)
    assert failure is not None
    assert failure.stderr_tail.splitlines() == [f"line {i}" for i in range(80, 100)]


def test_a_long_error_is_cut(make_task: Callable[..., Task]) -> None:
    _, failure = diagnose(make_task(), ended(1, "ValueError: " + "x" * 1000), GOOD)
    assert failure is not None
    assert len(failure.message) < 250
    assert failure.message.endswith("...")


def test_the_supervisor_speaks_the_same_words() -> None:
    from pathlib import Path

    from localhpo.executor import supervisor

    source = Path(supervisor.__file__).read_text()
    for verdict in set(Verdict) - {Verdict.LOST, Verdict.NODE_LOST}:  # a lost one does not speak
        assert f'"{verdict}"' in source


def test_notes_list_further_remarks(make_task: Callable[..., Task]) -> None:
    ending = ended(
        message="; what it started cannot be killed",
        left_behind=2,
        unreadable=1,
        log_error="stdout.txt: No space left on device",
    )
    assert determine_outcome(make_task(), ending, GOOD).summary == (
        "loss 0.25 at step 2; 0.0 s; what it started cannot be killed; left 2 process(es) running,"
        " which were ended; 1 reported line(s) unreadable; output not kept (stdout.txt: No space"
        " left on device)"
    )
