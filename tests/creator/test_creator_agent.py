from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import spaces_with_configs

from localhpo.creator import History, prompt
from localhpo.creator.agent import ROUNDS, Agent
from localhpo.creator.candidates import medoid_order
from localhpo.creator.hybrid import HybridCreator
from localhpo.creator.prompt import max_answer_tokens
from localhpo.errors import (
    BackendError,
    ConstraintError,
    GenerationError,
    ModelError,
    SpaceExhaustedError,
)
from localhpo.llm.protocol import Backend
from localhpo.space import Categorical, Float, Int, Space
from localhpo.trial import State

SPACE = Space([Float("rate", 1e-4, 1.0, log=True), Int("depth", 1, 10)])


generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def chat_answer(
    rate: float, depth: int, evidence: Sequence[int] = (), analysis: str = "Because."
) -> str:
    named = json.dumps(list(evidence))
    config = bare_answer(rate, depth)
    return f'{{"analysis":{json.dumps(analysis)},"config":{config},"evidence":{named}}}'


def bare_answer(rate: float, depth: int) -> str:
    return SPACE.text({"rate": rate, "depth": depth})


@pytest.fixture
def history_of(make_task, make_trial):
    def make(*configs, **changes):
        trials = tuple(
            make_trial(n, {"rate": rate, "depth": depth}, value=float(n))
            for n, (rate, depth) in enumerate(configs)
        )
        return History(make_task(space=SPACE, **changes), trials, seed=0, next_number=len(trials))

    return make


def agent(backend: Backend, on_model_error: str = "stop", **more: Any) -> Agent:
    return Agent(
        backend, on_model_error=on_model_error, fallback=HybridCreator().propose_one, **more
    )


def test_a_chat_model_gives_configuration_reason_and_evidence(fake_backend, history_of):
    backend = fake_backend(lambda call, sample: chat_answer(1e-2, 5, [0]))
    proposal = agent(backend).propose_one(history_of((1e-1, 3)))
    assert proposal.config == {"rate": 1e-2, "depth": 5}
    assert str(proposal.origin) == "llm"
    assert (proposal.rationale, proposal.rationale_by) == ("Because.", "model")
    assert proposal.evidence == (0,)
    assert proposal.tries == 1
    assert proposal.model_digest == "digest-of-fake"
    assert (proposal.prompt_tokens, proposal.completion_tokens, proposal.seconds) == (100, 10, 0.5)
    assert proposal.answer == chat_answer(1e-2, 5, [0])
    assert proposal.seed == backend.calls[0].seed
    assert proposal.note == ""


def test_the_prompt_is_recorded_with_its_hash(fake_backend, history_of):
    backend = fake_backend(lambda call, sample: chat_answer(1e-2, 5))
    proposal = agent(backend).propose_one(history_of((1e-1, 3)))
    messages = backend.calls[0].messages
    assert proposal.prompt == prompt.join_messages(messages)
    assert proposal.prompt_sha256 == prompt.sha256(messages)
    assert '{"rate":1e-1,"depth":3}' in proposal.prompt


def test_the_reason_of_a_configuration_model_is_computed(fake_backend, history_of):
    backend = fake_backend(lambda call, sample: bare_answer(1e-2, 1 + sample % 9), "compact")
    proposal = agent(backend).propose_one(history_of((1e-1, 10)))
    assert proposal.rationale_by == "computed"
    assert proposal.rationale.startswith("against trial 0")
    assert proposal.evidence == (0,)
    assert proposal.completion_tokens == 10 * ROUNDS["compact"][0].samples, "all samples cost"


def test_the_medoid_of_many_samples_is_taken(fake_backend, history_of):
    depths = [1] * 3 + [4, 5, 5, 5, 6, 6] + [10] * 4
    backend = fake_backend(
        lambda call, sample: bare_answer(1e-2, depths[sample % len(depths)]), "compact"
    )
    proposal = agent(backend).propose_one(history_of())
    assert proposal.config["depth"] == 5
    assert proposal.answer == bare_answer(1e-2, 5)


def test_proposals_of_one_call_spread_over_the_samples(fake_backend, history_of):
    depths = [2, 2, 2, 8, 8, 8]
    backend = fake_backend(lambda call, sample: bare_answer(1e-2, depths[sample % 6]), "compact")
    proposals = agent(backend).propose(history_of(), 2)
    assert {proposal.config["depth"] for proposal in proposals} == {2, 8}


