"""The contract of Creators (`localhpo.testing`), over the wrappers of the benchmark."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contracts.test_creator_contract import Case, Sampling

from localhpo.creator import Creator
from localhpo.task import Task
from localhpo.testing import CreatorContract
from scripts.benchmarks import creators
from scripts.benchmarks.variants.anonymous import NameMapping

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


class TestWrappers(CreatorContract):
    @pytest.fixture(params=CASES)
    def name(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture
    def make_creator(self, name: str) -> Callable[[Task], Creator]:
        return case_of(name, set()).make

    @pytest.fixture
    def origins(self, name: str) -> frozenset[str]:
        return frozenset(CASES[name])

    def test_its_name_is_registered(self, creator: Creator, name: str) -> None:
        """It is the one shown in tables."""
        assert creator.name == ("hybrid" if name in ("hybrid-no-model", "hybrid-meta") else name)
