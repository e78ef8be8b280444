"""The contract of Creators (`localhpo.testing`), over the wrappers of the benchmark."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contracts.test_creator_contract import Sampling

from localhpo.creator import Creator
from localhpo.task import Task
from localhpo.testing import CreatorContract
from scripts.benchmarks import creators
from scripts.benchmarks.controls import NameMapping

WITHOUT_MODEL = {"bo", "default"}
CASES = {
    "center+random": {"default", "random"},
    "hybrid-no-model": WITHOUT_MODEL,
    "hybrid-meta": WITHOUT_MODEL,  # no meta-data are of these spaces
    **{
        name: {"llm", "bo+llm"} | WITHOUT_MODEL
        for name in ("hybrid:anonymous", "agent:no-history", "hybrid:anonymous:no-history")
    },
}


class TestWrappers(CreatorContract):
    @pytest.fixture(params=CASES)
    def shown_as(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture
    def make_creator(self, shown_as: str) -> Callable[[Task], Creator]:
        choice = creators.parse_name(shown_as)

        def make(task: Task) -> Creator:
            hidden = "anonymous" in choice.modifiers
            space = NameMapping(task.space).space if hidden else task.space
            backend = Sampling(space, "compact") if choice.uses_model else None
            return creators.make_creator(choice, task, backend)

        return make

    @pytest.fixture
    def origins(self, shown_as: str) -> frozenset[str]:
        return frozenset(CASES[shown_as])

    def test_its_name_is_registered(self, creator: Creator, shown_as: str) -> None:
        """It is the one shown in tables."""
        expected = "hybrid" if shown_as in ("hybrid-no-model", "hybrid-meta") else shown_as
        assert creator.name == expected
