"""Contract tests for creators, backends and pruners of plug-ins, to be run by pytest.

Each class holds the laws of one protocol as tests. A plug-in's test derives from it and names the
plug-in, or overrides the fixture that makes the thing:

    from localhpo.testing import CreatorContract

    class TestLadder(CreatorContract):
        name = "ladder"  # as in the entry point

So that pytest shows the values in a failed test, `conftest.py` needs this line, before anything
imports this module:

    pytest.register_assert_rewrite("localhpo.testing")

LocalHPO's own tests in `tests/contracts` run the same classes over every implementation that ships.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from localhpo import grammar
from localhpo.creator import CREATORS, Creator, History, open_creator
from localhpo.errors import (
    BackendError,
    ConfigurationError,
    ConstraintError,
    GenerationError,
    InputError,
    SpaceExhaustedError,
)
from localhpo.llm import AnswerConstraint, Backend, GenerationRequest, Message, open_backend
from localhpo.objective import Constraint, Objective
from localhpo.scheduler.pruning import Pruner, make_pruner
from localhpo.space import Categorical, Float, Int, Ordinal, Space
from localhpo.task import CreatorSettings, PrunerSettings, Task
from localhpo.trial import Cause, Failure, Measurement, Origin, Proposal, State, Trial

SPACES: Mapping[str, Space] = {
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
    "five": Space([Ordinal("batch", (8, 16, 32, 64, 128))]),
    "one": Space([Int("depth", 3, 3)]),
}
"""Spaces in which a creator is tried."""

LARGE_SPACES = ("plain", "nested", "awkward")
"""Spaces that hold plenty of configurations."""

HISTORIES: Mapping[str, Sequence[State]] = {
    "none": [],
    "few": [State.COMPLETE] * 4,
    "every state": [*State, *State],
    "failures": [State.FAILED] * 6,
}
"""States of the trials of a study so far."""


def make_task(space: Space, **changes: Any) -> Task:
    """Return a task that is never run: to minimize `loss` in a space."""
    task = Task("contract", (), (Objective("loss", "minimize"),), space)
    return replace(task, **changes)


def make_history(task: Task, states: Sequence[State]) -> History:
    """Return a history of different random trials, one for each state."""
    rng = np.random.default_rng(7)
    configs: dict[str, Any] = {}
    while len(configs) < len(states):
        config = task.space.sample(rng)
        configs.setdefault(task.space.key(config), config)
    trials = [
        Trial(
            number,
            state,
            Proposal(config, Origin.parse(("llm", "tpe", "user")[number % 3])),
            values=(float(rng.random()),) if state in (State.COMPLETE, State.PRUNED) else (),
            failure=Failure(Cause.TIMEOUT, "too slow") if state is State.FAILED else None,
        )
        for number, (state, config) in enumerate(zip(states, configs.values(), strict=True))
    ]
    return History(task, tuple(trials), seed=11, next_number=len(trials))


class CreatorContract:
    """Laws of a Creator: see `localhpo.creator.protocol`."""

    name = ""
    """Name of the creator in the registry."""

    @pytest.fixture
    def make_creator(self) -> Callable[[Task], Creator]:
        """Return a function that makes the creator for a task."""

        def make(task: Task) -> Creator:
            return open_creator(replace(task, creator=CreatorSettings(self.name)))

        return make

    @pytest.fixture
    def origins(self) -> frozenset[str]:
        """Return the origins that its proposals may have."""
        return frozenset({self.name})

    @pytest.fixture(params=LARGE_SPACES)
    def large_task(self, request: pytest.FixtureRequest) -> Task:
        """Return a task with plenty of configurations."""
        return make_task(SPACES[request.param])

    @pytest.fixture
    def creator(
        self, make_creator: Callable[[Task], Creator], large_task: Task
    ) -> Iterator[Creator]:
        """Return the creator for a large task. Closing it twice does no harm."""
        creator = make_creator(large_task)
        yield creator
        creator.close()
        creator.close()

    def test_its_name_is_registered(self, creator: Creator) -> None:
        """A user selects it by its name."""
        assert creator.name in CREATORS.names

    @pytest.mark.parametrize("states", HISTORIES.values(), ids=HISTORIES)
    def test_proposals_are_canonical_new_and_of_true_origin(
        self, creator: Creator, large_task: Task, states: Sequence[State], origins: frozenset[str]
    ) -> None:
        """They are as many as were asked for, with a reason, whatever the states of the trials."""
        history = make_history(large_task, states)
        proposals = creator.propose(history, 3)
        check_proposals(proposals, history, origins)
        assert len(proposals) == 3, "these spaces hold plenty more"

    def test_the_same_history_gives_the_same_proposals(
        self, creator: Creator, make_creator: Callable[[Task], Creator], large_task: Task
    ) -> None:
        """In a new creator, and in one that has proposed already."""
        history = make_history(large_task, HISTORIES["every state"])
        other = make_creator(large_task)
        first, second, again = (one.propose(history, 2) for one in (creator, other, creator))
        other.close()
        assert [p.config for p in first] == [p.config for p in second] == [p.config for p in again]
        assert [p.origin for p in first] == [p.origin for p in second]
        assert [p.seed for p in first] == [p.seed for p in second]

    @pytest.mark.parametrize("space", ["plain", "nested"])
    def test_several_objectives_and_constraints_are_refused_or_no_obstacle(
        self, make_creator: Callable[[Task], Creator], origins: frozenset[str], space: str
    ) -> None:
        """It may refuse them when it is opened."""
        goals = (Objective("loss", "minimize"), Objective("accuracy", "maximize"))
        limits = (Constraint("size", max=1.0), Constraint("wall_s", max=9.0))
        task = make_task(SPACES[space], objectives=goals, constraints=limits)
        try:
            creator, other = make_creator(task), make_creator(task)
        except InputError:
            return
        history = make_history(task, [*HISTORIES["every state"], *HISTORIES["few"]])
        trials = tuple(
            t.with_(values=(*t.values, float(t.number)), violations=(t.number - 9.0, -1.0))
            if t.state is State.COMPLETE
            else t.with_(values=())
            for t in history.trials
        )
        history = replace(history, trials=trials)
        proposals, again = creator.propose(history, 2), other.propose(history, 2)
        check_proposals(proposals, history, origins)
        assert [(p.config, p.seed) for p in proposals] == [(p.config, p.seed) for p in again]
        creator.close()
        other.close()

    @pytest.mark.parametrize("name", ["one", "five"])
    def test_a_tiny_space_is_searched_completely_and_then_exhausted(
        self, make_creator: Callable[[Task], Creator], name: str
    ) -> None:
        """Each of its configurations is proposed once."""
        space = SPACES[name]
        task = make_task(space)
        creator = make_creator(task)
        trials: list[Trial] = []
        while len(trials) < space.cardinality:
            (proposal,) = creator.propose(History(task, tuple(trials), 2, len(trials)), 1)
            ended = Trial(len(trials), State.COMPLETE, proposal, values=(float(len(trials)),))
            trials.append(ended)
        assert len({space.key(trial.config) for trial in trials}) == space.cardinality
        with pytest.raises(SpaceExhaustedError):
            creator.propose(History(task, tuple(trials), 2, len(trials)), 1)
        creator.close()

    def test_more_than_is_left_gives_what_is_left(
        self, make_creator: Callable[[Task], Creator]
    ) -> None:
        """Not an error, as long as anything is left."""
        task = make_task(SPACES["five"])
        creator = make_creator(task)
        assert len(creator.propose(History(task, (), 0, 0), 9)) == 5
        creator.close()


def check_proposals(
    proposals: Sequence[Proposal], history: History, origins: frozenset[str]
) -> None:
    """Check that proposals are canonical, new, of a known origin, and can be stored."""
    space = history.task.space
    known = {space.key(trial.config) for trial in history.trials}
    numbers = {trial.number for trial in history.trials}
    for proposal in proposals:
        space.validate(proposal.config)
        assert space.key(proposal.config) not in known
        known.add(space.key(proposal.config))
        assert str(proposal.origin) in origins
        assert set(proposal.evidence) <= numbers
        assert proposal.rationale
        assert proposal.rationale_by in ("model", "computed")
        assert proposal.tries >= 1
        assert json.loads(json.dumps(dict(proposal.engine_state))) == dict(proposal.engine_state)


@dataclass(frozen=True)
class ConstraintCase:
    """A constraint, and whether a value that was read from an answer keeps it."""

    constraint: AnswerConstraint
    holds: Callable[[Any], bool]


def _constrain(lark: str, **properties: Any) -> AnswerConstraint:
    schema = {
        "x-guidance": {"whitespace_flexible": False},
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return AnswerConstraint(lark, schema)


_BOOSTING = Space(
    [
        Int("max_depth", 3, 11),
        Float("learning_rate", 1e-3, 1.0, log=True),
        Int("min_child_weight", 1, 10),
        Float("subsample", 0.5, 1.0),
        Float("colsample_bytree", 0.5, 1.0),
        Int("n_estimators", 100, 500),
        Float("gamma", 0.0, 0.5),
        Float("reg_lambda", 0.0, 1.0),
        Ordinal("max_bin", (64, 128, 256)),
        Categorical("booster", ("gbtree", "dart")),
        Float("rate_drop", 0.0, 0.5, when={"booster": ("dart",)}),
        Categorical("shuffle", (True, False)),
    ]
)


def _is_answer(value: Any, *, rationale: bool) -> bool:
    trials = [1, 4] if rationale else []
    try:
        grammar.parse_answer(json.dumps(value), _BOOSTING, rationale=rationale, trials=trials)
    except ConfigurationError:
        return False
    return True


CONSTRAINTS: Mapping[str, ConstraintCase] = {
    "one to ten": ConstraintCase(
        _constrain(
            r'start: "{\"a\":" /[1-9]|10/ "}"', a={"type": "integer", "minimum": 1, "maximum": 10}
        ),
        lambda value: 1 <= value["a"] <= 10,
    ),
    "negative": ConstraintCase(
        _constrain(
            r'start: "{\"a\":" /-(4[1-9]|5[0-3])/ "}"',
            a={"type": "integer", "minimum": -53, "maximum": -41},
        ),
        lambda value: -53 <= value["a"] <= -41,
    ),
    "choice": ConstraintCase(
        _constrain(
            r'start: "{\"b\":" ("\"gbtree\"" | "\"dart\"" | "true") "}"',
            b={"enum": ["gbtree", "dart", True]},
        ),
        lambda value: value["b"] in ("gbtree", "dart", True),
    ),
    "one sentence": ConstraintCase(
        _constrain(r'start: "{\"c\":3}"', c={"enum": [3]}), lambda value: value == {"c": 3}
    ),
    "space": ConstraintCase(
        AnswerConstraint(grammar.lark_grammar(_BOOSTING), grammar.json_schema(_BOOSTING)),
        lambda value: _is_answer(value, rationale=False),
    ),
    "rationale": ConstraintCase(
        AnswerConstraint(
            grammar.lark_grammar(_BOOSTING, rationale=True, trials=[1, 4]),
            grammar.json_schema(_BOOSTING, rationale=True, trials=[1, 4]),
        ),
        lambda value: _is_answer(value, rationale=True),
    ),
}
"""Constraints under which a backend is asked."""

INVALID = AnswerConstraint("start: /[/", {"type": "no such type"})
"""A constraint that cannot be compiled."""

PROMPT = (
    Message("system", "You tune hyperparameters."),
    Message("user", "Trials, worst to best: 1: 0.71, 4: 0.83. Propose the next configuration."),
)


class BackendContract:
    """Laws of a Backend: see `localhpo.llm.protocol`."""

    name = ""
    """Name of the backend in the registry."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        """Return the backend, opened."""
        opened = open_backend(self.name)
        yield opened
        opened.close()

    @pytest.mark.parametrize("case", CONSTRAINTS.values(), ids=CONSTRAINTS)
    def test_every_completion_matches_the_constraint(
        self, backend: Backend, case: ConstraintCase
    ) -> None:
        """And is complete."""
        for completion in backend.generate(
            GenerationRequest(PROMPT, case.constraint, n=4, max_tokens=900, seed=3)
        ):
            assert case.holds(json.loads(completion.text)), completion.text

    def test_each_completion_has_its_cost(self, backend: Backend) -> None:
        """In tokens and seconds."""
        for completion in backend.generate(
            GenerationRequest(PROMPT, CONSTRAINTS["space"].constraint, n=3, seed=3)
        ):
            assert 0 < completion.prompt_tokens <= backend.count_tokens(PROMPT)
            assert 0 < completion.completion_tokens <= 1024
            assert completion.seconds > 0
            assert completion.logprob is None or completion.logprob < 0

    def test_n_completions_are_independent_samples(self, backend: Backend) -> None:
        """So they differ where much is free."""
        completions = backend.generate(
            GenerationRequest(PROMPT, CONSTRAINTS["space"].constraint, n=6, seed=3)
        )
        assert len({completion.text for completion in completions}) == 6

    def test_the_same_seed_gives_the_same_texts(self, backend: Backend) -> None:
        """Whatever was asked between; and each completion can be drawn again alone."""
        if not backend.model.deterministic:
            pytest.skip("this backend is not deterministic")
        constraint = CONSTRAINTS["space"].constraint
        first = backend.generate(GenerationRequest(PROMPT, constraint, n=3, seed=3))
        other = [Message("user", "something else")]
        backend.generate(GenerationRequest(other, CONSTRAINTS["choice"].constraint, seed=8))
        again = backend.generate(GenerationRequest(PROMPT, constraint, n=3, seed=3))
        assert [c.text for c in first] == [c.text for c in again]
        others = backend.generate(GenerationRequest(PROMPT, constraint, n=3, seed=4))
        assert [c.text for c in others] != [c.text for c in first]
        for completion in first:
            (alone,) = backend.generate(GenerationRequest(PROMPT, constraint, seed=completion.seed))
            assert replace(alone, seconds=0, logprob=0) == replace(completion, seconds=0, logprob=0)

    def test_a_truncated_answer_is_an_error(self, backend: Backend) -> None:
        """Never a shorter text."""
        with pytest.raises(GenerationError, match="token"):
            backend.generate(
                GenerationRequest(PROMPT, CONSTRAINTS["space"].constraint, max_tokens=12)
            )

    def test_an_invalid_constraint_is_an_error(self, backend: Backend) -> None:
        """And the backend goes on."""
        with pytest.raises((ConstraintError, BackendError), match=r"invalid|type"):
            backend.generate(GenerationRequest(PROMPT, INVALID))
        assert backend.generate(GenerationRequest(PROMPT, CONSTRAINTS["choice"].constraint))

    def test_a_backend_describes_its_model(self, backend: Backend) -> None:
        """As far as prompts and the store need it."""
        assert backend.model.name
        assert backend.model.digest
        assert backend.model.context_length > 0
        assert backend.model.prompt in ("chat", "compact")

    def test_a_closed_backend_refuses_requests(self, backend: Backend) -> None:
        """Closing it twice does no harm."""
        backend.close()
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            backend.generate(GenerationRequest(PROMPT, CONSTRAINTS["choice"].constraint))


def make_curve(number: int, curve: Mapping[int, float], state: State) -> Trial:
    """Return a trial that reported the loss by step, a second apart, and a metric beside it."""
    measurements = [
        measurement
        for second, (step, value) in enumerate(curve.items(), start=100 * number)
        for measurement in (
            Measurement(step, "loss", value, float(second)),
            Measurement(step, "accuracy", -value, float(second)),
        )
    ]
    proposal = Proposal({}, Origin.parse("random"))
    return Trial(number, state, proposal, measurements=tuple(measurements))


class PrunerContract:
    """Laws of a Pruner: see `localhpo.scheduler.pruning`."""

    name = ""
    """Name of the pruner in the registry."""

    @pytest.fixture
    def make_pruner(self) -> Callable[[], Pruner]:
        """Return a function that makes the pruner for a task that minimizes `loss`."""

        def make() -> Pruner:
            pruner = make_pruner(make_task(SPACES["plain"], pruner=PrunerSettings(self.name)))
            assert pruner is not None
            return pruner

        return make

    @pytest.fixture(params=range(20))
    def trials(self, request: pytest.FixtureRequest) -> Sequence[Trial]:
        """Return trials with random curves: any steps, any values, of any length, in any state."""
        rng = random.Random(request.param)
        odd = (math.nan, math.inf, -math.inf, 0.0)
        states = (State.COMPLETE, State.PRUNED, State.FAILED, State.RUNNING)

        def draw_curve() -> dict[int, float]:
            steps = rng.sample(range(-3, 40), rng.randint(0, 12))
            return {s: rng.choice(odd) if rng.random() < 0.1 else rng.gauss(0, 1) for s in steps}

        return [make_curve(n, draw_curve(), rng.choice(states)) for n in range(rng.randint(1, 12))]

    def test_it_gives_a_reason_or_none(
        self, make_pruner: Callable[[], Pruner], trials: Sequence[Trial]
    ) -> None:
        """Whatever the trials have reported."""
        pruner = make_pruner()
        for trial in trials:
            reason = pruner(trial.with_(state=State.RUNNING), trials)
            assert reason is None or (isinstance(reason, str) and reason)

    def test_a_trial_without_reports_goes_on(
        self, make_pruner: Callable[[], Pruner], trials: Sequence[Trial]
    ) -> None:
        """There is nothing to judge it by."""
        silent = make_curve(99, {}, State.RUNNING)
        assert make_pruner()(silent, [*trials, silent]) is None

    def test_a_first_report_of_nan_counts_as_a_bad_one(
        self, make_pruner: Callable[[], Pruner], trials: Sequence[Trial]
    ) -> None:
        """It hides none of the better reports that come after it."""
        better = {step: 1.0 - step / 100 for step in range(1, 40)}
        answers = []
        for first in (math.nan, 1e9):
            trial = make_curve(99, {0: first, **better}, State.RUNNING)
            answers.append(make_pruner()(trial, [*trials, trial]) is None)
        assert answers[0] == answers[1]

    def test_equal_records_give_equal_answers(
        self, make_pruner: Callable[[], Pruner], trials: Sequence[Trial]
    ) -> None:
        """In any order of questions, and however often it is asked."""
        asked, running = make_pruner(), [trial.with_(state=State.RUNNING) for trial in trials]
        first = [asked(trial, trials) for trial in running]
        again = [asked(trial, trials) for trial in reversed(running)]
        assert first == again[::-1]
        assert first == [make_pruner()(trial, trials) for trial in running]
