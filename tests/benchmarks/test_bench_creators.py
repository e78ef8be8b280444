"""Creators by name, and the wrappers: what they hide, what they keep."""

import dataclasses
import json

import numpy as np
import pytest
from contracts.test_creator_contract import SPACES, Sampling

from localhpo.creator import History, open_creator
from localhpo.errors import InputError
from localhpo.grammar import lark_grammar
from localhpo.llm.protocol import AnswerConstraint, GenerationRequest, Message, Model
from localhpo.llm.scripted import ScriptedBackend
from localhpo.objective import Objective
from localhpo.space import Float, Space
from localhpo.task import CreatorSettings
from localhpo.transfer import retrieve_configs
from localhpo.trial import Cause, Failure, Origin, Proposal, State, Trial
from scripts.benchmarks import creators, simulation
from scripts.benchmarks.controls import AnonymousCreator, NameMapping, StoredDrawsBackend
from scripts.benchmarks.problems.registry import DataFolders, open_problem
from scripts.benchmarks.simulation import run_past_study


@pytest.mark.parametrize(
    ("name", "base", "model", "modifiers"),
    [
        ("hybrid", "hybrid", None, ()),
        ("center+gp", "center+gp", None, ()),
        ("hybrid-no-model", "hybrid-no-model", None, ()),
        ("hybrid-meta", "hybrid-meta", None, ()),
        ("agent:anonymous", "agent", None, ("anonymous",)),
        ("hybrid:no-history:anonymous", "hybrid", None, ("no-history", "anonymous")),
        ("hybrid@models/a:b:anonymous", "hybrid", "models/a:b", ("anonymous",)),
        ("agent@sprout", "agent", "sprout", ()),
        ("hybrid:retrieve", "hybrid", None, ("retrieve",)),
        ("hybrid-no-model:retrieve", "hybrid-no-model", None, ("retrieve",)),
    ],
)
def test_a_name_is_parsed(name, base, model, modifiers):
    choice = creators.parse_name(name)
    assert dataclasses.astuple(choice) == (name, base, model, modifiers)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hybird", "did you mean 'hybrid'?"),
        ("center+tpee", "did you mean 'center+tpe'?"),
        ("hybrid:anonymus", "did you mean 'hybrid"),
        ("hybrid@", ""),
        ("", ""),
        ("tpe:anonymous", "write tpe"),
        ("center+gp@models/x", "write center+gp"),
        ("hybrid-no-model:no-history", "write hybrid-no-model"),
    ],
)
def test_an_unknown_name_is_an_error(name, hint):
    with pytest.raises(InputError) as caught:
        creators.parse_name(name)
    assert hint in caught.value.hint


def test_past_studies_are_retrieved(tmp_path):
    folders = DataFolders(None, tmp_path)
    old, new = (open_problem(f"function/branin/{n}", folders) for n in (11, 12))
    without = creators.make_creator(creators.parse_name("hybrid-no-model"), old.task, None)
    past = run_past_study(old, without, seed=0, trials=12)
    assert [trial.value for trial in past.trials] == [old.evaluate(t.config) for t in past.trials]
    choice = creators.parse_name("hybrid-no-model:retrieve")
    rows = simulation.run_study(
        new, creators.make_creator(choice, new.task, None, [past]), seed=0, trials=6
    )
    assert str(rows[0].origin) == "transfer"
    assert json.loads(rows[0].config) in [dict(trial.config) for trial in past.trials]
    with pytest.raises(InputError, match="this command has none"):
        creators.make_creator(choice, new.task, None)


def test_past_studies_are_given_to_creators_with_retrieve_alone(tmp_path, monkeypatch):
    problem = open_problem("function/branin/11", DataFolders(None, tmp_path))
    alone = creators.make_creator(creators.parse_name("hybrid-no-model"), problem.task, None)
    past = run_past_study(problem, alone, seed=0, trials=8)
    given = []
    monkeypatch.setattr(
        creators, "open_creator", lambda task, **more: given.append(more["retrieved"])
    )
    backend = RecordingBackend(problem.space, "chat")
    for name in ("hybrid:retrieve", "hybrid"):
        creators.make_creator(creators.parse_name(name), problem.task, backend, [past])
    with_past, without = given
    assert with_past == retrieve_configs(problem.task, [past])
    assert with_past
    assert without == ()


class RecordingBackend(Sampling):
    """A backend that records its prompts."""

    def __init__(self, space, style="compact"):
        super().__init__(space, style)
        self.model = Model("recording", "0" * 64, 100_000, style)
        self.shown = []

    def generate(self, request):
        self.shown.append("\n".join(message.content for message in request.messages))
        return super().generate(request)


NESTED = SPACES["nested"]


