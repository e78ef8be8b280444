"""Report metrics from a training script, and ask for its hyperparameters.

    from localhpo.reporter import config, report

    for epoch in range(1, 11):
        ...
        if report(step=epoch, val_f1=f1, train_loss=loss):
            break  # the trial was pruned: stop here

This file needs nothing but the standard library: copy it into a project that must run where
LocalHPO is not installed. Both functions may be called without LocalHPO, by hand: `report`
then prints the metrics to standard output and returns False; `config` returns {}.

A report is one JSON object, appended by a single write to the file that LOCALHPO_METRICS
names, so lines of several threads and of forked processes never mix. Where many processes
train together, report from one of them: each report counts.
"""

from __future__ import annotations

import itertools
import json
import operator
import os
import sys
import time
from pathlib import Path
from typing import Any, SupportsFloat, cast

_STOP_MARKER = "stop"  # in LOCALHPO_TRIAL_DIR; the Executor writes it

_steps = itertools.count(1)  # no lock: one held during a fork would hang the child


def report(step: int | None = None, **metrics: SupportsFloat) -> bool:
    """Report metrics; return whether the trial should stop.

    Args:
        step: epoch, round or batch they belong to. Left out: 1 for the first report, else one
            more than the last step of this process.
        **metrics: numbers, or scalars of numpy, torch and the like. NaN and infinity are
            reported as such. Names that are no Python names: `report(**{"val/f1": 0.71})`.

    Raises:
        TypeError: the step is not an integer, or a metric not a number.
        ValueError: there is no metric, or one is called `time`.
        OSError: the file cannot be written.
    """
    if not metrics:
        raise ValueError("report() needs a metric, as in report(step=3, val_f1=0.71)")
    if "time" in metrics:
        raise ValueError("report() notes the time itself: call the metric something else")
    values = {name: _number(name, value) for name, value in metrics.items()}
    number = _step(step)
    path = os.environ.get("LOCALHPO_METRICS")
    if not path:
        shown = ", ".join(f"{name}={value:.6g}" for name, value in values.items())
        sys.stdout.write(f"step {number}: {shown}\n")
        return False
    _append(path, json.dumps({"step": number, **values, "time": time.time()}) + "\n")
    folder = os.environ.get("LOCALHPO_TRIAL_DIR")
    return folder is not None and Path(folder, _STOP_MARKER).exists()


def config() -> dict[str, Any]:
    """Return the trial's hyperparameters by name; {} where LocalHPO does not run the script.

    Raises:
        OSError: the file cannot be read.
    """
    path = os.environ.get("LOCALHPO_CONFIG")
    if not path:
        return {}
    return cast("dict[str, Any]", json.loads(Path(path).read_text(encoding="utf-8")))


def _step(step: int | None) -> int:
    global _steps
    if step is None:
        return next(_steps)
    try:
        number = operator.index(step)
    except TypeError:
        raise TypeError(f"report() takes an integer as step, got {step!r}") from None
    _steps = itertools.count(number + 1)
    return number


def _number(name: str, value: Any) -> float:
    if not isinstance(value, str | bytes):
        try:
            # item() takes a scalar out of numpy, torch, jax... without their warnings.
            return float(value.item() if hasattr(value, "item") else value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            pass
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    raise TypeError(f"report() takes numbers, but {name} is {shown} ({type(value).__name__})")


def _append(path: str, line: str) -> None:
    data = line.encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        written = os.write(file, data)
    finally:
        os.close(file)
    if written != len(data):
        raise OSError(f"report() could write only {written} of {len(data)} bytes to {path}")
