"""The laws of `localhpo.creator.protocol`, run over every Creator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from localhpo.creator import CREATORS, Creator, open_creator
from localhpo.creator.hybrid import HybridCreator
from localhpo.creator.meta_data import MetaDataSource
from localhpo.creator.prompt import Style
from localhpo.creator.protocol import with_queued
from localhpo.errors import BackendError, InputError
from localhpo.llm import Backend, open_backend
from localhpo.llm.protocol import AnswerConstraint, Completion, GenerationRequest, Message, Model
from localhpo.llm.scripted import ScriptedBackend
from localhpo.objective import Constraint, Objective
from localhpo.space import Space
from localhpo.task import CreatorSettings, Task
from localhpo.testing import HISTORIES, SPACES, CreatorContract, make_history, make_task
from localhpo.transfer import PastStudy, RetrievedConfig, retrieve_configs
from localhpo.transfer.source_tasks import SourceTask
from localhpo.trial import Origin, Proposal, State, Trial


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

    def generate(self, request: GenerationRequest) -> list[Completion]:
        return [self._one(request, request.seed + sample) for sample in range(request.n)]

    def close(self) -> None:
        pass

    def _one(self, request: GenerationRequest, seed: int) -> Completion:
        text = self._space.text(self._space.sample(np.random.default_rng(seed)))
        if self._chat and "analysis" in str(request.constraint.schema):
            text = f'{{"analysis":"A draw.","config":{text},"evidence":[]}}'
        return Completion(text, 10, 10, 0.0, seed)


class Failing(Sampling):
    """A backend that is always down."""

    def generate(self, request: GenerationRequest) -> list[Completion]:
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
    return HybridCreator(meta_data=MetaDataSource("small", [(source, 1.0)]))


def _set(task: Task, name: str) -> Task:
    return replace(task, creator=CreatorSettings(name=name, on_model_error="engine"))


FALLBACK = {"bo", "default"}
WITH_SAMPLES = {"llm", "bo+llm", "default"} | FALLBACK
WITH_PAST_STUDIES = {"transfer", "bo+transfer", "bo+llm+transfer", "default"} | FALLBACK
WITH_META_DATA = {"meta", "bo+meta", "default"} | FALLBACK
CASES = {
    **{name: engine(name) for name in CREATORS.names if name not in ("hybrid", "agent")},
    "agent, scripted": Case(scripted, frozenset({"llm"} | FALLBACK)),
    "agent, compact": model("agent", "compact", Sampling, {"llm"} | FALLBACK),
    "agent, down": model("agent", "chat", Failing, FALLBACK),
    "agent, built-in model": real("agent", {"llm"} | FALLBACK),
    "hybrid, built-in model": real("hybrid", WITH_SAMPLES),
    "hybrid, compact": model("hybrid", "compact", Sampling, WITH_SAMPLES),
    "hybrid, chat": model("hybrid", "chat", Sampling, WITH_SAMPLES),
    "hybrid, down": model("hybrid", "compact", Failing, {"default"} | FALLBACK),
    "hybrid, no model": Case(
        lambda task: HybridCreator(note="no model"), frozenset({"default"} | FALLBACK)
    ),
    "hybrid, past studies": Case(with_past_studies, frozenset(WITH_PAST_STUDIES)),
    "hybrid, meta-data": Case(with_meta_data, frozenset(WITH_META_DATA)),
    "hybrid, no model, past studies": Case(
        lambda task: HybridCreator(retrieved=retrieved(task)), frozenset(WITH_PAST_STUDIES)
    ),
}
ONE_OBJECTIVE = [name for name in CASES if name.startswith(("bo", "agent", "hybrid"))]
"""Creators that optimize the first objective of a task."""


class TestCreators(CreatorContract):
    @pytest.fixture(params=CASES.values(), ids=CASES)
    def case(self, request: pytest.FixtureRequest) -> Case:
        return request.param

    @pytest.fixture
    def make_creator(self, case: Case) -> Callable[[Task], Creator]:
        return case.make

    @pytest.fixture
    def origins(self, case: Case) -> frozenset[str]:
        return case.origins

    def test_asking_for_two_is_asking_twice(self, creator: Creator, large_task: Task) -> None:
        history = make_history(large_task, HISTORIES["few"])
        (first,) = creator.propose(history, 1)
        (second,) = creator.propose(with_queued(history, first), 1)
        both = creator.propose(history, 2)
        assert [p.config for p in both] == [first.config, second.config]


@pytest.mark.parametrize("name", ONE_OBJECTIVE)
def test_of_several_objectives_the_first_counts(name: str) -> None:
    first = make_task(SPACES["plain"])
    objectives = (*first.objectives, Objective("accuracy", "maximize"))
    several = replace(first, objectives=objectives, constraints=(Constraint("size", max=1.0),))
    history = make_history(first, HISTORIES["few"])
    trials = tuple(
        t.with_(values=(*t.values, float(t.number)), violations=(1.0,)) for t in history.trials
    )
    creator, other = CASES[name].make(first), CASES[name].make(several)
    alone = creator.propose(history, 2)
    beside = other.propose(replace(history, task=several, trials=trials), 2)
    assert [p.config for p in alone] == [p.config for p in beside]
    creator.close()
    other.close()


def test_the_other_creators_take_several_objectives_or_refuse_them() -> None:
    several = (Objective("loss", "minimize"), Objective("accuracy", "maximize"))
    task = make_task(SPACES["plain"], objectives=several)
    taking = [name for name in CREATORS.names if name not in ("bo", "agent", "hybrid", "cmaes")]
    for name in taking:
        open_creator(_set(task, name)).close()
    with pytest.raises(InputError, match="one objective"):
        open_creator(_set(task, "cmaes"))
