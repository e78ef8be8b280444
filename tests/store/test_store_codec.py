from __future__ import annotations

import json
from dataclasses import fields

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from localhpo.errors import InputError
from localhpo.store import Event, Store, StudyRecord, codec
from localhpo.trial import Cause, Failure, Measurement, Proposal, State, Trial, Usage

NAME = "water/main"

text = st.text(max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**31 - 1)
seconds = st.floats(0, 4e9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(text, json_values, max_size=3)
configs = st.dictionaries(text, st.booleans() | st.integers() | finite | text, max_size=4)
measurements = st.builds(
    Measurement, st.integers(-(2**63), 2**63 - 1), text, st.floats(), seconds | st.floats()
)
proposals = st.builds(
    Proposal,
    config=configs,
    origin=text,
    rationale=text,
    rationale_by=st.sampled_from(["", "model", "computed"]),
    evidence=st.lists(counts, max_size=3).map(tuple),
    tries=counts,
    seed=st.none() | st.integers(0, 2**64 - 1),
    model_digest=st.none() | text,
    prompt_tokens=counts,
    completion_tokens=counts,
    seconds=finite,
    prompt=st.none() | text,
    prompt_sha256=st.none() | text,
    answer=st.none() | text,
    engine_state=objects,
    note=text,
)
trials = st.builds(
    Trial,
    number=counts,
    state=st.sampled_from(State),
    proposal=proposals,
    score=st.none() | finite,
    measurements=st.lists(measurements, max_size=4).map(tuple),
    failure=st.none() | st.builds(Failure, st.sampled_from(Cause), text, text),
    usage=st.builds(Usage, finite, st.none() | finite, st.none() | finite, st.none() | finite),
    summary=text,
    seed=st.integers(0, 2**64 - 1),
    restarts=counts,
    user_attrs=objects,
    queued_at=seconds,
    started_at=st.none() | seconds,
    finished_at=st.none() | seconds,
)


def through_json(trial: Trial) -> Trial:
    body = codec.loads(codec.dumps(codec.encode_trial(trial)))
    rows = codec.loads(codec.dumps([codec.encode_measurement(m) for m in trial.measurements]))
    return codec.decode_trial(body, map(codec.decode_measurement, rows))


@given(trials)
def test_a_trial_comes_back_bit_for_bit(trial: Trial) -> None:
    # As text: there NaN equals itself, -0.0 is not 0.0, and the order of a configuration counts.
    assert repr(through_json(trial)) == repr(trial)


@given(trials)
def test_a_line_never_contains_a_line_break(trial: Trial) -> None:
    assert b"\n" not in codec.dumps(codec.encode_trial(trial))


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(trials, max_size=3, unique_by=lambda trial: trial.number), st.lists(text))
def test_any_trials_go_into_the_tables_and_come_back(
    store: Store, some: list[Trial], messages: list[str]
) -> None:
    # One study goes through all examples: what earlier ones wrote must not matter.
    with store.writer(NAME) as writer:
        for trial in some:
            writer.trial(trial)
            writer.measurements(trial.number, trial.measurements)
        for message in messages:
            writer.event("note", message, data={"m": message})
        assert writer.flush(now=True)
    assert store.verify() == []


def test_study_and_event_come_back() -> None:
    record = StudyRecord("a/b", "a", {"space": {"x": [1, 2.5, None]}}, 1.5, "0.1.0")
    event = Event(2.5, "note", "hello", 3, {"k": [1]})
    assert codec.decode_study(codec.loads(codec.dumps(codec.encode_study(record)))) == record
    assert codec.decode_event(codec.loads(codec.dumps(codec.encode_event(event)))) == event


def test_every_field_of_a_trial_is_encoded() -> None:
    body = codec.encode_trial(Trial(0, State.QUEUED, Proposal({}, "user")))
    assert {*body, "measurements"} == {field.name for field in fields(Trial)}
    assert set(body["proposal"]) == {field.name for field in fields(Proposal)}
    assert set(body["usage"]) == {field.name for field in fields(Usage)}


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert json.loads(codec.dumps({"stderr": "a\ud800b"})) == {"stderr": "a?b"}


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", {"x": {(1, 2): 3}}])
def test_what_is_not_json_is_refused_with_a_hint(value: object) -> None:
    with pytest.raises(InputError, match="must be JSON") as caught:
        codec.dumps({"attr": value})
    assert "convert" in caught.value.hint
