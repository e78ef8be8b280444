from __future__ import annotations

import dataclasses

import pytest

from localhpo.creator.policy import (
    ENGINE_FLOOR,
    MOST_EARLIER,
    STARTUP,
    Standing,
    Tally,
    is_strange,
    model_share,
    record,
    standing,
    strangers,
)
from localhpo.experience import Past
from localhpo.space import Categorical, Float, Int, Space
from localhpo.trial import State


@pytest.fixture
def trials_of(make_trial):
    """Make trials from (origin, score) pairs; a score of None is a failure."""

    def make(*rows):
        return [
            make_trial(
                number,
                {"learning_rate": 1e-2, "depth": 1},
                State.FAILED if score is None else State.COMPLETE,
                score,
                origin,
            )
            for number, (origin, score) in enumerate(rows)
        ]

    return make


def share(trials, direction="minimize"):
    return model_share(trials, direction)


@pytest.mark.parametrize("count", range(STARTUP))
def test_the_model_opens(trials_of, count):
    assert share(trials_of(*[("model", 0.5)] * count)) == 1.0


def test_an_engine_that_was_taught_opens_as_often(trials_of):
    assert model_share([], "minimize", taught=True) == 0.5
    one_each = trials_of(("model", 0.5), ("experience", 0.5))
    assert 0.2 < model_share(one_each, "minimize", taught=True) < 0.5


def past_of(task, trials, digest="a"):
    """A past study on a task, whose model had this digest."""
    own = [dataclasses.replace(t.proposal, model_digest=digest) for t in trials]
    return Past(
        "old/1", task,
        tuple(dataclasses.replace(t, proposal=p) for t, p in zip(trials, own, strict=True)),
    )  # fmt: skip


GOOD_MODEL = [("model", 0.1), ("engine:bo", 0.8), ("model", 0.2), ("engine:bo", 0.9)] * 2


def test_the_record_in_past_studies_counts(trials_of, make_task):
    task = make_task()
    even = trials_of(*[("model", 0.5), ("engine:bo", 0.5)] * 3)
    good = standing(task, [past_of(task, trials_of(*GOOD_MODEL))], "a")
    turned = [("engine:bo" if who == "model" else "model", score) for who, score in GOOD_MODEL]
    poor = standing(task, [past_of(task, trials_of(*turned))], "a")
    shares = [model_share(even, "minimize", earlier=before) for before in (poor, None, good)]
    assert shares == sorted(shares) and len(set(shares)) == 3
    assert model_share([], "minimize", earlier=good, taught=True) <= 1.0 - ENGINE_FLOOR


def test_only_the_models_own_record_on_what_is_similar_counts(trials_of, make_task):
    task = make_task()
    past = past_of(task, trials_of(*GOOD_MODEL))
    assert standing(task, [past], "another").model == Tally()
    assert standing(task, [past], "another").engine.trials == 4
    private = dataclasses.replace(past, private=True)
    other = dataclasses.replace(task, space=Space([Float("omega", -3.0, -1.0)]))
    assert standing(other, [past], "a") == standing(task, [private], "a") == Standing()


def test_much_of_the_past_counts_no_more_than_a_little(trials_of, make_task):
    task = make_task()
    past = past_of(task, trials_of(*GOOD_MODEL))
    found = standing(task, [past] * 50, "a")
    assert found.model.trials == pytest.approx(MOST_EARLIER)
    ratio = found.model.credit / found.model.trials
    once = standing(task, [past], "a").model
    assert ratio == pytest.approx(once.credit / once.trials)


def test_what_was_learned_elsewhere_is_to_the_engines_record(trials_of):
    good = trials_of(*[("model", 0.5)] * 3, ("experience", 0.1), ("experience+bo", 0.1))
    poor = trials_of(*[("model", 0.5)] * 3, ("experience", 0.9), ("experience+bo", 0.9))
    assert share(good) < share(poor)


def test_at_even_records_the_share_falls_with_the_evidence(trials_of):
    def even(count):
        rows = [("model" if n % 2 else "engine:bo", 0.5) for n in range(count)]
        return share(trials_of(*rows))

    shares = [even(count) for count in range(4, 31, 2)]
    assert shares == sorted(shares, reverse=True)
    assert even(4) == pytest.approx(1 / 5, abs=0.02)
    assert even(30) == pytest.approx(1 / 31, abs=0.02)


def test_a_model_that_does_better_is_asked_more_often(trials_of):
    good = trials_of(("model", 0.1), ("model", 0.2), ("engine:bo", 0.8), ("engine:bo", 0.9))
    poor = trials_of(("model", 0.9), ("model", 0.8), ("engine:bo", 0.2), ("engine:bo", 0.1))
    assert share(good) > share(poor)
    assert share(good, "maximize") < share(poor, "maximize")


def test_the_engine_keeps_its_floor(trials_of):
    trials = trials_of(*[("model", 0.1)] * 3, *[("engine:bo", 0.9)] * 30)
    assert 0.0 < share(trials) <= 1.0 - ENGINE_FLOOR


def test_a_model_whose_trials_fail_does_not_keep_all_turns(trials_of):
    assert share(trials_of(*[("model", None)] * 5)) == 1.0
    assert share(trials_of(*[("model", None)] * 6)) < 0.2


def test_failures_count_against_a_side_and_users_trials_for_none(trials_of):
    before = trials_of(("user", 0.5), ("default", 0.4), ("user", 0.3))
    assert share(before) == pytest.approx(1 / 4)
    failed = trials_of(("user", 0.5), ("default", 0.4), ("user", 0.3), ("model", None))
    assert record([failed[3]], failed, "minimize") < 0.5


def test_refused_configurations_are_no_evidence(trials_of, make_trial):
    trials = trials_of(("model", 0.5), ("model", 0.4))
    refused = make_trial(2, {"learning_rate": 1e-2, "depth": 2}, State.INFEASIBLE, origin="model")
    assert share([*trials, refused]) == 1.0


def test_the_record_is_the_share_of_trials_beaten_drawn_towards_a_half(trials_of):
    trials = trials_of(("model", 0.1), ("engine:bo", 0.2), ("engine:bo", 0.3))
    assert record(trials[:1], trials, "minimize") == pytest.approx((1.5 + 1.0) / 4)
    assert record(trials[1:], trials, "minimize") == pytest.approx((1.5 + 0.5 + 0.0) / 5)
    assert record([], trials, "minimize") == 0.5


def named(*names):
    return Space([Float(name, 0.0, 1.0) for name in names])


DRESSES = ["max_depth", "max-depth", "MaxDepth", "clf__max_depth", "model.max-depth"]


@pytest.mark.parametrize("name", DRESSES)
def test_names_are_known_in_any_dress(name):
    assert strangers(named(name), {"max_depth"}) == []


def test_a_name_that_only_begins_alike_is_strange():
    assert strangers(named("max_depth_2", "depth"), {"max_depth"}) == ["max_depth_2", "depth"]


def test_nothing_is_strange_where_the_model_does_not_tell_what_it_knows():
    assert strangers(named("x", "y"), frozenset()) == []
    assert not is_strange(named("x", "y"), frozenset())


def test_a_space_is_strange_when_fewer_than_half_of_its_names_are_known():
    known = {"alpha", "beta"}
    assert not is_strange(named("alpha", "beta", "x", "y"), known)
    assert is_strange(named("alpha", "x", "y"), known)


def test_what_has_one_value_only_does_not_count():
    space = Space([Float("alpha", 0.0, 1.0), Int("x", 3, 3), Categorical("y", ("a",))])
    assert strangers(space, {"alpha"}) == []
