"""Conversion of trials, studies and events to JSON types and back, without loss.

A JSON text is UTF-8 as Python writes it: floats by their shortest exact spelling, and `NaN`,
`Infinity`, `-Infinity` as bare words (which DuckDB reads too). Half a surrogate pair, which
no UTF-8 file can hold, becomes `?`; all other text comes back as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from localhpo.errors import InputError
from localhpo.store.records import Event, StudyRecord
from localhpo.trial import Cause, Failure, Measurement, Origin, Proposal, State, Trial, Usage

JsonObject = dict[str, Any]
"""A value as JSON types: the fields of a dataclass by name."""


def dumps(value: object) -> bytes:
    """Return the JSON text of a value, without a line break.

    Raises:
        InputError: the value, or something in it, is not JSON.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"what is stored must be JSON (numbers, text, true, false, null, lists, objects): "
            f"{error}",
            hint="convert it first: float(x), str(x), list(x)",
        ) from error
    return text.encode("utf-8", errors="replace")


def encode_trial(trial: Trial) -> JsonObject:
    """Return a trial as JSON types, without its measurements."""
    body = _shallow(trial)
    del body["measurements"]
    body["values"] = list(trial.values)
    body["violations"] = list(trial.violations)
    body["user_attrs"] = dict(trial.user_attrs)
    body["usage"] = _shallow(trial.usage)
    body["failure"] = None if trial.failure is None else _shallow(trial.failure)
    body["proposal"] = {
        **_shallow(trial.proposal),
        "config": dict(trial.proposal.config),
        "origin": str(trial.proposal.origin),
        "evidence": list(trial.proposal.evidence),
        "details": dict(trial.proposal.details),
        "engine_state": dict(trial.proposal.engine_state),
    }
    return body


def decode_trial(body: Mapping[str, Any], rows: Iterable[Sequence[Any]] = ()) -> Trial:
    """Return the trial that `encode_trial` was given, with its measurements as they were encoded.

    A field that did not exist yet when the trial was stored gets its default.
    """
    complete = complete_trial(body)
    failure, proposal = complete["failure"], complete["proposal"]
    proposal = {
        **proposal,
        "origin": Origin.parse(proposal["origin"]),
        "evidence": tuple(proposal["evidence"]),
    }
    return Trial(
        **{
            **complete,
            "state": State(complete["state"]),
            "values": tuple(complete["values"]),
            "violations": tuple(complete["violations"]),
            "proposal": Proposal(**proposal),
            "measurements": tuple(Measurement(*row) for row in rows),
            "failure": failure and Failure(**{**failure, "cause": Cause(failure["cause"])}),
            "usage": Usage(**complete["usage"]),
        }
    )


def complete_trial(body: Mapping[str, Any]) -> JsonObject:
    """Return a stored trial with every field that `encode_trial` writes today, in that order."""
    trial = _complete(Trial, body)
    del trial["measurements"]
    failure = body.get("failure")
    trial["failure"] = None if failure is None else _complete(Failure, failure)
    trial["usage"] = _complete(Usage, body.get("usage", {}))
    trial["proposal"] = _complete(Proposal, body["proposal"])
    return trial


def complete_event(body: Mapping[str, Any]) -> JsonObject:
    """Return a stored event with every field that `encode_event` writes today, in that order."""
    return _complete(Event, body)


def encode_measurement(measurement: Measurement) -> list[Any]:
    """Return `[step, name, value, time]`: no field names, for there are many measurements."""
    return [measurement.step, measurement.name, measurement.value, measurement.time]


def encode_study(record: StudyRecord) -> JsonObject:
    """Return the record of a study as JSON types."""
    return {**_shallow(record), "settings": dict(record.settings)}


def encode_event(event: Event) -> JsonObject:
    """Return an event as JSON types."""
    return {**_shallow(event), "data": dict(event.data)}


def _shallow(value: Any) -> JsonObject:
    """Return the fields of a dataclass by name (`dataclasses.asdict` copies deeply: slow)."""
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _complete(cls: type[Any], body: Mapping[str, Any]) -> JsonObject:
    """Return the fields of a dataclass in order, with defaults for those that are missing."""
    known = {
        name: body[name] if name in body else _to_json_type(default)
        for name, default in _DEFAULTS[cls].items()
        if name in body or default is not MISSING
    }
    return {**known, **body}


def _defaults_of(cls: type[Any]) -> dict[str, Any]:
    return {
        f.name: f.default if f.default_factory is MISSING else f.default_factory()
        for f in fields(cls)
    }


_DEFAULTS = {cls: _defaults_of(cls) for cls in (Trial, Proposal, Failure, Usage, Event)}
"""The fields of each dataclass in order, with their default or MISSING."""


def _to_json_type(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, dict) else value
