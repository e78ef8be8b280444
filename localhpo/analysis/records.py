"""Trials and summaries as JSON: what `--json` prints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

from localhpo.analysis.resource_use import MemorySharing
from localhpo.analysis.summary import Summary, failure_of
from localhpo.task import Task
from localhpo.trial import Trial


def trial_record(trial: Trial, *, full: bool = False) -> dict[str, Any]:
    """Return a trial as JSON-able values.

    The short form is what a listing needs. The full one has every field (measurements, prompt
    and answer included) but the engine's state, which is opaque.
    """
    origin = str(trial.proposal.origin)
    if full:
        record: dict[str, Any] = to_jsonable(dataclasses.asdict(trial))
        record["proposal"].pop("engine_state")
        record["proposal"]["origin"] = origin
        record["usage"]["gpu_utilisation"] = trial.usage.gpu_utilization  # its name in 0.1.0
        return {**record, **_value_record(trial)}
    failure = failure_of(trial)
    return {
        "number": trial.number,
        "state": trial.state.value,
        **_value_record(trial),
        "config": to_jsonable(trial.config),
        "origin": origin,
        "cause": failure and failure.cause,
        "seconds": trial.usage.wall_s,
    }


def _value_record(trial: Trial) -> dict[str, Any]:
    """Return values and violations, one for each objective and each constraint of the task."""
    value = trial.values[0] if len(trial.values) == 1 else None
    return {
        "values": list(trial.values),
        "value": value,
        "score": value,  # the name of `value` before several objectives; kept for this version
        "feasible": trial.feasible,
        "violations": [None if math.isnan(v) else v for v in trial.violations],
    }


def goals_record(task: Task) -> dict[str, Any]:
    """Return the objectives and constraints of a task; `metric` is the first objective."""
    return {
        "metric": task.metric,
        "direction": task.direction,
        "objectives": [dataclasses.asdict(objective) for objective in task.objectives],
        "constraints": [dataclasses.asdict(constraint) for constraint in task.constraints],
    }


def summary_record(summary: Summary) -> dict[str, Any]:
    """Return a summary as JSON-able values."""
    best = summary.best_trial
    use = to_jsonable(dataclasses.asdict(summary.resource_use))
    sharing = summary.memory_sharing
    return {
        "study": summary.study,
        **goals_record(summary.task),
        "fixed": to_jsonable(summary.task.fixed),
        "budget": {"trials": summary.task.budget.trials, "used": summary.counted},
        "states": {state.value: number for state, number in summary.states.items()},
        "feasible": summary.is_feasible,
        "best": None if best is None else trial_record(best),
        "best_trials": [trial_record(trial) for trial in summary.best_trials],
        "incumbent": [{"number": n, "value": v, "score": v} for n, v in summary.incumbent],
        "origins": [
            {**to_jsonable(dataclasses.asdict(share)), "origin": str(share.origin)}
            for share in summary.origins
        ],
        "failures": to_jsonable([dataclasses.asdict(group) for group in summary.failures]),
        "notes": to_jsonable([dataclasses.asdict(note) for note in summary.notes]),
        "cost": to_jsonable(dataclasses.asdict(summary.cost)),
        "resource_use": use,
        "accounts": {**use, "gpu_utilisation": use["gpu_utilization"]},  # its names in 0.1.0
        "memory_sharing": sharing and to_jsonable(dataclasses.asdict(sharing)),
        "sharing": sharing and _sharing_record(sharing),
        "trials": [trial_record(trial) for trial in summary.trials],
    }


def _sharing_record(sharing: MemorySharing) -> dict[str, Any]:
    """Return how memory was shared under the names that version 0.1.0 printed."""
    return {
        "decisions": sharing.decisions,
        "last": sharing.last_decision,
        "rests": sharing.offloads,
        "rest_s": sharing.offload_s,
        "freed_mb": sharing.freed_mb,
        "wakes": sharing.reloads,
        "wake_s": sharing.reload_s,
    }


def to_jsonable(value: Any) -> Any:
    """Return a value in types that JSON has.

    JSON has no NaN and no infinity: they become the strings `nan`, `inf` and `-inf`.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_jsonable(item) for item in value]
    return str(value)
