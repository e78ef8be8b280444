"""Which studies count, and what of them reaches another task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from strategies import spaces, spaces_with_configs

from localhpo.experience import Past, carry, recall, usable
from localhpo.space import Categorical, Float, Int, Ordinal, Space, Value
from localhpo.task import Task
from localhpo.trial import State, Trial

MakeTask = Callable[..., Task]
MakeTrial = Callable[..., Trial]


@pytest.fixture
def make_past(make_task: MakeTask, make_trial: MakeTrial) -> Callable[..., Past]:
    def make(scores: Sequence[float | None], study: str = "small/old", **changes: Any) -> Past:
        """A study with one trial per score, depths 1, 2, 3, ...; None: it failed."""
        trials = tuple(
            make_trial(
                number,
                {"learning_rate": 1e-2, "depth": 1 + number % 8},
                State.FAILED if score is None else State.COMPLETE,
                score,
            )
            for number, score in enumerate(scores)
        )
        return Past(study, changes.pop("task", make_task()), trials, **changes)

    return make


@pytest.mark.parametrize(
    ("scores", "private", "reason"),
    [
        ([1.0, 2.0, 3.0], False, None),
        ([1.0, 2.0, 3.0], True, "it is private"),
        ([1.0, 1.0, 1.0], False, "loss is 1 in all of its trials"),
        ([None, None], False, "none of its trials has a score, 2 failed"),
        ([1.0, 2.0, None], False, "2 of its trials have a score, fewer than 3"),
        ([], False, "0 of its trials have a score, fewer than 3"),
    ],
)
def test_suspect_and_private_studies_do_not_count(
    make_past: Callable[..., Past], scores: list[float | None], private: bool, reason: str | None
) -> None:
    past = make_past(scores, private=private)
    taken, left = usable([past])
    assert (taken, left) == (([past], []) if reason is None else ([], [(past, reason)]))
    assert bool(recall(past.task, [past])) is (reason is None)


def test_the_best_come_first_and_failures_never(make_past: Callable[..., Past]) -> None:
    past = make_past([None, 5.0, 1.0, 4.0, 3.0, 2.0, *[9.0] * 10])
    memories = recall(past.task, [past])
    assert [memory.trial for memory in memories] == [2, 5, 4]
    assert memories[0].weight == pytest.approx(1.0)
    assert memories[0].score == 1.0


def test_a_study_that_minimises_is_read_as_one(make_past: Callable[..., Past]) -> None:
    up = make_past([1.0, 2.0, 3.0])
    task = dataclasses.replace(up.task, direction="maximize")
    (memory,) = recall(task, [dataclasses.replace(up, task=task)])
    assert memory.trial == 2


def test_equal_configurations_are_one_with_the_larger_weight(
    make_past: Callable[..., Past], make_task: MakeTask
) -> None:
    near = make_past([3.0, 2.0, 1.0], "small/near")
    far = make_past([3.0, 2.0, 1.0], "other/far", task=make_task(metric="accuracy"))
    (memory,) = recall(make_task(), [far, near])
    assert memory.study == "small/near"
    assert memory.similarity == pytest.approx(1.0)


def test_a_strange_task_is_left_alone(make_past: Callable[..., Past], make_task: MakeTask) -> None:
    task = make_task(space=Space([Float("alpha", 0.0, 1.0), Int("neighbors", 1, 50)]))
    assert recall(task, [make_past([1.0, 2.0, 3.0])]) == ()


def task_in(space: Space, **fixed: Value) -> Task:
    return Task("t", (), "loss", "minimize", space, fixed=fixed)


def carried(space: Space, source: Space, config: Mapping[str, Value]) -> Any:
    return carry(task_in(space), task_in(source), config)


def test_numbers_outside_go_to_the_bound_and_what_is_new_to_the_middle() -> None:
    source = Space([Float("lr", 1e-5, 1.0, log=True), Int("depth", 1, 20)])
    space = Space([Float("lr", 1e-3, 1e-1, log=True), Int("depth", 1, 20), Int("width", 1, 9)])
    config, part, share = carried(space, source, {"lr": 0.5, "depth": 7})
    assert config == {"lr": 0.1, "depth": 7, "width": 5}
    assert part == {"lr": 0.1, "depth": 7}
    assert share == pytest.approx(1 / 3)


def test_a_category_that_is_lacking_leaves_the_configuration_out() -> None:
    source = Space([Categorical("optimizer", ("adam", "sgd"))])
    space = Space([Categorical("optimizer", ("sgd", "lion"))])
    assert carried(space, source, {"optimizer": "adam"}) is None
    assert carried(space, source, {"optimizer": "sgd"})[0] == {"optimizer": "sgd"}


def test_kinds_may_differ() -> None:
    source = Space([Int("batch", 1, 512), Float("depth", 1.0, 9.0)])
    space = Space([Ordinal("batch", (32, 64, 128)), Int("depth", 1, 9)])
    assert carried(space, source, {"batch": 100, "depth": 3.4})[0] == {"batch": 128, "depth": 3}
    words = Space([Ordinal("size", ("small", "large"))])
    assert carried(words, Space([Int("size", 1, 9)]), {"size": 3}) is None


def test_what_was_fixed_there_is_carried_to_where_it_is_tuned() -> None:
    rate, trees = Float("lr", 1e-3, 1e-1, log=True), Int("trees", 10, 500)
    task, past = task_in(Space([rate, trees])), task_in(Space([rate]), trees=300)
    assert carry(task, past, {"lr": 0.01})[0] == {"lr": 0.01, "trees": 300}  # type: ignore[index]
    assert carry(task, past, {"lr": 0.01})[2] == 1.0  # type: ignore[index]
    booster = Categorical("booster", ("tree", "dart"))
    foreign = task_in(Space([rate]), booster="linear")
    assert carry(task_in(Space([rate, booster])), foreign, {"lr": 0.01}) is None


@pytest.mark.parametrize(
    ("tuned", "there", "here", "kept"),
    [
        (Int("depth", 1, 9), 5, 5, 1.0),
        (Int("depth", 1, 9), 7, 5, 0.75),
        (Int("depth", 1, 9), 9, 50, 1.0),
        (Categorical("depth", ("low", "high")), "low", "low", 1.0),
        (Categorical("depth", ("low", "high")), "low", "high", 0.0),
        (Categorical("depth", ("low", "high")), "low", "deep", 0.0),
    ],
)
def test_the_nearer_to_what_is_fixed_here_the_more_is_kept(
    tuned: Int | Categorical, there: Value, here: Value, kept: float
) -> None:
    rate = Float("lr", 1e-3, 1e-1, log=True)
    task, past = task_in(Space([rate]), depth=here), task_in(Space([rate, tuned]))
    config, part, share = carry(task, past, {"lr": 0.01, "depth": there})  # type: ignore[misc]
    assert config == part == {"lr": 0.01}
    assert share == pytest.approx((1.0 + kept) / 2)


@st.composite
def neighbors(draw: st.DrawFn) -> tuple[Space, Space, dict[str, Value]]:
    """A space, another one of the same names, and a configuration of that."""
    source, config = draw(spaces_with_configs(max_size=3))
    drawn = draw(spaces(max_size=3, conditional=False))
    named = [dataclasses.replace(p, name=n) for p, n in zip(drawn, source.names, strict=False)]
    return Space(named), source, config


@given(neighbors())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_what_is_carried_is_canonical(there: tuple[Space, Space, dict[str, Value]]) -> None:
    space = there[0]
    moved = carried(*there)
    if moved is not None:
        config, part, share = moved
        space.validate(config)
        assert part.items() <= config.items()
        assert 0.0 <= share <= 1.0


@given(spaces_with_configs())
@example((Space([Categorical("c", ("a", "A"))]), {"c": "A"}))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_within_one_space_all_is_carried(there: tuple[Space, dict[str, Value]]) -> None:
    space, config = there
    moved = carried(space, space, config)
    assert moved is not None
    assert space.key(moved[0]) == space.key(config)


@given(st.data(), spaces())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_memories_are_new_on_the_grid_and_weighted(data: st.DataObject, space: Space) -> None:
    import numpy as np

    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    trials = tuple(
        Trial(n, State.COMPLETE, _proposal(space.sample(rng)), score=float(rng.normal()))
        for n in range(20)
    )
    task = task_in(space)
    memories = recall(task, [Past("t/a", task, trials), Past("t/b", task, trials)], limit=3)
    assert 1 <= len(memories) <= 3
    for memory in memories:
        space.validate(memory.config)
        assert 0.0 < memory.weight <= 1.0
    assert len({space.key(memory.config) for memory in memories}) == len(memories)
    assert [m.weight for m in memories] == sorted((m.weight for m in memories), reverse=True)


def _proposal(config: dict[str, Value]) -> Any:
    from localhpo.trial import Proposal

    return Proposal(config, origin="engine:random")