@pytest.fixture
def history(make_task):
    rng = np.random.default_rng(3)
    task = make_task(
        name="secret-task",
        objectives=(Objective("secret_metric"),),
        background="A secret.",
        space=NESTED,
    )
    trials = [
        Trial(
            i,
            State.COMPLETE,
            Proposal(NESTED.sample(rng), Origin.parse("tpe")),
            values=(0.125 + i,),
        )
        for i in range(3)
    ]
    failed = Trial(
        3,
        State.FAILED,
        Proposal(NESTED.sample(rng), Origin.parse("llm")),
        failure=Failure(Cause.EXIT_CODE, "momentum was secret", "secret"),
        summary="the secret fell",
    )
    return History(task, (*trials, failed), seed=5, next_number=4)


@pytest.mark.parametrize("style", ["compact", "chat"])
def test_an_anonymous_creator_sees_no_names(history, style):
    backend = RecordingBackend(NameMapping(NESTED).space, style)
    creator = creators.make_creator(creators.parse_name("agent:anonymous"), history.task, backend)
    (proposal,) = creator.propose(history, 1)
    NESTED.validate(proposal.config)
    (shown,) = set(backend.shown)
    words = ["secret", *NESTED.names, "tree", "net", "sgd", "adam"]
    assert not [word for word in words if f'"{word}"' in shown or f"{word} categorical" in shown]
    assert "secret" not in shown
    assert "128" in shown  # numbers stay
    assert ("0.125" in shown) == (style == "chat")  # and values, where a prompt has them


@pytest.mark.parametrize("name", SPACES)
def test_hidden_names_can_be_restored(name):
    space, rng = SPACES[name], np.random.default_rng(0)
    names = NameMapping(space)
    assert not set(names.space.names) & set(space.names)
    assert names.space.cardinality == space.cardinality
    for _ in range(30):
        config = space.sample(rng)
        hidden = names.hide(config)
        names.space.validate(hidden)
        assert names.restore(hidden) == config
        np.testing.assert_array_equal(names.space.encode(hidden), space.encode(config))


def test_anonymous_engines_propose_the_same(history):
    """Engines do not read names, so only a model proposes something else."""
    settings = CreatorSettings(name="tpe")
    plain = open_creator(dataclasses.replace(history.task, creator=settings))
    hidden = AnonymousCreator(
        history.task, lambda task: open_creator(dataclasses.replace(task, creator=settings)), "x"
    )
    expected = [p.config for p in plain.propose(history, 2)]
    assert [p.config for p in hidden.propose(history, 2)] == expected


def test_a_model_without_history_sees_no_trials(history):
    shown, hidden = RecordingBackend(NESTED), RecordingBackend(NESTED)
    creator = creators.make_creator(creators.parse_name("agent:no-history"), history.task, hidden)
    (proposal,) = creator.propose(history, 1)
    creators.make_creator(creators.parse_name("agent"), history.task, shown).propose(history, 1)
    tried = NESTED.text(history.trials[0].config)
    assert tried in "".join(shown.shown)
    assert tried not in "".join(hidden.shown)
    assert "secret_metric" in "".join(hidden.shown)
    known = {NESTED.key(trial.config) for trial in history.trials}
    assert NESTED.key(proposal.config) not in known


def test_modifiers_can_be_combined(history):
    backend = RecordingBackend(NameMapping(NESTED).space)
    name = "agent:anonymous:no-history"
    creators.make_creator(creators.parse_name(name), history.task, backend).propose(history, 1)
    assert '{"x1":' not in backend.shown[0]
    assert "secret" not in backend.shown[0]


def test_the_center_comes_first_and_then_the_engine(make_task):
    task = make_task()
    creator = creators.make_creator(creators.parse_name("center+random"), task, None)
    first, second = creator.propose(History(task, (), 0, 0), 2)
    assert first.config == task.space.default()
    assert str(first.origin) == "default"
    assert str(second.origin) == "random"


def test_a_model_is_opened_once(monkeypatch, small_space):
    opened = []

    def open_backend(name, model=None):
        opened.append(model)
        return RecordingBackend(small_space)

    monkeypatch.setattr(creators, "open_backend", open_backend)
    backends = creators.Backends()
    plain, other = creators.parse_name("hybrid"), creators.parse_name("agent@elsewhere")
    assert backends.get(plain) is backends.get(creators.parse_name("agent:anonymous"))
    assert backends.get(other) is not backends.get(plain)
    assert backends.get(creators.parse_name("tpe")) is None
    assert opened == [None, "elsewhere"]
    backends.close()
    backends.close()


def test_a_slow_model_is_asked_once_for_each_of_its_draws(tmp_path):
    space = Space([Float("x", 0.0, 1.0)])
    asked = []

    def script(messages, constraint, seed):
        asked.append(seed)
        return space.text({"x": round(seed % 97 / 97, 2)})

    constraint = AnswerConstraint(lark_grammar(space, rationale=False), {})
    texts = {}
    for seed in (*range(6), *range(6)):
        backend = StoredDrawsBackend(ScriptedBackend(script), tmp_path / "draws")
        request = GenerationRequest([Message("user", "x?")], constraint, n=2, seed=seed)
        texts.setdefault(seed % 3, set()).add(tuple(c.text for c in backend.generate(request)))
    assert len(asked) == 3 * 2
    assert all(len(found) == 1 for found in texts.values())
    assert len(set.union(*texts.values())) == 3
