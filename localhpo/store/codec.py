"""Values to JSON and back, without loss.

A line is UTF-8 JSON as Python writes it: floats by their shortest exact spelling, and `NaN`,
`Infinity`, `-Infinity` as bare words (which DuckDB reads too). Half a surrogate pair, which
no UTF-8 file can hold, becomes `?`; all other text comes back as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from localhpo.errors import InputError
from localhpo.store.records import Event, StudyRecord
from localhpo.trial import Cause, Failure, Measurement, Proposal, State, Trial, Usage

Body = dict[str, Any]
"""A value as JSON's types."""


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


def loads(line: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON.
    """
    return json.loads(line)


def encode_trial(trial: Trial) -> Body:
    """Return a trial as JSON's types, without its measurements."""
    body = _shallow(trial)
    del body["measurements"]
    body["user_attrs"] = dict(trial.user_attrs)
    body["usage"] = _shallow(trial.usage)
    body["failure"] = None if trial.failure is None else _shallow(trial.failure)
    body["proposal"] = {
        **_shallow(trial.proposal),
        "config": dict(trial.proposal.config),
        "evidence": list(trial.proposal.evidence),
        "engine_state": dict(trial.proposal.engine_state),
    }
    return body


def decode_trial(body: Mapping[str, Any], measurements: Iterable[Measurement] = ()) -> Trial:
    """Return the trial that `encode_trial` was given, with its measurements."""
    failure, proposal = body["failure"], body["proposal"]
    return Trial(
        **{
            **body,
            "state": State(body["state"]),
            "proposal": Proposal(**{**proposal, "evidence": tuple(proposal["evidence"])}),
            "measurements": tuple(measurements),
            "failure": failure and Failure(**{**failure, "cause": Cause(failure["cause"])}),
            "usage": Usage(**body["usage"]),
        }
    )


def complete_usage(body: Mapping[str, Any]) -> Body:
    """Return what a trial used with every field, whichever version wrote it."""
    return _shallow(Usage(**body))


def encode_measurement(measurement: Measurement) -> list[Any]:
    """Return a measurement as a row; a row names no columns, for there are many."""
    return [measurement.step, measurement.name, measurement.value, measurement.time]


def decode_measurement(row: Sequence[Any]) -> Measurement:
    """Return the measurement of a row."""
    return Measurement(*row)


def encode_study(record: StudyRecord) -> Body:
    """Return the record of a study as JSON's types."""
    return {**_shallow(record), "settings": dict(record.settings)}


def decode_study(body: Mapping[str, Any]) -> StudyRecord:
    """Return the record that `encode_study` was given."""
    return StudyRecord(**body)


def encode_event(event: Event) -> Body:
    """Return an event as JSON's types."""
    return {**_shallow(event), "data": dict(event.data)}


def decode_event(body: Mapping[str, Any]) -> Event:
    """Return the event that `encode_event` was given."""
    return Event(**body)


def _shallow(value: Any) -> Body:
    """Return the fields of a dataclass by name (`dataclasses.asdict` copies deeply: slow)."""
    return {f.name: getattr(value, f.name) for f in fields(value)}