@pytest.mark.parametrize("style", ["chat", "compact"])
def test_a_repeated_configuration_is_asked_again_with_another_seed(fake_backend, history_of, style):
    write = chat_answer if style == "chat" else bare_answer
    backend = fake_backend(lambda call, sample: write(1e-1, 3 if call == 0 else 4), style)
    proposal = agent(backend).propose_one(history_of((1e-1, 3)))
    assert proposal.config == {"rate": 1e-1, "depth": 4}
    assert proposal.tries == ROUNDS[style][0].samples + 1
    first, second = backend.calls
    assert first.seed != second.seed
    assert first.temperature < second.temperature
    assert proposal.prompt_tokens == 200, "both calls are counted"


@pytest.mark.parametrize("state", State)
def test_a_known_configuration_is_not_proposed_whatever_its_state(
    fake_backend, make_task, make_trial, state
):
    trial = make_trial(0, {"rate": 1e-1, "depth": 3}, state)
    history = History(make_task(space=SPACE), (trial,), 0, 1)
    backend = fake_backend(lambda call, sample: chat_answer(1e-1, 3 if call == 0 else 4))
    assert agent(backend).propose_one(history).config["depth"] == 4


def test_a_near_duplicate_is_taken_when_no_answer_is_new(fake_backend, history_of):
    backend = fake_backend(lambda call, sample: chat_answer(1.01e-1, 3))
    proposal = agent(backend).propose_one(history_of((1e-1, 3)))
    assert proposal.config == {"rate": 1.01e-1, "depth": 3}
    assert proposal.note == "near duplicate of an earlier trial"
    assert len(backend.calls) == len(ROUNDS["chat"])
    assert proposal.tries == sum(plan.samples for plan in ROUNDS["chat"])


def test_a_model_that_only_repeats_stops_the_study_or_falls_back(fake_backend, history_of):
    history = history_of((1e-1, 3))
    repeating = fake_backend(lambda call, sample: chat_answer(1e-1, 3))
    with pytest.raises(ModelError, match="none of its 7 answers was a valid configuration"):
        agent(repeating, "stop").propose_one(history)
    proposal = agent(repeating, "engine").propose_one(history)
    assert str(proposal.origin) == "bo"
    assert proposal.model_digest is None
    assert proposal.note.startswith("fallback for the model: none of its 7 answers")
    assert proposal.prompt_tokens == 300, "the cost of the failed answers is counted"
    assert proposal.config == HybridCreator().propose_one(history).config


@pytest.mark.parametrize("error", [BackendError, GenerationError, ConstraintError])
def test_a_failing_backend_stops_the_study_or_falls_back(fake_backend, history_of, error):
    def fail(call, sample):
        raise error("it is gone")

    history = history_of((1e-1, 3))
    with pytest.raises(error, match="it is gone"):
        agent(fake_backend(fail), "stop").propose_one(history)
    proposal = agent(fake_backend(fail), "engine").propose_one(history)
    assert str(proposal.origin) == "bo"
    assert "it is gone" in proposal.note


def test_an_unfinished_answer_is_asked_again(fake_backend, history_of):
    def answer(call, sample):
        if call == 0:
            raise GenerationError("did not end")
        return chat_answer(1e-2, 5)

    assert agent(fake_backend(answer)).propose_one(history_of()).config["depth"] == 5


def test_other_errors_are_raised(fake_backend, history_of):
    def bug(call, sample):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        agent(fake_backend(bug), "engine").propose_one(history_of())


@pytest.mark.parametrize("text", ["", "{}", '{"rate":5,"depth":3}', "not json"])
def test_an_invalid_answer_of_a_schema_server_is_asked_again(fake_backend, history_of, text):
    backend = fake_backend(lambda call, sample: chat_answer(1e-2, 5) if call else text)
    assert agent(backend).propose_one(history_of()).config == {"rate": 1e-2, "depth": 5}


def test_evidence_that_was_not_shown_is_refused(fake_backend, history_of):
    backend = fake_backend(lambda call, sample: chat_answer(1e-2, 5, [99] if call == 0 else [0]))
    proposal = agent(backend).propose_one(history_of((1e-1, 3)))
    assert proposal.evidence == (0,)
    assert len(backend.calls) == 2


