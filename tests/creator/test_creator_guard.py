from __future__ import annotations

import numpy as np
import pytest

from localhpo.creator.bayes import Bayes
from localhpo.creator.engines import Engine
from localhpo.creator.guard import Guard, Verdict
from localhpo.creator.hybrid import Hybrid
from localhpo.creator.protocol import History
from localhpo.errors import SpaceExhaustedError
from localhpo.space import Categorical, Float, Int, Space
from localhpo.trial import State

ROOMY = Space([Float("rate", 1e-4, 1e-1, log=True), Float("drop", 0.0, 0.5)])
TINY = Space([Categorical("a", ("x", "y")), Int("b", 1, 2)])


@pytest.fixture
def guard_of(make_task, make_trial):
    def make(space, configs, state=State.COMPLETE):
        trials = tuple(make_trial(n, c, state) for n, c in enumerate(configs))
        return Guard(History(make_task(space=space), trials, 0, len(trials)))

    return make


@pytest.mark.parametrize("state", State)
def test_a_configuration_is_taken_whatever_became_of_it(guard_of, state):
    guard = guard_of(ROOMY, [{"rate": 1e-2, "drop": 0.1}], state)
    assert guard.judge({"rate": 1e-2, "drop": 0.1}) is Verdict.TAKEN
    assert guard.judge({"rate": 2e-2, "drop": 0.1}) is Verdict.NEW


def too_big(config):
    return f"{config['rate']} is more than there is" if config["rate"] > 1e-2 else None


def test_what_does_not_fit_the_machine_is_no_choice(make_task):
    guard = Guard(History(make_task(space=ROOMY), (), 0, 0, misfit=too_big))
    big, small = {"rate": 2e-2, "drop": 0.1}, {"rate": 5e-3, "drop": 0.1}
    assert guard.judge(big) is Verdict.MISFIT
    assert guard.pick([big, small], lambda config: config).drawn == small
    left = guard.nearest_left(big, np.random.default_rng(0))
    assert left["rate"] <= 1e-2


def test_where_nothing_fits_something_is_left_all_the_same(make_task, make_trial):
    trials = (make_trial(0, {"a": "x", "b": 1}),)
    task = make_task(space=TINY)
    guard = Guard(History(task, trials, 0, 1, misfit=lambda config: "too big"))
    left = guard.nearest_left({"a": "x", "b": 1}, np.random.default_rng(0))
    assert left != {"a": "x", "b": 1}


CREATORS = {
    "bo": Bayes(), "random": Engine("random"), "tpe": Engine("tpe"), "no model": Hybrid(None),
}  # fmt: skip


@pytest.mark.parametrize("creator", CREATORS.values(), ids=CREATORS)
def test_no_proposal_lies_behind_a_wall_that_is_known(make_task, make_trial, creator):
    """Fewer than one configuration in a hundred fits, at one end of a range."""
    space = Space([Float("rate", 1e-4, 1e2, log=True), Float("drop", 0.0, 0.5)])

    def misfit(config):
        return "too big" if config["rate"] > 1.15e-4 else None

    task = make_task(space=space)
    trials = [make_trial(0, space.default(), State.INFEASIBLE, None)]
    for number in range(1, 8):
        (proposal,) = creator.propose(History(task, tuple(trials), 0, number, misfit=misfit), 1)
        assert misfit(proposal.config) is None
        trials.append(make_trial(number, proposal.config, State.COMPLETE, float(number)))


@pytest.mark.parametrize(
    ("config", "verdict"),
    [
        ({"rate": 1e-2, "drop": 0.101}, Verdict.NEAR),
        ({"rate": 1.02e-2, "drop": 0.1}, Verdict.NEAR),
        ({"rate": 1.02e-2, "drop": 0.104}, Verdict.NEW),  # neither is far, both together are
        ({"rate": 1e-2, "drop": 0.106}, Verdict.NEW),
        ({"rate": 1.1e-2, "drop": 0.1}, Verdict.NEW),
    ],
)
def test_near_is_less_than_a_hundredth_of_one_range(guard_of, config, verdict):
    assert guard_of(ROOMY, [{"rate": 1e-2, "drop": 0.1}]).judge(config) is verdict


def test_neighbors_on_a_coarse_grid_are_new(guard_of):
    space = Space([Int("depth", 1, 9), *(Float(f"x{n}", 0.0, 1.0) for n in range(12))])
    rest = {f"x{n}": 0.5 for n in range(12)}
    guard = guard_of(space, [{"depth": 4, **rest}])
    assert guard.judge({"depth": 5, **rest}) is Verdict.NEW


def test_the_first_new_draw_wins_and_nothing_is_drawn_after_it(guard_of):
    guard = guard_of(ROOMY, [{"rate": 1e-2, "drop": 0.1}])
    taken, near, new = ({"rate": 1e-2, "drop": drop} for drop in (0.1, 0.101, 0.2))
    draws = iter([taken, near, new, taken])
    pick = guard.pick(draws, lambda config: config)
    assert (pick.drawn, pick.verdict, pick.tries) == (new, Verdict.NEW, 3)
    assert list(draws) == [taken]


def test_a_near_draw_is_taken_in_the_end_and_a_taken_one_is_said_to_be(guard_of):
    guard = guard_of(ROOMY, [{"rate": 1e-2, "drop": 0.1}])
    taken, near = ({"rate": 1e-2, "drop": drop} for drop in (0.1, 0.101))
    pick = guard.pick([taken, near, taken], lambda config: config)
    assert (pick.drawn, pick.verdict, pick.tries) == (near, Verdict.NEAR, 3)
    assert guard.pick([taken], lambda config: config).verdict is Verdict.TAKEN
    assert guard.pick([], lambda config: config) is None


def test_a_full_space_is_exhausted_on_sight(guard_of):
    configs = list(TINY.configurations())
    guard_of(TINY, configs[:-1])
    with pytest.raises(SpaceExhaustedError, match="all 4 configurations"):
        guard_of(TINY, configs)


def test_the_last_configuration_of_a_small_space_is_found(guard_of):
    *tried, left = TINY.configurations()
    found = guard_of(TINY, tried).nearest_left(tried[0], np.random.default_rng(0))
    assert found == left


def test_what_is_left_is_close_to_the_wish(guard_of):
    space = Space([Int("depth", 1, 100)])
    guard = guard_of(space, [{"depth": depth} for depth in range(40, 60)])
    assert guard.nearest_left({"depth": 57}, np.random.default_rng(0)) == {"depth": 60}
    wish = {"rate": 1e-2, "drop": 0.1}
    found = guard_of(ROOMY, [wish]).nearest_left(wish, np.random.default_rng(0))
    assert ROOMY.distance(found, wish) < 0.1
    ROOMY.validate(found)


def test_a_large_space_is_searched_even_where_the_neighborhood_is_full(guard_of):
    # Decoding rounds every perturbation to one of few configurations, all of them taken.
    space = Space([Categorical("a", tuple(range(70))), Categorical("b", tuple(range(70)))])
    configs = list(space.configurations())
    *tried, left = configs
    found = guard_of(space, tried).nearest_left(tried[0], np.random.default_rng(0))
    assert found == left
