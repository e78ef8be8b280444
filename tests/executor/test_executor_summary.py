"""`localhpo.executor.summary`: the write-up of a run, word for word."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from localhpo.executor.summary import MAX_CHARS, describe_trend, summarize_run
from localhpo.objective import Objective
from localhpo.task import Task
from localhpo.trial import Cause, Failure, Measurement, State, Usage

USAGE = Usage(wall_s=12.34, peak_memory_mb=310.4)


def reported(**curves: list[float]) -> list[Measurement]:
    steps = range(1, 1 + max(len(curve) for curve in curves.values()))
    return [
        Measurement(step, name, curve[step - 1], float(step))
        for step in steps
        for name, curve in curves.items()
        if step <= len(curve)
    ]


FALLING = [1.0, 0.8, 0.6, 0.5, 0.45, 0.42]
RISING = [0.1, 0.3, 0.5, 0.6, 0.7, 0.71]


@pytest.mark.parametrize(
    ("measurements", "expected"),
    [
        (reported(val_f1=[0.71]), "val_f1 0.71 at step 1; 12.3 s, 310 MB"),
        (reported(val_f1=RISING), "val_f1 0.71 at step 6, still rising; 12.3 s, 310 MB"),
        (reported(val_f1=[0.1, 0.7, 0.7, 0.7, 0.7, 0.7]),
         "val_f1 0.7 at step 6, flat; 12.3 s, 310 MB"),
        (reported(val_f1=[0.5, 0.5, 0.5, 0.5]), "val_f1 0.5 at step 4, flat; 12.3 s, 310 MB"),
        (reported(val_f1=[0.1, 0.73, 0.72]),
         "val_f1 0.72 at step 3 (best 0.73 at 2); 12.3 s, 310 MB"),
        (reported(val_f1=[0.1, 0.73, 0.5]),
         "val_f1 0.5 at step 3 (best 0.73 at 2, then falling); 12.3 s, 310 MB"),
        (reported(val_f1=[0.1, 0.5, 0.73, 0.7, 0.65, 0.6], train_loss=FALLING),
         "val_f1 0.6 at step 6 (best 0.73 at 3, then falling: overfitting?);"
         " train_loss 0.42, still falling; 12.3 s, 310 MB"),
        (reported(val_f1=[0.7, math.nan]),
         "val_f1 nan at step 2 (last finite 0.7 at 1); 12.3 s, 310 MB"),
        (reported(val_f1=[math.nan, math.inf]), "val_f1 inf at step 2; 12.3 s, 310 MB"),
        (reported(val_f1=[0.1, math.nan, 0.3]), "val_f1 0.3 at step 3; 12.3 s, 310 MB"),
        (reported(a=[1.0], b=[2.0], c=[3.0], val_f1=[0.5]),
         "val_f1 0.5 at step 1; a 1; b 2; 12.3 s, 310 MB"),
        (reported(val_f1=[0.123456789]), "val_f1 0.1235 at step 1; 12.3 s, 310 MB"),
        (reported(val_f1=[1.5e-7]), "val_f1 1.5e-07 at step 1; 12.3 s, 310 MB"),
    ],
)  # fmt: skip
def test_complete_runs(
    make_task: Callable[..., Task], measurements: list[Measurement], expected: str
) -> None:
    task = make_task(objectives=(Objective("val_f1", "maximize"),))
    assert summarize_run(task, State.COMPLETE, None, measurements, USAGE) == expected


def test_what_is_minimized_gets_worse_by_rising(make_task: Callable[..., Task]) -> None:
    text = summarize_run(make_task(), State.COMPLETE, None, reported(loss=[1.0, 0.2, 0.6]), USAGE)
    assert text == "loss 0.6 at step 3 (best 0.2 at 2, then rising); 12.3 s, 310 MB"


def test_other_ends_are_said_first(make_task: Callable[..., Task]) -> None:
    task = make_task()
    failure = Failure(Cause.OUT_OF_MEMORY_DEVICE, "")
    loss = reported(loss=[0.5])
    used = Usage(wall_s=3600.4, peak_gpu_memory_mb=5000.0)
    assert summarize_run(task, State.FAILED, failure, loss, used) == (
        "failed: out of device memory; loss 0.5 at step 1; 3600 s, 5000 MB on the GPU"
    )
    assert (
        summarize_run(task, State.PRUNED, None, loss, Usage())
        == "pruned; loss 0.5 at step 1; 0.0 s"
    )
    assert summarize_run(task, State.INTERRUPTED, None, [], Usage()) == "interrupted; 0.0 s"
    assert summarize_run(task, State.COMPLETE, None, loss, USAGE, ["2 lines unreadable"]) == (
        "loss 0.5 at step 1; 12.3 s, 310 MB; 2 lines unreadable"
    )


def test_it_stays_short_whatever_names_there_are(make_task: Callable[..., Task]) -> None:
    names = {"x" * 150: [1.0], "y" * 150: [2.0]}
    text = summarize_run(make_task(), State.COMPLETE, None, reported(loss=[0.5], **names), USAGE)
    assert text == f"loss 0.5 at step 1; {'x' * 150} 1; 12.3 s, 310 MB"
    task = make_task(objectives=(Objective("z" * 400),))
    text = summarize_run(task, State.COMPLETE, None, reported(**{"z" * 400: [0.5]}), USAGE)
    assert len(text) == MAX_CHARS


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([1.0, 2.0, 3.0], ""),
        ([1.0, 2.0, 3.0, 4.0], "rising"),
        ([4.0, 3.0, 2.0, 1.0], "falling"),
        ([1.0, 1.0, 1.0, 1.0], "flat"),
        ([0.0, 10.0, 10.0, 10.0, 10.0], "flat"),
        ([0.0, math.nan, 1.0, 2.0, 3.0], "rising"),
        ([-1e308, 1e308, -1e308, 1e308], "flat"),
        (list(range(100)), "rising"),
        ([100.0 - i for i in range(60)] + [40.0] * 40, "flat"),
    ],
)
def test_trends(values: list[float], expected: str) -> None:
    assert describe_trend(values) == expected
