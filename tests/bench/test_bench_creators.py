"""Creators by name, and the wrappers: what they hide, what they keep."""

import dataclasses
import json

import numpy as np
import pytest
from contracts.test_creator_contract import SPACES, Sampling

from localhpo.bench import creators, simulation, sources
from localhpo.bench.anonymous import Anonymous, _Names
from localhpo.bench.pasts import past_of
from localhpo.bench.problems.opening import Places, open_problem
from localhpo.creator import History, open_creator
from localhpo.errors import InputError
from localhpo.llm.protocol import Model
from localhpo.task import CreatorSettings
from localhpo.trial import Cause, Failure, Proposal, State, Trial


@pytest.mark.parametrize(
    ("name", "base", "model", "modifiers"),
    [
        ("hybrid", "hybrid", None, ()),
        ("center+gp", "center+gp", None, ()),
        ("hybrid-no-model", "hybrid-no-model", None, ()),
        ("hybrid-lessons", "hybrid-lessons", None, ()),
        ("agent:anonymous", "agent", None, ("anonymous",)),
        ("hybrid:no-history:anonymous", "hybrid", None, ("no-history", "anonymous")),
        ("hybrid@models/a:b:anonymous", "hybrid", "models/a:b", ("anonymous",)),
        ("agent@sprout", "agent", "sprout", ()),
        ("hybrid:retrieve", "hybrid", None, ("retrieve",)),
        ("hybrid-no-model:retrieve", "hybrid-no-model", None, ("retrieve",)),
    ],
)
def test_a_name_is_taken_apart(name, base, model, modifiers):
    choice = creators.parse(name)
    assert dataclasses.astuple(choice) == (name, base, model, modifiers)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hybird", "did you mean 'hybrid'?"),
        ("center+tpee", "did you mean 'center+tpe'?"),
        ("hybrid:anonymus", "did you mean 'hybrid"),
        ("hybrid@", ""),
        ("", ""),
        ("tpe:anonymous", "leave it at tpe"),
        ("center+gp@models/x", "leave it at center+gp"),
        ("hybrid-no-model:no-history", "leave it at hybrid-no-model"),
    ],
)
def test_a_name_that_is_none(name, hint):
    with pytest.raises(InputError) as caught:
        creators.parse(name)
    assert hint in caught.value.hint


def test_past_studies_are_remembered(tmp_path):
    places = Places(None, tmp_path)
    old, new = (open_problem(f"function/branin/{n}", places) for n in (11, 12))
    without = creators.make(creators.parse("hybrid-no-model"), old.task, None)
    past = past_of(old, without, seed=0, trials=12)
    assert [trial.score for trial in past.trials] == [old.evaluate(t.config) for t in past.trials]
    choice = creators.parse("hybrid-no-model:retrieve")
    rows = simulation.run(new, creators.make(choice, new.task, None, [past]), seed=0, trials=6)
    assert rows[0].origin == "experience"
    assert json.loads(rows[0].config) in [dict(trial.config) for trial in past.trials]
    with pytest.raises(InputError, match="there are none here"):
        creators.make(choice, new.task, None)


def test_the_record_of_past_studies_counts_where_they_are_remembered(tmp_path, monkeypatch):
    problem = open_problem("function/branin/11", Places(None, tmp_path))
    alone = creators.make(creators.parse("hybrid-no-model"), problem.task, None)
    past = past_of(problem, alone, seed=0, trials=4)
    given = []
    monkeypatch.setattr(creators, "open_creator", lambda task, **more: given.append(more["pasts"]))
    backend = Watched(problem.space, "chat")
    for name in ("hybrid:retrieve", "hybrid"):
        creators.make(creators.parse(name), problem.task, backend, [past])
    assert [list(one) for one in given] == [[past], []]


class Watched(Sampling):
    """A model that keeps what it is shown."""

    def __init__(self, space, style="compact"):
        super().__init__(space, style)
        self.model = Model("watched", "0" * 64, 100_000, style)
        self.shown = []

    def generate(self, messages, *args, **more):
        self.shown.append("\n".join(message.content for message in messages))
        return super().generate(messages, *args, **more)


NESTED = SPACES["nested"]


@pytest.fixture
def history(make_task):
    rng = np.random.default_rng(3)
    task = make_task(
        name="secret-task", metric="secret_metric", background="A secret.", space=NESTED
    )
    trials = [
        Trial(i, State.COMPLETE, Proposal(NESTED.sample(rng), "engine:tpe"), score=0.125 + i)
        for i in range(3)
    ]
    failed = Trial(
        3,
        State.FAILED,
        Proposal(NESTED.sample(rng), "model"),
        failure=Failure(Cause.EXIT_CODE, "momentum was secret", "secret"),
        summary="the secret fell",
    )
    return History(task, (*trials, failed), seed=5, next_number=4)


