"""Configurations retrieved from past studies, in the initial design and in the prior."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from localhpo.creator import History, open_creator
from localhpo.creator.bo import SamplePrior
from localhpo.creator.hybrid import NOTHING_RETRIEVED, HybridCreator
from localhpo.creator.sources import PastStudiesSource
from localhpo.errors import InputError
from localhpo.space import Categorical, Float, Int, Space
from localhpo.task import CreatorSettings
from localhpo.transfer import PastStudy, retrieve_configs
from localhpo.trial import LLM, TRANSFER, State, Trial

SPACE = Space([Float("rate", 1e-4, 1.0, log=True), Int("depth", 1, 10)])
GOOD = {"rate": 1e-3, "depth": 9}


def loss(config):
    return (np.log10(config["rate"]) + 3.0) ** 2 + (config["depth"] - 9) ** 2 / 20


@pytest.fixture
def task(make_task):
    return make_task(space=SPACE)


@pytest.fixture
def retrieved(task, make_trial):
    """What a study of twenty random trials leaves for the same task."""
    rng = np.random.default_rng(0)
    configs = [*(SPACE.sample(rng) for _ in range(19)), GOOD]
    trials = tuple(make_trial(n, c, value=loss(c)) for n, c in enumerate(configs))
    return retrieve_configs(task, [PastStudy("small/old", task, trials)])


def run(creator, task, trials):
    done = []
    for number in range(trials):
        (proposal,) = creator.propose(History(task, tuple(done), 0, number), 1)
        done.append(Trial(number, State.COMPLETE, proposal, values=(float(loss(proposal.config)),)))
    return done


def origins(trials):
    return [str(trial.proposal.origin) for trial in trials]


def test_retrieved_configurations_come_first_and_then_guide_the_optimizer(task, retrieved):
    trials = run(HybridCreator(retrieved=retrieved), task, 8)
    assert origins(trials)[:5] == ["transfer", "transfer", "transfer", "bo", "transfer"]
    assert set(origins(trials)[5:]) <= {"bo+transfer", "bo"}
    assert "bo+transfer" in origins(trials)
    assert SPACE.key(trials[0].config) in {SPACE.key(m.config) for m in retrieved}
    reason = trials[0].proposal.rationale
    assert "trial 19 of small/old had loss" in reason
    assert "similarity of the tasks 1.00" in reason
    guided = next(t for t in trials if str(t.proposal.origin) == "bo+transfer")
    assert "guided by past studies" in guided.proposal.rationale


def test_they_help_from_the_first_trial(task, retrieved):
    with_, without = (
        min(t.value for t in run(HybridCreator(retrieved=m), task, 3)) for m in (retrieved, ())
    )
    assert with_ < 0.5 * without


def test_a_default_of_the_task_still_comes_first(make_task, retrieved):
    named = Space([dataclasses.replace(SPACE["rate"], default=0.1), SPACE["depth"]])
    trials = run(HybridCreator(retrieved=retrieved), make_task(space=named), 2)
    assert origins(trials) == ["default", "transfer"]


def test_misleading_past_studies_are_given_up(task, make_trial):
    """Where all trials contradict them, the optimizer works without them."""
    configs = [{"rate": 0.9, "depth": d} for d in (1, 2)] * 10
    bad = tuple(make_trial(n, c, value=float(c["depth"] + n)) for n, c in enumerate(configs))
    wrong = retrieve_configs(task, [PastStudy("small/bad", task, bad)])
    trials = run(HybridCreator(retrieved=wrong), task, 16)
    assert "bo" in origins(trials[4:])
    assert min(t.value for t in trials) < 0.5


def test_a_configuration_model_and_past_studies_share_the_prior(task, retrieved, fake_backend):
    rng = np.random.default_rng(0)

    def answer(call, sample):
        rate = 10.0 ** np.clip(rng.normal(-2.0, 0.3), -4.0, 0.0)
        return SPACE.text({"rate": rate, "depth": int(np.clip(rng.normal(8, 1), 1, 10))})

    backend = fake_backend(answer, "compact")
    trials = run(open_creator(task, backend=backend, retrieved=retrieved), task, 12)
    assert origins(trials)[:5] == ["transfer", "transfer", "transfer", "bo", "transfer"]
    used = {source for origin in origins(trials[5:]) for source in origin.split("+")}
    assert used >= {"llm", "transfer"}
    for trial in trials:
        asked = trial.proposal.origin.uses("llm")
        assert (trial.proposal.model_digest is not None) == asked
    prompts = [call.messages[0].content for call in backend.calls]
    plain = fake_backend(answer, "compact")
    run(open_creator(task, backend=plain), task, 1)
    assert prompts == [plain.calls[0].messages[0].content]


def test_past_studies_serve_where_the_model_knows_no_name(task, retrieved, fake_backend):
    backend = fake_backend(
        lambda call, sample: "{}", "compact", known_parameters=frozenset({"alpha"})
    )
    trials = run(open_creator(task, backend=backend, retrieved=retrieved), task, 3)
    assert origins(trials) == ["transfer"] * 3
    assert not backend.calls
    assert "not trained on rate, depth" in trials[0].proposal.note


def test_a_chat_model_is_shown_retrieved_configurations(task, retrieved, fake_backend):
    def answer(call, sample):
        return f'{{"analysis":"As it was.","config":{SPACE.text(GOOD)},"evidence":[]}}'

    shown = dataclasses.replace(task, creator=CreatorSettings(name="agent"))
    backend = fake_backend(answer, "chat")
    (trial,) = run(open_creator(shown, backend=backend, retrieved=retrieved), shown, 1)
    text = backend.calls[0].messages[-1].content
    assert trial.proposal.origin == LLM
    assert SPACE.text(retrieved[0].config) in text
    assert "| small/old | 1.00" in text
    silent = fake_backend(answer, "chat")
    run(open_creator(shown, backend=silent), shown, 1)
    assert "past studies" not in silent.calls[0].messages[-1].content


def test_they_are_left_out_of_a_prompt_without_room(task, retrieved, fake_backend):
    def answer(call, sample):
        return f'{{"analysis":"As it was.","config":{SPACE.text(GOOD)},"evidence":[]}}'

    task = dataclasses.replace(task, creator=CreatorSettings(name="agent"))
    wide = fake_backend(answer, "chat")
    run(open_creator(task, backend=wide, retrieved=retrieved), task, 1)
    bare = fake_backend(answer, "chat")
    run(open_creator(task, backend=bare), task, 1)
    room = bare.count_tokens(bare.calls[0].messages) + wide.calls[0].max_tokens
    narrow = fake_backend(answer, "chat", context_length=room)
    run(open_creator(task, backend=narrow, retrieved=retrieved), task, 1)
    assert narrow.calls[0].messages == bare.calls[0].messages


def test_past_studies_serve_where_the_model_fails(task, retrieved, fake_backend):
    backend = fake_backend(lambda call, sample: "{}", "chat")
    (trial,) = run(open_creator(task, backend=backend, retrieved=retrieved), task, 1)
    assert trial.proposal.origin == TRANSFER
    assert trial.proposal.note.startswith("without the model: none of its")


def test_more_are_tried_while_all_trials_fail(task, retrieved):
    failed = []
    for number in range(len(retrieved)):
        (proposal,) = HybridCreator(retrieved=retrieved).propose(
            History(task, tuple(failed), 0, number), 1
        )
        failed.append(Trial(number, State.FAILED, proposal))
    expected = ["transfer"] * len(retrieved)
    expected[3] = "bo"
    assert origins(failed) == expected


def test_a_note_tells_once_that_nothing_was_retrieved(make_task):
    task = make_task(space=SPACE, creator=CreatorSettings(transfer="retrieve"))
    first, second = run(HybridCreator(), task, 2)
    assert NOTHING_RETRIEVED in first.proposal.note
    assert NOTHING_RETRIEVED not in second.proposal.note


@pytest.mark.parametrize("name", ["tpe", "bo", "random"])
def test_creators_that_cannot_use_past_studies_are_refused(make_task, name):
    task = make_task(creator=CreatorSettings(name=name, transfer="retrieve"))
    with pytest.raises(
        InputError, match="needs a creator that uses past studies, hybrid or agent"
    ) as error:
        open_creator(task)
    assert "off" in error.value.hint


def prior_of(space, configs, weights=None):
    return SamplePrior(
        space, configs, source="transfer", trust=0.5, description="past studies",
        sample_weights=None if weights is None else np.array(weights),
    )  # fmt: skip


def test_a_sample_weight_counts_as_so_many_equal_samples():
    space = Space([Float("x", 0.0, 1.0), Categorical("c", ("a", "b"))])
    few = [{"x": 0.2, "c": "a"}, {"x": 0.8, "c": "b"}]
    points = np.array([space.encode({"x": x, "c": c}) for x in (0.1, 0.5, 0.9) for c in "ab"])
    even = prior_of(space, few)(points)
    assert prior_of(space, few, [0.5, 0.5])(points) == pytest.approx(even)
    left = prior_of(space, few, [0.9, 0.1])(points)
    assert left[0] > even[0]
    assert left[-1] < even[-1]


def test_a_parameter_that_was_not_transferred_is_not_informed(make_task, make_trial):
    old, wide = make_task(space=Space([Int("depth", 1, 10)])), make_task(space=SPACE)
    trials = tuple(make_trial(n, {"depth": n + 1}, value=9.0 - n) for n in range(10))
    retrieved = retrieve_configs(wide, [PastStudy("small/old", old, trials)])
    points = np.array([SPACE.encode({"rate": rate, "depth": 9}) for rate in (1e-4, 1e-2, 1.0)])
    prior = PastStudiesSource(retrieved).prior(History(wide, (), 0, 0))
    assert np.ptp(prior(points)) == pytest.approx(0.0)
