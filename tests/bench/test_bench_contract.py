"""The laws of a Creator over the wrappers: the suite of `tests/contracts`, with other cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from contracts.test_creator_contract import (  # noqa: F401  # collected here, over these cases
    SPACES,
    Case,
    Sampling,
    test_a_tiny_space_is_emptied_and_then_exhausted,
    test_asking_for_two_is_asking_twice,
    test_more_than_is_left_gives_what_is_left,
    test_proposals_are_canonical_new_and_of_true_origin,
    test_the_same_history_gives_the_same_proposals,
)

from localhpo.bench import creators
from localhpo.bench.anonymous import _Names
from localhpo.creator import Creator
from localhpo.task import Task

STAND_INS = {"engine:bo", "default"}


def case_of(name: str, origins: set[str]) -> Case:
    choice = creators.parse(name)

    def make(tuned: Task) -> Creator:
        hidden = "anonymous" in choice.modifiers
        space = _Names(tuned.space).space if hidden else tuned.space
        backend = Sampling(space, "compact") if choice.asks_a_model else None
        return creators.make(choice, tuned, backend)

    return Case(make, frozenset(origins))


CASES = {
    **{f"center+{e}": {"default", f"engine:{e}"} for e in ("random", "tpe", "gp", "cmaes")},
    "hybrid-no-model": STAND_INS,
    "hybrid-lessons": STAND_INS,  # none of them is of these spaces
    **{
        f"{base}:{modifier}": {"model", "model+bo"} | STAND_INS
        for base in ("hybrid", "agent")
        for modifier in ("anonymous", "no-history", "anonymous:no-history")
    },
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param, CASES[request.param])


@pytest.fixture(params=["plain", "nested", "awkward"])
def task(request: pytest.FixtureRequest, make_task: Callable[..., Task]) -> Task:
    return make_task(space=SPACES[request.param])


@pytest.fixture
def creator(case: Case, task: Task) -> Iterator[Creator]:
    creator = case.make(task)
    yield creator
    creator.close()
    creator.close()


@pytest.mark.parametrize("name", CASES)
def test_the_name_is_the_one_in_a_table(name, make_task):
    made = case_of(name, set()).make(make_task())
    assert made.name == ("hybrid" if name in ("hybrid-no-model", "hybrid-lessons") else name)
    made.close()
