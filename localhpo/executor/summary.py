"""The write-up of one run, for the Creator and for a person. Pure, and the same every time.

    val_f1 0.71 at step 40 (best 0.73 at 25, then falling: overfitting?); train_loss 0.42, still
    falling; 12.3 s, 310 MB

A model that is shown what a curve did need not read numbers off it: such summaries are what lets
small local models keep up with large ones (https://arxiv.org/abs/2509.15561).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from localhpo.objective import is_better
from localhpo.task import Task
from localhpo.trial import Failure, Measurement, State, Usage, values_of

MAX_CHARS = 300
OTHERS = 2
"""Metrics written up beside the task's own."""
FLAT = 0.03
"""A change of means below this share of a curve's range is none."""
LOST = 0.1
"""A loss since the best value below this share of a curve's range is not worth a word."""

Curve = Sequence[tuple[int, float]]


def summarize_run(
    task: Task,
    state: State,
    failure: Failure | None,
    measurements: Sequence[Measurement],
    usage: Usage,
    notes: Sequence[str] = (),
) -> str:
    """Return what happened in a run, in at most `MAX_CHARS` characters."""
    names = dict.fromkeys(m.name for m in measurements)
    others = [name for name in names if name != task.metric]
    curves = {name: values_of(measurements, name) for name in (task.metric, *others[:OTHERS])}
    parts = [_ending(state, failure)]
    if curves[task.metric]:
        parts.append(_metric(task, curves))
    used = "; ".join([_used(usage), *notes])
    asides = [_aside(name, curves[name]) for name in others[:OTHERS]]
    while asides and len("; ".join([*parts, *asides, used])) > MAX_CHARS:
        asides.pop()
    text = "; ".join(part for part in [*parts, *asides, used] if part)
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 3] + "..."


def describe_trend(values: Sequence[float]) -> str:
    """Return how a curve moves at its end: rising, falling, flat, or "" where too short to say."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 4:
        return ""
    span = max(finite) - min(finite)
    width = max(2, len(finite) // 8)
    change = fmean(finite[-width:]) - fmean(finite[-2 * width : -width])
    if span == 0 or not math.isfinite(span) or abs(change) < FLAT * span:
        return "flat"
    return "rising" if change > 0 else "falling"


def _ending(state: State, failure: Failure | None) -> str:
    if failure is not None:
        return f"{state}: {failure.cause}"
    return "" if state is State.COMPLETE else str(state)


def _metric(task: Task, curves: Mapping[str, Curve]) -> str:
    curve = curves[task.metric]
    step, last = curve[-1]
    text = f"{task.metric} {last:.4g} at step {step}"
    finite = [(s, v) for s, v in curve if math.isfinite(v)]
    if not finite:
        return text
    if not math.isfinite(last):
        return f"{text} (last finite {finite[-1][1]:.4g} at {finite[-1][0]})"
    best_step, best = finite[0]
    for s, v in finite:
        if is_better(v, best, task.direction):
            best_step, best = s, v
    values = [v for _, v in finite]
    if best == last:
        moves = describe_trend(values)
        return f"{text}, {_still(moves)}" if moves else text
    since = ""
    if abs(best - last) >= LOST * (max(values) - min(values)):
        worse = "falling" if task.direction == "maximize" else "rising"
        since = f", then {worse}" + ": overfitting?" * _still_learns(curves)
    return f"{text} (best {best:.4g} at {best_step}{since})"


def _still_learns(curves: Mapping[str, Curve]) -> bool:
    """Return whether a metric of training still moves at the end."""
    ends = [
        describe_trend([v for _, v in curve]) for name, curve in curves.items() if "train" in name
    ]
    return "rising" in ends or "falling" in ends


def _aside(name: str, curve: Curve) -> str:
    moves = describe_trend([v for _, v in curve])
    return f"{name} {curve[-1][1]:.4g}" + (f", {_still(moves)}" if moves else "")


def _still(moves: str) -> str:
    return moves if moves == "flat" else f"still {moves}"


def _used(usage: Usage) -> str:
    parts = [f"{usage.wall_s:.1f} s" if usage.wall_s < 100 else f"{usage.wall_s:.0f} s"]
    if usage.peak_memory_mb is not None:
        parts.append(f"{usage.peak_memory_mb:.0f} MB")
    if usage.peak_gpu_memory_mb is not None:
        parts.append(f"{usage.peak_gpu_memory_mb:.0f} MB on the GPU")
    return ", ".join(parts)
