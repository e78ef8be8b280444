"""The contract tests of Creators (`tests/contracts`), over the wrappers of the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from contracts.test_creator_contract import (  # noqa: F401  # collected here, over these cases
    SPACES,
    Case,
    Sampling,
    test_a_tiny_space_is_searched_completely_and_then_exhausted,
    test_asking_for_two_is_asking_twice,
    test_more_than_is_left_gives_what_is_left,
    test_proposals_are_canonical_new_and_of_true_origin,
    test_the_same_history_gives_the_same_proposals,
)

from localhpo.creator import Creator
from localhpo.task import Task
from scripts.benchmarks import creators
from scripts.benchmarks.anonymous import NameMapping

WITHOUT_MODEL = {"bo", "default"}


def case_of(name: str, origins: set[str]) -> Case:
    choice = creators.parse_name(name)

    def make(tuned: Task) -> Creator:
        hidden = "anonymous" in choice.modifiers
        space = NameMapping(tuned.space).space if hidden else tuned.space
        backend = Sampling(space, "compact") if choice.uses_model else None
        return creators.make_creator(choice, tuned, backend)

    return Case(make, frozenset(origins))


CASES = {
    **{f"center+{e}": {"default", e} for e in ("random", "tpe", "gp", "cmaes")},
    "hybrid-no-model": WITHOUT_MODEL,
    "hybrid-meta": WITHOUT_MODEL,  # no meta-data are of these spaces
    **{
        f"{base}:{modifier}": {"llm", "bo+llm"} | WITHOUT_MODEL
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
def test_the_name_is_the_one_shown_in_tables(name, make_task):
    made = case_of(name, set()).make(make_task())
    assert made.name == ("hybrid" if name in ("hybrid-no-model", "hybrid-meta") else name)
    made.close()
