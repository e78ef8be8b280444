"""Past studies in the hands of the Creator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from localhpo.creator import History, open_creator
from localhpo.creator.bayes import Opinion
from localhpo.creator.hybrid import NOTHING_SIMILAR, Hybrid
from localhpo.creator.remembering import OPENERS, opinion
from localhpo.errors import InputError
from localhpo.experience import Past, recall
from localhpo.space import Categorical, Float, Int, Space
from localhpo.task import CreatorSettings
from localhpo.trial import State, Trial

SPACE = Space([Float("rate", 1e-4, 1.0, log=True), Int("depth", 1, 10)])
GOOD = {"rate": 1e-3, "depth": 9}


def loss(config):
    return (np.log10(config["rate"]) + 3.0) ** 2 + (config["depth"] - 9) ** 2 / 20


@pytest.fixture
def task(make_task):
    return make_task(space=SPACE)


@pytest.fixture
def memories(task, make_trial):
    """What a study of twenty random trials leaves for the same task."""
    rng = np.random.default_rng(0)
    configs = [*(SPACE.sample(rng) for _ in range(19)), GOOD]
    trials = tuple(make_trial(n, c, score=loss(c)) for n, c in enumerate(configs))
    return recall(task, [Past("small/old", task, trials)])


def run(creator, task, trials):
    done = []
    for number in range(trials):
        (proposal,) = creator.propose(History(task, tuple(done), 0, number), 1)
        done.append(Trial(number, State.COMPLETE, proposal, score=float(loss(proposal.config))))
    return done


def origins(trials):
    return [trial.proposal.origin for trial in trials]


def test_what_was_good_opens_the_study_and_the_optimizer_leans_on_it(task, memories):
    trials = run(Hybrid(None, memories=memories), task, OPENERS + 5)
    assert origins(trials)[:OPENERS] == ["experience"] * OPENERS
    assert set(origins(trials)[OPENERS:]) <= {"experience+bo", "engine:bo"}
    assert "experience+bo" in origins(trials)
    assert {SPACE.key(t.config) for t in trials[:OPENERS]} <= {
        SPACE.key(m.config) for m in memories
    }
    said = trials[0].proposal.rationale
    assert "of small/old had loss" in said
    assert "similar by 1.00" in said
    leaning = next(t for t in trials if t.proposal.origin == "experience+bo")
    assert "the opinion of past studies weighs" in leaning.proposal.rationale


def test_it_is_good_from_the_first_trial(task, memories):
    with_, without = (
        min(t.score for t in run(Hybrid(None, memories=m), task, 3)) for m in (memories, ())
    )
    assert with_ < 0.5 * without


def test_a_default_of_the_task_still_comes_first(make_task, memories):
    named = Space([dataclasses.replace(SPACE["rate"], default=0.1), SPACE["depth"]])
    trials = run(Hybrid(None, memories=memories), make_task(space=named), 2)
    assert origins(trials) == ["default", "experience"]


def test_past_studies_that_mislead_are_given_up(task, make_trial):
    """Where all trials contradict them, their chance to propose falls."""
    configs = [{"rate": 0.9, "depth": d} for d in (1, 2)] * 10
    bad = tuple(make_trial(n, c, score=float(c["depth"] + n)) for n, c in enumerate(configs))
    wrong = recall(task, [Past("small/bad", task, bad)])
    trials = run(Hybrid(None, memories=wrong), task, 16)
    assert "engine:bo" in origins(trials[4:])
    assert min(t.score for t in trials) < 0.5


def test_a_small_model_and_past_studies_share_the_opinion(task, memories, fake_backend):
    rng = np.random.default_rng(0)

    def answer(call, sample):
        rate = 10.0 ** np.clip(rng.normal(-2.0, 0.3), -4.0, 0.0)
        return SPACE.text({"rate": rate, "depth": int(np.clip(rng.normal(8, 1), 1, 10))})

    backend = fake_backend(answer, "compact")
    trials = run(open_creator(task, backend=backend, memories=memories), task, OPENERS + 4)
    assert origins(trials)[0] in ("model", "experience")
    assert origins(trials)[1:OPENERS] == ["experience"] * (OPENERS - 1)
    assert "model+experience+bo" in origins(trials)
    for trial in trials:
        asked = "model" in trial.proposal.origin
        assert (trial.proposal.model_digest is not None) == asked
    prompts = [call["messages"][0].content for call in backend.calls]
    plain = fake_backend(answer, "compact")
    run(open_creator(task, backend=plain), task, 1)
    assert prompts == [plain.calls[0]["messages"][0].content]


def test_a_small_model_that_knows_no_name_leaves_it_to_past_studies(task, memories, fake_backend):
    backend = fake_backend(lambda call, sample: "{}", "compact", knows=frozenset({"alpha"}))
    trials = run(open_creator(task, backend=backend, memories=memories), task, OPENERS + 1)
    assert origins(trials) == ["experience"] * OPENERS + ["experience+bo"]
    assert not backend.calls
    assert "does not know rate, depth" in trials[0].proposal.note


def test_a_model_that_talks_is_shown_them(task, memories, fake_backend):
    def answer(call, sample):
        return f'{{"analysis":"As it was.","config":{SPACE.text(GOOD)},"evidence":[]}}'

    for name in ("agent", "hybrid"):
        shown = dataclasses.replace(task, creator=CreatorSettings(name=name))
        backend = fake_backend(answer, "chat")
        (trial,) = run(open_creator(shown, backend=backend, memories=memories), shown, 1)
        text = backend.calls[0]["messages"][-1].content
        assert trial.proposal.origin == "model"
        assert SPACE.text(memories[0].config) in text
        assert "| small/old | 1.00" in text
        silent = fake_backend(answer, "chat")
        run(open_creator(shown, backend=silent), shown, 1)
        assert "past studies" not in silent.calls[0]["messages"][-1].content


def test_they_leave_the_prompt_where_there_is_no_room(task, memories, fake_backend):
    def answer(call, sample):
        return f'{{"analysis":"As it was.","config":{SPACE.text(GOOD)},"evidence":[]}}'

    wide = fake_backend(answer, "chat")
    run(open_creator(task, backend=wide, memories=memories), task, 1)
    bare = fake_backend(answer, "chat")
    run(open_creator(task, backend=bare), task, 1)
    room = bare.count_tokens(bare.calls[0]["messages"]) + wide.calls[0]["max_tokens"]
    narrow = fake_backend(answer, "chat", context_length=room)
    run(open_creator(task, backend=narrow, memories=memories), task, 1)
    assert narrow.calls[0]["messages"] == bare.calls[0]["messages"]


def test_a_model_that_fails_is_stood_in_for_with_experience(task, memories, fake_backend):
    backend = fake_backend(lambda call, sample: "{}", "chat")
    (trial,) = run(open_creator(task, backend=backend, memories=memories), task, 1)
    assert trial.proposal.origin == "experience"
    assert trial.proposal.note.startswith("stands in for the model")


def test_while_all_fail_more_is_remembered(task, memories):
    failed = []
    for number in range(len(memories)):
        (proposal,) = Hybrid(None, memories=memories).propose(
            History(task, tuple(failed), 0, number), 1
        )
        failed.append(Trial(number, State.FAILED, proposal))
    assert origins(failed) == ["experience"] * len(memories)


def test_nothing_to_remember_is_said_once(make_task):
    task = make_task(space=SPACE, creator=CreatorSettings(experience="retrieve"))
    first, second = run(Hybrid(None), task, 2)
    assert NOTHING_SIMILAR in first.proposal.note
    assert NOTHING_SIMILAR not in second.proposal.note


@pytest.mark.parametrize("name", ["tpe", "bo", "random"])
def test_creators_without_memory_are_refused(make_task, name):
    task = make_task(creator=CreatorSettings(name=name, experience="retrieve"))
    with pytest.raises(
        InputError, match="needs a creator that remembers, hybrid or agent"
    ) as error:
        open_creator(task)
    assert "off" in error.value.hint


def test_a_weight_counts_as_so_many_equal_samples():
    space = Space([Float("x", 0.0, 1.0), Categorical("c", ("a", "b"))])
    few = [{"x": 0.2, "c": "a"}, {"x": 0.8, "c": "b"}]
    points = np.array([space.encode({"x": x, "c": c}) for x in (0.1, 0.5, 0.9) for c in "ab"])
    even = Opinion(space, few, 1.0)(points)
    assert Opinion(space, few, 1.0, weights=np.array([0.5, 0.5]))(points) == pytest.approx(even)
    left = Opinion(space, few, 1.0, weights=np.array([0.9, 0.1]))(points)
    assert left[0] > even[0]
    assert left[-1] < even[-1]


def test_what_was_not_carried_over_says_nothing(make_task, make_trial):
    old, wide = make_task(space=Space([Int("depth", 1, 10)])), make_task(space=SPACE)
    trials = tuple(make_trial(n, {"depth": n + 1}, score=9.0 - n) for n in range(10))
    memories = recall(wide, [Past("small/old", old, trials)])
    points = np.array([SPACE.encode({"rate": rate, "depth": 9}) for rate in (1e-4, 1e-2, 1.0)])
    assert np.ptp(opinion(SPACE, memories)(points)) == pytest.approx(0.0)