def test_the_grammar_is_that_of_the_space_and_of_the_trials_shown(fake_backend, history_of):
    backend = fake_backend(lambda call, sample: chat_answer(1e-2, 5))
    agent(backend).propose_one(history_of((1e-1, 3), (1e-1, 4)))
    constraint = backend.calls[0].constraint
    assert "TRIAL" in constraint.grammar
    assert set(constraint.schema["properties"]) == {"analysis", "config", "evidence"}


def test_history_is_cut_until_the_prompt_fits(fake_backend, make_task, make_trial):
    rng = np.random.default_rng(0)
    trials = tuple(make_trial(n, SPACE.sample(rng), value=float(n)) for n in range(60))
    history = History(make_task(space=SPACE), trials, 0, 60)
    roomy = fake_backend(lambda call, sample: chat_answer(1e-2, 5), context_length=100_000)
    tight = fake_backend(lambda call, sample: chat_answer(1e-2, 5), context_length=1500)
    for backend in (roomy, tight):
        agent(backend).propose_one(history)
    shown = [
        backend.calls[0].messages[1].content.count("| complete |") for backend in (roomy, tight)
    ]
    assert shown[0] == 30
    assert 0 < shown[1] < 30
    call = tight.calls[0]
    assert tight.count_tokens(call.messages) + call.max_tokens <= 1500


def test_a_prompt_that_never_fits_says_what_to_do(fake_backend, history_of):
    backend = fake_backend(lambda call, sample: chat_answer(1e-2, 5), context_length=300)
    with pytest.raises(ModelError, match="fake has a context of 300 tokens") as caught:
        agent(backend).propose_one(history_of())
    assert "shorten the background" in caught.value.hint


def test_an_exhausted_space_is_not_an_error_of_the_model(fake_backend, make_task, make_trial):
    space = Space([Categorical("a", ("x", "y"))])
    trials = tuple(make_trial(n, {"a": a}, value=0.0) for n, a in enumerate("xy"))
    backend = fake_backend(lambda call, sample: "{}")
    with pytest.raises(SpaceExhaustedError):
        agent(backend, "engine").propose(History(make_task(space=space), trials, 0, 2), 1)
    assert not backend.calls


def test_seeds_differ_between_trials_and_repeat_with_the_history(fake_backend, history_of):
    def seed(history):
        backend = fake_backend(lambda call, sample: chat_answer(1e-2, 5))
        agent(backend).propose_one(history)
        return backend.calls[0].seed

    assert seed(history_of()) == seed(history_of())
    assert seed(history_of()) != seed(history_of((1e-1, 3)))


def test_only_an_owned_backend_is_closed(fake_backend):
    mine, yours = (fake_backend(lambda call, sample: "") for _ in range(2))
    for one, owned in ((mine, True), (yours, False)):
        creator = agent(one, owned=owned)
        creator.close()
        creator.close()
    assert (mine.closed, yours.closed) == (True, False)


AWKWARD = Space(
    [
        Float("a_rather_long_name_of_a_parameter", -1e-8, 4096.0),
        *(Float(f"x{n}", -1e-300, 1e-300) for n in range(20)),
        Int("b", 1, 10**12),
        Categorical("最適化手法の名前", ("確率的勾配降下法", "適応的モーメント推定", '"' * 40)),
    ]
)


@given(spaces_with_configs() | st.tuples(st.just(AWKWARD), st.builds(AWKWARD.sample, generators)))
def test_the_text_of_any_configuration_is_within_the_estimate_of_its_tokens(drawn):
    """A tokenizer that does not know a script takes a token for each byte."""
    space, config = drawn
    assert len(space.text(config).encode()) <= max_answer_tokens(space)


def test_without_trials_the_medoid_comes_first():
    space = Space([Int("depth", 1, 101)])
    drawn = [{"depth": depth} for depth in (1, 50, 52, 54, 101)]
    assert medoid_order(space, drawn, [])[0] == 2
    assert medoid_order(space, [], []) == []
    assert medoid_order(space, drawn[:1], []) == [0]


def test_samples_near_known_trials_come_later():
    space = Space([Int("depth", 1, 101)])
    drawn = [{"depth": depth} for depth in (10, 11, 12, 13, 90, 91)]
    assert drawn[medoid_order(space, drawn, [])[0]]["depth"] in (11, 12, 13)
    assert drawn[medoid_order(space, drawn, [{"depth": 12}])[0]]["depth"] in (90, 91)
