from __future__ import annotations

import json
from dataclasses import fields

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from localhpo.errors import InputError
from localhpo.store import Event, Store, StudyRecord, serialization
from localhpo.trial import USER, Cause, Failure, Measurement, Origin, Proposal, State, Trial, Usage

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
sources = st.sampled_from(["llm", "meta", "transfer", "default", "user", "external"])
names = st.text("abcdefghijklmnopqrstuvwxyz_-", min_size=1, max_size=8).filter(
    lambda name: (
        name not in ("llm", "meta", "transfer", "default", "user", "external", "model")
        and name not in ("experience", "added")
    )
)
origins = st.builds(
    lambda engine, parts: Origin.parse("+".join([*engine, *parts])),
    st.lists(names, max_size=1),
    st.lists(sources, max_size=2),
)
proposals = st.builds(
    Proposal,
    config=configs,
    origin=origins,
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
    values=st.lists(finite, max_size=3).map(tuple),
    violations=st.lists(st.floats(), max_size=3).map(tuple),
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
    line = serialization.dumps(serialization.encode_trial(trial))
    assert b"\n" not in line
    body = json.loads(line)
    rows = json.loads(
        serialization.dumps([serialization.encode_measurement(m) for m in trial.measurements])
    )
    return serialization.decode_trial(body, rows)


@given(trials)
def test_a_trial_comes_back_bit_for_bit_from_one_line(trial: Trial) -> None:
    # As text: there NaN equals itself, -0.0 is not 0.0, and the order of a configuration counts.
    assert repr(through_json(trial)) == repr(trial)


@settings(
    max_examples=12,
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
            writer.write_trial(trial)
            writer.write_measurements(trial.number, trial.measurements)
        for message in messages:
            writer.write_event("note", message, data={"m": message})
        assert writer.flush(now=True)
    assert store.verify() == []


def test_study_and_event_come_back() -> None:
    record = StudyRecord("a/b", "a", {"space": {"x": [1, 2.5, None]}}, 1.5, "0.1.0")
    event = Event(2.5, "note", "hello", 3, {"k": [1]})
    encoded = serialization.encode_study(record), serialization.encode_event(event)
    study_body, event_body = json.loads(serialization.dumps(list(encoded)))
    assert (StudyRecord(**study_body), Event(**event_body)) == (record, event)


def test_every_field_of_a_trial_is_encoded() -> None:
    body = serialization.encode_trial(Trial(0, State.QUEUED, Proposal({}, USER)))
    assert {*body, "measurements"} == {field.name for field in fields(Trial)}
    assert set(body["proposal"]) == {field.name for field in fields(Proposal)}
    assert set(body["usage"]) == {field.name for field in fields(Usage)}
    assert list(serialization.complete_trial(body)) == list(body)


def test_fields_that_did_not_exist_when_a_trial_was_stored_get_their_default() -> None:
    trial = Trial(3, State.COMPLETE, Proposal({"x": 1}, USER), values=(0.5,))
    body = serialization.encode_trial(trial)
    for fields_of, name in ((body, "violations"), (body["usage"], "energy_j"), (body, "summary")):
        del fields_of[name]
    del body["proposal"]["note"], body["proposal"]["evidence"]
    assert serialization.decode_trial(body) == trial
    assert serialization.complete_trial(body) == serialization.encode_trial(trial)
    event = {"time": 1.0, "kind": "note", "message": "hello"}
    assert Event(**serialization.complete_event(event)) == Event(1.0, "note", "hello")


def test_a_field_that_is_not_known_is_not_dropped_in_silence() -> None:
    body = serialization.encode_trial(Trial(0, State.QUEUED, Proposal({}, USER)))
    body["proposal"]["new"] = 1
    assert serialization.complete_trial(body)["proposal"]["new"] == 1
    with pytest.raises(TypeError, match="new"):
        serialization.decode_trial(body)


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert json.loads(serialization.dumps({"stderr": "a\ud800b"})) == {"stderr": "a?b"}


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", {"x": {(1, 2): 3}}])
def test_what_is_not_json_is_refused_with_a_hint(value: object) -> None:
    with pytest.raises(InputError, match="must be JSON") as caught:
        serialization.dumps({"attr": value})
    assert "convert" in caught.value.hint
