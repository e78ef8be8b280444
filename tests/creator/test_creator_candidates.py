from __future__ import annotations

import numpy as np
import pytest

from localhpo.creator.bo import BayesianOptimizer
from localhpo.creator.candidates import CandidateStatus, DuplicateFilter
from localhpo.creator.hybrid import HybridCreator
from localhpo.creator.optuna import Engine
from localhpo.creator.protocol import History
from localhpo.errors import SpaceExhaustedError
from localhpo.space import Categorical, Float, Int, Space
from localhpo.trial import State

ROOMY = Space([Float("rate", 1e-4, 1e-1, log=True), Float("drop", 0.0, 0.5)])
TINY = Space([Categorical("a", ("x", "y")), Int("b", 1, 2)])


@pytest.fixture
def filter_of(make_task, make_trial):
    def make(space, configs, state=State.COMPLETE):
        trials = tuple(make_trial(n, c, state) for n, c in enumerate(configs))
        return DuplicateFilter(History(make_task(space=space), trials, 0, len(trials)))

    return make


@pytest.mark.parametrize("state", State)
def test_a_configuration_of_a_trial_in_any_state_is_a_duplicate(filter_of, state):
    duplicates = filter_of(ROOMY, [{"rate": 1e-2, "drop": 0.1}], state)
    assert duplicates.classify({"rate": 1e-2, "drop": 0.1}) is CandidateStatus.DUPLICATE
    assert duplicates.classify({"rate": 2e-2, "drop": 0.1}) is CandidateStatus.NEW


def too_big(config):
    return f"{config['rate']} is more than there is" if config["rate"] > 1e-2 else None


def test_an_invalid_configuration_is_not_selected(make_task):
    duplicates = DuplicateFilter(History(make_task(space=ROOMY), (), 0, 0, invalid_reason=too_big))
    big, small = {"rate": 2e-2, "drop": 0.1}, {"rate": 5e-3, "drop": 0.1}
    assert duplicates.classify(big) is CandidateStatus.INVALID
    assert duplicates.select([big, small], lambda config: config).candidate == small
    found = duplicates.nearest_untried(big, np.random.default_rng(0))
    assert found["rate"] <= 1e-2


def test_where_all_are_invalid_an_untried_one_is_returned_all_the_same(make_task, make_trial):
    trials = (make_trial(0, {"a": "x", "b": 1}),)
    task = make_task(space=TINY)
    duplicates = DuplicateFilter(
        History(task, trials, 0, 1, invalid_reason=lambda config: "too big")
    )
    found = duplicates.nearest_untried({"a": "x", "b": 1}, np.random.default_rng(0))
    assert found != {"a": "x", "b": 1}


CREATORS = {
    "bo": BayesianOptimizer(),
    "random": Engine("random"),
    "tpe": Engine("tpe"),
    "no model": HybridCreator(),
}


@pytest.mark.parametrize("creator", CREATORS.values(), ids=CREATORS)
def test_no_creator_proposes_configurations_known_to_be_invalid(make_task, make_trial, creator):
    """Fewer than one configuration in a hundred fits, at one end of a range."""
    space = Space([Float("rate", 1e-4, 1e2, log=True), Float("drop", 0.0, 0.5)])

    def invalid_reason(config):
        return "too big" if config["rate"] > 1.15e-4 else None

    task = make_task(space=space)
    trials = [make_trial(0, space.default(), State.INFEASIBLE, None)]
    for number in range(1, 8):
        (proposal,) = creator.propose(
            History(task, tuple(trials), 0, number, invalid_reason=invalid_reason), 1
        )
        assert invalid_reason(proposal.config) is None
        trials.append(make_trial(number, proposal.config, State.COMPLETE, float(number)))


@pytest.mark.parametrize(
    ("config", "status"),
    [
        ({"rate": 1e-2, "drop": 0.101}, CandidateStatus.NEAR_DUPLICATE),
        ({"rate": 1.02e-2, "drop": 0.1}, CandidateStatus.NEAR_DUPLICATE),
        (
            {"rate": 1.02e-2, "drop": 0.104},
            CandidateStatus.NEW,
        ),  # neither is far, both together are
        ({"rate": 1e-2, "drop": 0.106}, CandidateStatus.NEW),
        ({"rate": 1.1e-2, "drop": 0.1}, CandidateStatus.NEW),
    ],
)
def test_a_near_duplicate_differs_by_less_than_a_hundredth_of_one_range(filter_of, config, status):
    assert filter_of(ROOMY, [{"rate": 1e-2, "drop": 0.1}]).classify(config) is status


def test_neighbors_on_a_coarse_grid_are_new(filter_of):
    space = Space([Int("depth", 1, 9), *(Float(f"x{n}", 0.0, 1.0) for n in range(12))])
    rest = {f"x{n}": 0.5 for n in range(12)}
    duplicates = filter_of(space, [{"depth": 4, **rest}])
    assert duplicates.classify({"depth": 5, **rest}) is CandidateStatus.NEW


def test_the_first_new_candidate_is_selected_and_no_other_is_drawn(filter_of):
    duplicates = filter_of(ROOMY, [{"rate": 1e-2, "drop": 0.1}])
    known, near, new = ({"rate": 1e-2, "drop": drop} for drop in (0.1, 0.101, 0.2))
    draws = iter([known, near, new, known])
    selection = duplicates.select(draws, lambda config: config)
    assert (selection.candidate, selection.status, selection.tries) == (new, CandidateStatus.NEW, 3)
    assert list(draws) == [known]


def test_a_near_duplicate_is_selected_before_a_duplicate(filter_of):
    duplicates = filter_of(ROOMY, [{"rate": 1e-2, "drop": 0.1}])
    known, near = ({"rate": 1e-2, "drop": drop} for drop in (0.1, 0.101))
    selection = duplicates.select([known, near, known], lambda config: config)
    assert (selection.candidate, selection.status, selection.tries) == (
        near,
        CandidateStatus.NEAR_DUPLICATE,
        3,
    )
    assert duplicates.select([known], lambda config: config).status is CandidateStatus.DUPLICATE
    assert duplicates.select([], lambda config: config) is None


def test_a_space_with_every_configuration_tried_is_exhausted(filter_of):
    configs = list(TINY.configurations())
    filter_of(TINY, configs[:-1])
    with pytest.raises(SpaceExhaustedError, match="all 4 configurations"):
        filter_of(TINY, configs)


def test_the_last_untried_configuration_of_a_small_space_is_found(filter_of):
    *tried, untried = TINY.configurations()
    found = filter_of(TINY, tried).nearest_untried(tried[0], np.random.default_rng(0))
    assert found == untried


def test_the_nearest_untried_configuration_is_close_to_the_target(filter_of):
    space = Space([Int("depth", 1, 100)])
    duplicates = filter_of(space, [{"depth": depth} for depth in range(40, 60)])
    assert duplicates.nearest_untried({"depth": 57}, np.random.default_rng(0)) == {"depth": 60}
    target = {"rate": 1e-2, "drop": 0.1}
    found = filter_of(ROOMY, [target]).nearest_untried(target, np.random.default_rng(0))
    assert ROOMY.distance(found, target) < 0.1
    ROOMY.validate(found)


def test_a_large_space_is_searched_where_the_neighborhood_is_tried(filter_of):
    # Decoding rounds every perturbation to one of few configurations, all of them tried.
    space = Space([Categorical("a", tuple(range(70))), Categorical("b", tuple(range(70)))])
    configs = list(space.configurations())
    *tried, untried = configs
    found = filter_of(space, tried).nearest_untried(tried[0], np.random.default_rng(0))
    assert found == untried
