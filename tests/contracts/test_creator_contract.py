"""The laws of `localhpo.creator.protocol`, run over every Creator."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from localhpo.creator import Creator, History, open_creator
from localhpo.creator.batch import with_queued
from localhpo.creator.hybrid import Hybrid
from localhpo.creator.meta_proposer import MetaDataProposer
from localhpo.creator.prompt import Style
from localhpo.errors import BackendError, SpaceExhaustedError
from localhpo.llm import Backend, open_backend
from localhpo.llm.protocol import AnswerConstraint, Completion, Message, Model
from localhpo.llm.scripted import ScriptedBackend
from localhpo.objective import Constraint, Objective
from localhpo.space import Categorical, Float, Int, Ordinal, Space
from localhpo.task import CreatorSettings, Task
from localhpo.transfer import PastStudy, RetrievedConfig, retrieve_configs
from localhpo.transfer.source_tasks import SourceTask
from localhpo.trial import Cause, Failure, Origin, Proposal, State, Trial

SPACES = {
    "plain": Space([Float("rate", 1e-4, 1.0, log=True), Int("depth", 1, 10)]),
    "nested": Space(
        [
            Categorical("model", ("tree", "net", "line")),
            Int("depth", 1, 8, default=3, when={"model": ("tree",)}),
            Categorical("optimizer", ("sgd", "adam"), when={"model": ("net",)}),
            Float("momentum", -0.5, 0.99, when={"optimizer": ("sgd",)}),
            Ordinal("batch", (32, 64, 128)),
        ]
    ),
    "five": Space([Ordinal("batch", (8, 16, 32, 64, 128))]),
    "one": Space([Int("depth", 3, 3)]),
    # Steps too fine for Optuna, ranges huge, tiny and of one value, names that need escapes.
    "awkward": Space(
        [
            Float("fine", 0.0, 1.0, step=1e-9),
            Float("only", 0.5, 0.5),
            Float("tiny", 1.0, 1.0000001, log=True),
            Float("wide", -1e20, 1e20),
            Float('a "name".of ß', 0.0, 1e-20),
            Int("rows", 1, 1_000_000),
            Categorical("mode|", (True, False, 'a|"b"', "")),
            Int("最適化", -3, 40, step=7, when={"mode|": ("", False)}),
        ]
    ),
}


class Sampling:
    """A backend whose model knows the space and nothing else; scripted to be deterministic."""

    def __init__(self, space: Space, style: Style) -> None:
        self._space = space
        self._chat = style == "chat"
        self.model = Model("sampling", "0" * 64, 100_000, style)
        self.server = None
        self.on_device = None

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) for message in messages)

    def generate(
        self,
        messages: Sequence[Message],
        constraint: AnswerConstraint,
        *,
        n: int = 1,
        max_tokens: int = 1024,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[Completion]:
        return [self._one(seed + sample) for sample in range(n)]

    def close(self) -> None:
        pass

    def _one(self, seed: int) -> Completion:
        text = self._space.text(self._space.sample(np.random.default_rng(seed)))
        if self._chat:
            text = f'{{"analysis":"A draw.","config":{text},"evidence":[]}}'
        return Completion(text, 10, 10, 0.0, seed)


class Failing(Sampling):
    """A backend that is always down."""

    def generate(self, *args: Any, **kwargs: Any) -> list[Completion]:
        raise BackendError("down")


@dataclass(frozen=True)
class Case:
    make: Callable[[Task], Creator]
    origins: frozenset[str]


def engine(name: str) -> Case:
    return Case(lambda task: open_creator(_set(task, name)), frozenset({name}))


def model(name: str, style: Style, backend: type[Sampling], origins: set[str]) -> Case:
    def make(task: Task) -> Creator:
        return open_creator(_set(task, name), backend=backend(task.space, style))

    return Case(make, frozenset(origins))


def scripted(task: Task) -> Creator:
    """Ask the backend that ships for scripts; it checks each answer against the grammar."""

    def script(messages: Sequence[Message], constraint: AnswerConstraint, seed: int) -> str:
        text = task.space.text(task.space.sample(np.random.default_rng(seed)))
        return f'{{"analysis":"A draw.","config":{text},"evidence":[]}}'

    return open_creator(_set(task, "agent"), backend=ScriptedBackend(script))


@functools.cache
def built_in() -> Backend:
    """Load the model that ships, once for all tests."""
    return open_backend("transformers")


def real(name: str, origins: set[str]) -> Case:
    return Case(lambda task: open_creator(_set(task, name), backend=built_in()), frozenset(origins))


def retrieved(task: Task) -> tuple[RetrievedConfig, ...]:
    """Return what is retrieved from a study of random trials of the same task."""
    rng = np.random.default_rng(11)
    trials = tuple(
        Trial(
            n,
            State.COMPLETE,
            Proposal(task.space.sample(rng), Origin.parse("random")),
            values=(float(n),),
        )
        for n in range(20)
    )
    return retrieve_configs(task, [PastStudy("small/old", task, trials)])


def with_past_studies(task: Task) -> Creator:
    backend = Sampling(task.space, "compact")
    return open_creator(_set(task, "hybrid"), backend=backend, retrieved=retrieved(task))


def with_meta_data(task: Task) -> Creator:
    """Return the hybrid with a source task on the same space: random regrets on four data sets."""
    rng = np.random.default_rng(12)
    configs = {task.space.key(c): c for c in (task.space.sample(rng) for _ in range(40))}
    regrets = rng.uniform(0.0, 1.5, (4, len(configs)))
    source = SourceTask(
        task=task.single_objective, configs=tuple(configs.values()),
        data_sets=("a", "b", "c", "d"), regrets=tuple(tuple(map(float, row)) for row in regrets),
        lengths=(1.0,) * len(task.space), noise=0.1,
    )  # fmt: skip
    return Hybrid(None, meta_data=MetaDataProposer("small", [(source, 1.0)]))


def _set(task: Task, name: str) -> Task:
    return replace(task, creator=CreatorSettings(name=name, on_model_error="engine"))


FALLBACK = {"bo"}
WITH_SAMPLES = {"llm", "bo+llm", "default"} | FALLBACK
WITH_PAST_STUDIES = {"transfer", "bo+transfer", "bo+llm+transfer", "default"} | FALLBACK
WITH_META_DATA = {"meta", "bo+meta", "default"} | FALLBACK
CASES = {
    "bo": engine("bo"),
    "random": engine("random"),
    "tpe": engine("tpe"),
    "gp": engine("gp"),
    "cmaes": engine("cmaes"),
    "nsga2": engine("nsga2"),
    "agent, scripted": Case(scripted, frozenset({"llm"} | FALLBACK)),
    "agent, compact": model("agent", "compact", Sampling, {"llm"} | FALLBACK),
    "agent, down": model("agent", "chat", Failing, FALLBACK),
    "agent, built-in model": real("agent", {"llm"} | FALLBACK),
    "hybrid, built-in model": real("hybrid", WITH_SAMPLES),
    "hybrid, compact": model("hybrid", "compact", Sampling, WITH_SAMPLES),
    "hybrid, chat": model("hybrid", "chat", Sampling, {"llm", "default"} | FALLBACK),
    "hybrid, down": model("hybrid", "compact", Failing, {"default"} | FALLBACK),
    "hybrid, no model": Case(
        lambda task: Hybrid(None, note="no model"), frozenset({"default"} | FALLBACK)
    ),
    "hybrid, past studies": Case(with_past_studies, frozenset(WITH_PAST_STUDIES)),
    "hybrid, meta-data": Case(with_meta_data, frozenset(WITH_META_DATA)),
    "hybrid, no model, past studies": Case(
        lambda task: Hybrid(None, retrieved=retrieved(task)), frozenset(WITH_PAST_STUDIES)
    ),
}
ONE_OBJECTIVE = [name for name in CASES if name.startswith(("bo", "agent", "hybrid"))]
"""Creators that optimize the first objective of a task."""
SEVERAL_OBJECTIVES = ("random", "tpe", "gp", "nsga2")
"""Creators that optimize all objectives of a task under its constraints."""


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(params=["plain", "nested", "awkward"])
def task(request: pytest.FixtureRequest, make_task: Callable[..., Task]) -> Task:
    return make_task(space=SPACES[request.param])


@pytest.fixture
def creator(case: Case, task: Task) -> Iterator[Creator]:
    creator = case.make(task)
    yield creator
    creator.close()
    creator.close()


def past(task: Task, make_trial: Callable[..., Trial], states: Sequence[State]) -> History:
    """Return a history of random trials, one per state."""
    rng = np.random.default_rng(7)
    trials: list[Trial] = []
    keys: set[str] = set()
    while len(trials) < len(states):
        config = task.space.sample(rng)
        if task.space.key(config) in keys:
            continue
        keys.add(task.space.key(config))
        number = len(trials)
        state = states[number]
        trials.append(
            make_trial(
                number,
                config,
                state,
                values=(float(rng.random()),) if state in (State.COMPLETE, State.PRUNED) else (),
                failure=Failure(Cause.TIMEOUT, "too slow") if state is State.FAILED else None,
                origin=("llm", "tpe", "user")[number % 3],
            )
        )
    return History(task, tuple(trials), seed=11, next_number=len(trials))


HISTORIES = {
    "none": [],
    "few": [State.COMPLETE] * 4,
    "every state": [*State, *State],
    "failures": [State.FAILED] * 6,
}


@pytest.mark.parametrize("states", HISTORIES.values(), ids=HISTORIES)
def test_proposals_are_canonical_new_and_of_true_origin(creator, case, task, make_trial, states):
    history = past(task, make_trial, states)
    proposals = creator.propose(history, 3)
    assert 1 <= len(proposals) <= 3
    known = {task.space.key(trial.config) for trial in history.trials}
    numbers = {trial.number for trial in history.trials}
    for proposal in proposals:
        task.space.validate(proposal.config)
        assert task.space.key(proposal.config) not in known
        known.add(task.space.key(proposal.config))
        assert str(proposal.origin) in case.origins
        assert set(proposal.evidence) <= numbers
        assert proposal.rationale
        assert proposal.rationale_by in ("model", "computed")
        assert proposal.tries >= 1
        assert json.loads(json.dumps(dict(proposal.engine_state))) == dict(proposal.engine_state)
    assert len(proposals) == 3, "these spaces hold plenty more"


def test_the_same_history_gives_the_same_proposals(creator, case, task, make_trial):
    history = past(task, make_trial, HISTORIES["every state"])
    other = case.make(task)
    first, second, again = (one.propose(history, 2) for one in (creator, other, creator))
    other.close()
    assert [p.config for p in first] == [p.config for p in second] == [p.config for p in again]
    assert [p.origin for p in first] == [p.origin for p in second]
    assert [p.seed for p in first] == [p.seed for p in second]


def test_asking_for_two_is_asking_twice(creator, task, make_trial):
    history = past(task, make_trial, HISTORIES["few"])
    (first,) = creator.propose(history, 1)
    (second,) = creator.propose(with_queued(history, first), 1)
    both = creator.propose(history, 2)
    assert [p.config for p in both] == [first.config, second.config]


@pytest.mark.parametrize("name", ONE_OBJECTIVE)
def test_of_several_objectives_the_first_counts(make_task, make_trial, name):
    first = make_task(space=SPACES["plain"])
    objectives = (*first.objectives, Objective("accuracy", "maximize"))
    several = replace(first, objectives=objectives, constraints=(Constraint("size", max=1.0),))
    history = past(first, make_trial, HISTORIES["few"])
    trials = tuple(
        t.with_(values=(*t.values, float(t.number)), violations=(1.0,)) for t in history.trials
    )
    creator, other = CASES[name].make(first), CASES[name].make(several)
    alone = creator.propose(history, 2)
    beside = other.propose(replace(history, task=several, trials=trials), 2)
    assert [p.config for p in alone] == [p.config for p in beside]
    creator.close()
    other.close()


@pytest.mark.parametrize("setting", ["plain", "nested"])
@pytest.mark.parametrize("name", SEVERAL_OBJECTIVES)
def test_laws_hold_for_several_objectives_and_constraints(make_task, make_trial, name, setting):
    task = make_task(
        space=SPACES[setting],
        objectives=(Objective("loss", "minimize"), Objective("accuracy", "maximize")),
        constraints=(Constraint("size", max=1.0), Constraint("wall_s", max=9.0)),
    )
    history = past(task, make_trial, [*HISTORIES["every state"], *HISTORIES["few"]])
    trials = tuple(
        t.with_(values=(*t.values, float(t.number)), violations=(t.number - 9.0, -1.0))
        if t.state is State.COMPLETE
        else t.with_(values=())
        for t in history.trials
    )
    history = replace(history, trials=trials)
    proposals = CASES[name].make(task).propose(history, 2)
    known = {task.space.key(trial.config) for trial in trials}
    for proposal in proposals:
        task.space.validate(proposal.config)
        assert task.space.key(proposal.config) not in known
        known.add(task.space.key(proposal.config))
        assert str(proposal.origin) == name
        assert json.loads(json.dumps(dict(proposal.engine_state))) == dict(proposal.engine_state)
    again = CASES[name].make(task).propose(history, 2)
    assert [p.config for p in proposals] == [p.config for p in again]
    assert [p.seed for p in proposals] == [p.seed for p in again]


@pytest.mark.parametrize("name", ["one", "five"])
def test_a_tiny_space_is_searched_completely_and_then_exhausted(case, make_task, name):
    space = SPACES[name]
    task = make_task(space=space)
    creator = case.make(task)
    trials: list[Trial] = []
    while len(trials) < space.cardinality:
        (proposal,) = creator.propose(History(task, tuple(trials), 2, len(trials)), 1)
        trials.append(Trial(len(trials), State.COMPLETE, proposal, values=(float(len(trials)),)))
    assert len({space.key(trial.config) for trial in trials}) == space.cardinality
    with pytest.raises(SpaceExhaustedError):
        creator.propose(History(task, tuple(trials), 2, len(trials)), 1)
    creator.close()


def test_more_than_is_left_gives_what_is_left(case, make_task):
    task = make_task(space=SPACES["five"])
    creator = case.make(task)
    assert len(creator.propose(History(task, (), 0, 0), 9)) == 5
    creator.close()


def test_the_name_is_the_one_it_is_selected_by(creator):
    assert creator.name in ("bo", "random", "tpe", "gp", "cmaes", "nsga2", "agent", "hybrid")