@pytest.mark.parametrize("style", ["compact", "chat"])
def test_an_anonymous_creator_is_told_no_names(history, style):
    backend = Watched(_Names(NESTED).space, style)
    creator = creators.make(creators.parse("agent:anonymous"), history.task, backend)
    (proposal,) = creator.propose(history, 1)
    NESTED.validate(proposal.config)
    (shown,) = set(backend.shown)
    words = ["secret", *NESTED.names, "tree", "net", "sgd", "adam"]
    assert not [word for word in words if f'"{word}"' in shown or f"{word} categorical" in shown]
    assert "secret" not in shown
    assert "128" in shown  # numbers stay
    assert ("0.125" in shown) == (style == "chat")  # and scores, where a prompt has them


@pytest.mark.parametrize("name", SPACES)
def test_anonymous_names_lead_back(name):
    space, rng = SPACES[name], np.random.default_rng(0)
    names = _Names(space)
    assert not set(names.space.names) & set(space.names)
    assert names.space.cardinality == space.cardinality
    for _ in range(30):
        config = space.sample(rng)
        hidden = names.hidden(config)
        names.space.validate(hidden)
        assert names.shown(hidden) == config
        np.testing.assert_array_equal(names.space.encode(hidden), space.encode(config))


def test_anonymous_engines_propose_the_same(history):
    """Names mean nothing to an engine: what changes for a model is knowledge alone."""
    settings = CreatorSettings(name="tpe")
    plain = open_creator(dataclasses.replace(history.task, creator=settings))
    hidden = Anonymous(
        history.task, lambda task: open_creator(dataclasses.replace(task, creator=settings)), "x"
    )
    expected = [p.config for p in plain.propose(history, 2)]
    assert [p.config for p in hidden.propose(history, 2)] == expected


def test_a_model_without_history_is_shown_no_trials(history):
    seeing, blind = Watched(NESTED), Watched(NESTED)
    creator = creators.make(creators.parse("agent:no-history"), history.task, blind)
    (proposal,) = creator.propose(history, 1)
    creators.make(creators.parse("agent"), history.task, seeing).propose(history, 1)
    tried = NESTED.text(history.trials[0].config)
    assert tried in "".join(seeing.shown)
    assert tried not in "".join(blind.shown)
    assert "secret_metric" in "".join(blind.shown)
    known = {NESTED.key(trial.config) for trial in history.trials}
    assert NESTED.key(proposal.config) not in known


def test_both_at_once(history):
    backend = Watched(_Names(NESTED).space)
    name = "agent:anonymous:no-history"
    creators.make(creators.parse(name), history.task, backend).propose(history, 1)
    assert '{"x1":' not in backend.shown[0]
    assert "secret" not in backend.shown[0]


def test_the_center_comes_first_and_then_the_engine(make_task):
    task = make_task()
    creator = creators.make(creators.parse("center+random"), task, None)
    first, second = creator.propose(History(task, (), 0, 0), 2)
    assert first.config == task.space.default()
    assert first.origin == "default"
    assert second.origin == "engine:random"


def test_a_model_is_opened_once(monkeypatch, small_space):
    opened = []

    def open_backend(name, model=None):
        opened.append(model)
        return Watched(small_space)

    monkeypatch.setattr(creators, "open_backend", open_backend)
    backends = creators.Backends()
    plain, other = creators.parse("hybrid"), creators.parse("agent@elsewhere")
    assert backends.of(plain) is backends.of(creators.parse("agent:anonymous"))
    assert backends.of(other) is not backends.of(plain)
    assert backends.of(creators.parse("tpe")) is None
    assert opened == [None, "elsewhere"]
    backends.close()
    backends.close()


def test_digests_follow_the_model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    choice = creators.parse(f"hybrid@{folder}")
    before = creators.digest(choice)
    assert creators.digest(choice) == before
    (folder / "model.safetensors").write_bytes(b"another")
    assert creators.digest(choice) != before
    assert creators.model_digest(creators.parse("tpe")) == ""
    names = (
        "tpe", "hybrid", "agent", "hybrid-lessons", "hybrid-no-model", "hybrid:anonymous",
        "center+tpe",
    )  # fmt: skip
    assert len({creators.digest(creators.parse(name)) for name in names}) == len(names)


def test_an_engine_does_not_depend_on_the_source_of_the_agent():
    engine = sources.reachable("localhpo.creator.engines.engine")
    asking = sources.reachable("localhpo.creator.opening")
    assert "localhpo.creator.engines.samplers" in engine
    assert "localhpo.space.numeric" in engine
    assert "localhpo.creator.agent" not in engine
    assert {"localhpo.creator.agent", "localhpo.grammar.lark"} <= asking
    assert engine < asking
