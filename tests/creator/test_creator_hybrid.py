from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from localhpo.creator import History, open_creator
from localhpo.creator.hybrid import Hybrid
from localhpo.errors import BackendError, CardError, InputError, MissingExtraError, ModelError
from localhpo.space import Float, Int, Space
from localhpo.task import CreatorSettings
from localhpo.trial import Proposal, State, Trial

SPACE = Space([Float("rate", 1e-4, 1.0, log=True), Int("depth", 1, 10)])
NAMED = Space([Float("rate", 1e-4, 1.0, log=True, default=0.1), Int("depth", 1, 10)])


@pytest.fixture
def knowing(fake_backend):
    """Return a model that answers with draws around what is good; it keeps its calls."""

    def make(space=SPACE):
        rng = np.random.default_rng(0)

        def answer(call, sample):
            rate = 10.0 ** np.clip(rng.normal(-2.0, 0.5), -4.0, 0.0)
            return space.text({"rate": rate, "depth": int(np.clip(rng.normal(4, 1), 1, 10))})

        return fake_backend(answer, "compact")

    return make


def loss(config):
    return (np.log10(config["rate"]) + 2.0) ** 2 + (config["depth"] - 4) ** 2 / 20


def run(make, task, trials, seed=0):
    done = []
    for number in range(trials):
        creator = make()
        (proposal,) = creator.propose(History(task, tuple(done), seed, number), 1)
        done.append(Trial(number, State.COMPLETE, proposal, score=float(loss(proposal.config))))
    return done


def settings(name="hybrid", **more):
    return CreatorSettings(name=name, **more)


def test_default_first_then_the_model_then_mostly_the_engine(make_task, knowing):
    task = make_task(space=NAMED)
    backend = knowing(NAMED)
    trials = run(lambda: open_creator(task, backend=backend), task, 14)
    origins = [trial.proposal.origin for trial in trials]
    assert origins[:3] == ["default", "model", "model"]
    assert trials[0].config == NAMED.default()
    assert trials[0].proposal.rationale.startswith("the task's defaults")
    later = Counter(origins[3:])
    assert set(later) <= {"model", "engine:gp"}
    assert later["engine:gp"] > later["model"] > 0


def test_without_defaults_the_model_is_first(make_task, knowing):
    task = make_task(space=SPACE)
    backend = knowing()
    origins = [t.proposal.origin for t in run(lambda: open_creator(task, backend=backend), task, 3)]
    assert origins == ["model"] * 3


def test_whose_turn_it_is_follows_from_the_history(make_task, make_trial, knowing):
    task = make_task(space=SPACE)
    turns = []
    for _ in range(2):
        turns.append([])
        for number in range(5, 25):
            trials = tuple(
                make_trial(n, SPACE.sample(np.random.default_rng(n)), score=0.0)
                for n in range(number)
            )
            backend = knowing()
            creator = open_creator(task, backend=backend)
            (proposal,) = creator.propose(History(task, trials, 1, number), 1)
            turns[-1].append(proposal.origin)
            assert (proposal.origin == "model") == bool(backend.calls)
    assert turns[0] == turns[1]
    assert len(set(turns[0])) == 2


def test_parallel_proposals_differ_and_tell_their_origins(make_task, knowing):
    task = make_task(space=NAMED)
    creator = open_creator(task, backend=knowing(NAMED))
    proposals = creator.propose(History(task, (), 0, 0), 8)
    assert len({NAMED.key(proposal.config) for proposal in proposals}) == 8
    assert proposals[0].origin == "default"
    assert {proposal.origin for proposal in proposals[1:6]} == {"model"}


def test_a_conditional_space_gets_tpe(make_task):
    nested = Space([Int("depth", 1, 3), Float("drop", 0.0, 0.5, when={"depth": (2, 3)})])
    task = make_task(space=nested)
    history = History(task, (Trial(0, State.RUNNING, Proposal({"depth": 1}, "user")),), 0, 1)
    (proposal,) = Hybrid(None).propose(history, 1)
    assert proposal.origin == "engine:tpe"


def test_a_failing_model_is_stood_in_for_by_name(make_task, fake_backend):
    def fail(call, sample):
        raise BackendError("the server is gone")

    task = make_task(space=SPACE)
    (proposal,) = open_creator(task, backend=fake_backend(fail)).propose(History(task, (), 0, 0), 1)
    assert proposal.origin == "engine:gp"
    assert "the server is gone" in proposal.note
    strict = make_task(space=SPACE, creator=settings(on_model_error="stop"))
    with pytest.raises(ModelError):
        open_creator(strict, backend=fake_backend(fail)).propose(History(strict, (), 0, 0), 1)


def test_without_a_model_the_engine_does_it_and_says_so(make_task):
    task = make_task(space=SPACE)
    trials = run(lambda: Hybrid(None, note="no language model: torch is missing"), task, 8)
    origins = [trial.proposal.origin for trial in trials]
    assert origins == ["default", *["engine:gp"] * 7]
    assert trials[0].config == SPACE.default()
    assert trials[0].proposal.rationale.startswith("the centre of the space")
    assert all("no language model" in trial.proposal.note for trial in trials)


def missing(*args, **kwargs):
    raise MissingExtraError("torch", "the transformers backend", "local")


def test_a_missing_extra_stops_the_agent_and_a_strict_hybrid(make_task, monkeypatch):
    monkeypatch.setattr("localhpo.llm.open_backend", missing, raising=False)
    for chosen in (settings("agent"), settings("hybrid", on_model_error="stop")):
        with pytest.raises(MissingExtraError):
            open_creator(make_task(creator=chosen))
    task = make_task(space=SPACE)
    (proposal,) = open_creator(task).propose(History(task, (), 0, 0), 1)
    assert "pip install 'localhpo[local]'" in proposal.note


def test_a_model_that_is_there_but_broken_is_the_users_to_mend(make_task, monkeypatch):
    def broken(*args, **kwargs):
        raise CardError("a hash is wrong")

    monkeypatch.setattr("localhpo.llm.open_backend", broken, raising=False)
    with pytest.raises(CardError):
        open_creator(make_task())


@pytest.mark.parametrize("name", ["random", "tpe", "gp", "cmaes"])
def test_an_engine_needs_no_model(make_task, monkeypatch, name):
    monkeypatch.setattr("localhpo.llm.open_backend", missing, raising=False)
    assert open_creator(make_task(creator=settings(name))).name == name


def test_an_unknown_creator_is_named_with_the_nearest_known_one(make_task):
    with pytest.raises(InputError, match="one of hybrid, agent, random, tpe, gp, cmaes") as caught:
        open_creator(make_task(creator=settings("hybird")))
    assert caught.value.hint == "did you mean 'hybrid'?"


def test_the_model_in_the_lead_pays_off(make_task, knowing):
    """Three trials of a model that knows the field, then GP, beat GP alone early on."""
    task = make_task(space=SPACE)
    alone = make_task(space=SPACE, creator=settings("gp"))

    def best(creator, task, seed):
        return min(t.score for t in run(lambda: creator, task, 5, seed))

    hybrids = [best(open_creator(task, backend=knowing()), task, seed) for seed in range(4)]
    engines = [best(open_creator(alone), alone, seed) for seed in range(4)]
    assert np.mean(hybrids) < np.mean(engines)
