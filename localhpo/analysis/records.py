"""Trials and summaries as JSON: what `--json` prints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

from localhpo.analysis import refusals
from localhpo.analysis.summary import Summary
from localhpo.trial import Trial


def trial_record(trial: Trial, *, full: bool = False) -> dict[str, Any]:
    """Return a trial as JSON-able values.

    The short form is what a listing needs; the full one has every field (measurements, prompt
    and answer included) but the engine's state, which is opaque.
    """
    if full:
        record: dict[str, Any] = jsonable(dataclasses.asdict(trial))
        record["proposal"].pop("engine_state")
        return record
    return {
        "number": trial.number,
        "state": trial.state.value,
        "score": trial.score,
        "config": jsonable(trial.config),
        "origin": trial.proposal.origin,
        "cause": refusals.cause(trial),
        "seconds": trial.usage.wall_s,
    }


def summary_record(summary: Summary) -> dict[str, Any]:
    """Return a summary as JSON-able values."""
    best = summary.best
    return {
        "study": summary.study,
        "metric": summary.task.metric,
        "direction": summary.task.direction,
        "fixed": jsonable(summary.task.fixed),
        "budget": {"trials": summary.task.budget.trials, "used": summary.counted},
        "states": {state.value: number for state, number in summary.states.items()},
        "best": None if best is None else trial_record(best),
        "incumbent": [{"number": n, "score": score} for n, score in summary.incumbent],
        "origins": jsonable([dataclasses.asdict(share) for share in summary.origins]),
        "failures": jsonable([dataclasses.asdict(group) for group in summary.failures]),
        "notes": jsonable([dataclasses.asdict(note) for note in summary.notes]),
        "cost": jsonable(dataclasses.asdict(summary.cost)),
        "accounts": jsonable(dataclasses.asdict(summary.accounts)),
        "sharing": summary.sharing and jsonable(dataclasses.asdict(summary.sharing)),
        "trials": [trial_record(trial) for trial in summary.trials],
    }


def jsonable(value: Any) -> Any:
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
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    return str(value)
