"""When a model is asked: its share of the turns, and the names that it knows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from localhpo.creator import History, open_creator
from localhpo.creator.bo.optimizer import ORIGIN
from localhpo.creator.hybrid import Hybrid
from localhpo.creator.policy import (
    MAX_PAST_TRIALS,
    MIN_ENGINE_SHARE,
    STARTUP,
    TrackRecord,
    WinRate,
    estimate_win_rate,
    is_unknown_space,
    model_share,
    past_track_record,
    unknown_parameters,
)
from localhpo.space import Categorical, Float, Int, Space
from localhpo.transfer import PastStudy
from localhpo.trial import LLM, Proposal, State, Trial

SPACE = Space([Float("rate", 1e-4, 1.0, log=True), Int("depth", 1, 10)])


@pytest.fixture
def trials_of(make_trial):
    """Make trials from (origin, value) pairs; a value of None is a failure."""

    def make(*rows):
        return [
            make_trial(
                number,
                {"learning_rate": 1e-2, "depth": 1},
                State.FAILED if value is None else State.COMPLETE,
                value,
                origin,
            )
            for number, (origin, value) in enumerate(rows)
        ]

    return make


def share(trials, direction="minimize"):
    return model_share(trials, direction)


@pytest.mark.parametrize("count", range(STARTUP))
def test_a_chat_model_proposes_the_first_trials(trials_of, count):
    assert share(trials_of(*[("llm", 0.5)] * count)) == 1.0


def test_an_engine_with_meta_data_starts_as_an_equal(trials_of):
    assert model_share([], "minimize", has_meta_data=True) == 0.5
    one_each = trials_of(("llm", 0.5), ("meta", 0.5))
    assert 0.2 < model_share(one_each, "minimize", has_meta_data=True) < 0.5


def past_of(task, trials, digest="a"):
    """A past study on a task, whose model had this digest."""
    own = [dataclasses.replace(t.proposal, model_digest=digest) for t in trials]
    return PastStudy(
        "old/1", task,
        tuple(dataclasses.replace(t, proposal=p) for t, p in zip(trials, own, strict=True)),
    )  # fmt: skip


GOOD_MODEL = [("llm", 0.1), ("bo", 0.8), ("llm", 0.2), ("bo", 0.9)] * 2


def test_the_track_record_in_past_studies_counts(trials_of, make_task):
    task = make_task()
    even = trials_of(*[("llm", 0.5), ("bo", 0.5)] * 3)
    good = past_track_record(task, [past_of(task, trials_of(*GOOD_MODEL))], "a")
    reversed_rows = [("bo" if side == "llm" else "llm", value) for side, value in GOOD_MODEL]
    poor = past_track_record(task, [past_of(task, trials_of(*reversed_rows))], "a")
    shares = [model_share(even, "minimize", past=before) for before in (poor, None, good)]
    assert shares == sorted(shares) and len(set(shares)) == 3
    assert model_share([], "minimize", past=good, has_meta_data=True) <= 1.0 - MIN_ENGINE_SHARE


def test_only_the_models_own_trials_in_similar_studies_count(trials_of, make_task):
    task = make_task()
    past = past_of(task, trials_of(*GOOD_MODEL))
    assert past_track_record(task, [past], "another").model == WinRate()
    assert past_track_record(task, [past], "another").engine.trials == 4
    private = dataclasses.replace(past, private=True)
    other = dataclasses.replace(task, space=Space([Float("omega", -3.0, -1.0)]))
    assert (
        past_track_record(other, [past], "a")
        == past_track_record(task, [private], "a")
        == TrackRecord()
    )


def test_many_past_trials_count_no_more_than_the_maximum(trials_of, make_task):
    task = make_task()
    past = past_of(task, trials_of(*GOOD_MODEL))
    found = past_track_record(task, [past] * 50, "a")
    assert found.model.trials == pytest.approx(MAX_PAST_TRIALS)
    ratio = found.model.wins / found.model.trials
    once = past_track_record(task, [past], "a").model
    assert ratio == pytest.approx(once.wins / once.trials)


def test_proposals_from_past_studies_and_meta_data_count_for_the_engine(trials_of):
    good = trials_of(*[("llm", 0.5)] * 3, ("transfer", 0.1), ("bo+transfer", 0.1))
    poor = trials_of(*[("llm", 0.5)] * 3, ("transfer", 0.9), ("bo+transfer", 0.9))
    assert share(good) < share(poor)


def test_at_equal_win_rates_the_share_of_the_model_falls_with_the_trials(trials_of):
    def even(count):
        rows = [("llm" if n % 2 else "bo", 0.5) for n in range(count)]
        return share(trials_of(*rows))

    shares = [even(count) for count in range(4, 31, 2)]
    assert shares == sorted(shares, reverse=True)
    assert even(4) == pytest.approx(1 / 5, abs=0.02)
    assert even(30) == pytest.approx(1 / 31, abs=0.02)


def test_a_model_that_does_better_is_asked_more_often(trials_of):
    good = trials_of(("llm", 0.1), ("llm", 0.2), ("bo", 0.8), ("bo", 0.9))
    poor = trials_of(("llm", 0.9), ("llm", 0.8), ("bo", 0.2), ("bo", 0.1))
    assert share(good) > share(poor)
    assert share(good, "maximize") < share(poor, "maximize")


def test_the_engine_keeps_its_minimum_share(trials_of):
    trials = trials_of(*[("llm", 0.1)] * 3, *[("bo", 0.9)] * 30)
    assert 0.0 < share(trials) <= 1.0 - MIN_ENGINE_SHARE


def test_a_model_whose_trials_fail_does_not_keep_all_turns(trials_of):
    assert share(trials_of(*[("llm", None)] * 5)) == 1.0
    assert share(trials_of(*[("llm", None)] * 6)) < 0.2


def test_failures_count_against_a_side_and_trials_of_users_for_neither(trials_of):
    before = trials_of(("user", 0.5), ("default", 0.4), ("user", 0.3))
    assert share(before) == pytest.approx(1 / 4)
    failed = trials_of(("user", 0.5), ("default", 0.4), ("user", 0.3), ("llm", None))
    assert estimate_win_rate([failed[3]], failed, "minimize") < 0.5


def test_infeasible_trials_are_no_evidence(trials_of, make_trial):
    trials = trials_of(("llm", 0.5), ("llm", 0.4))
    refused = make_trial(2, {"learning_rate": 1e-2, "depth": 2}, State.INFEASIBLE, origin="llm")
    assert share([*trials, refused]) == 1.0


def test_the_win_rate_is_the_share_of_trials_beaten_shrunk_towards_a_half(trials_of):
    trials = trials_of(("llm", 0.1), ("bo", 0.2), ("bo", 0.3))
    assert estimate_win_rate(trials[:1], trials, "minimize") == pytest.approx((1.5 + 1.0) / 4)
    assert estimate_win_rate(trials[1:], trials, "minimize") == pytest.approx((1.5 + 0.5 + 0.0) / 5)
    assert estimate_win_rate([], trials, "minimize") == 0.5


def named(*names):
    return Space([Float(name, 0.0, 1.0) for name in names])


SPELLINGS = ["max_depth", "max-depth", "MaxDepth", "clf__max_depth", "model.max-depth"]


@pytest.mark.parametrize("name", SPELLINGS)
def test_names_are_known_in_any_spelling(name):
    assert unknown_parameters(named(name), {"max_depth"}) == []


def test_a_name_with_the_same_beginning_is_unknown():
    assert unknown_parameters(named("max_depth_2", "depth"), {"max_depth"}) == [
        "max_depth_2",
        "depth",
    ]


def test_no_name_is_unknown_where_the_model_lists_none():
    assert unknown_parameters(named("x", "y"), frozenset()) == []
    assert not is_unknown_space(named("x", "y"), frozenset())


def test_a_space_is_unknown_when_fewer_than_half_of_its_names_are_known():
    known = {"alpha", "beta"}
    assert not is_unknown_space(named("alpha", "beta", "x", "y"), known)
    assert is_unknown_space(named("alpha", "x", "y"), known)


def test_a_parameter_with_one_value_does_not_count():
    space = Space([Float("alpha", 0.0, 1.0), Int("x", 3, 3), Categorical("y", ("a",))])
    assert unknown_parameters(space, {"alpha"}) == []


def test_a_chat_model_takes_turns_as_the_history_tells(make_task, make_trial, chat_backend):
    task = make_task(space=SPACE)
    turns = []
    for _ in range(2):
        turns.append([])
        for number in range(5, 25):
            trials = tuple(
                make_trial(n, SPACE.sample(np.random.default_rng(n)), value=0.0)
                for n in range(number)
            )
            backend = chat_backend(SPACE)
            creator = open_creator(task, backend=backend)
            (proposal,) = creator.propose(History(task, trials, 1, number), 1)
            turns[-1].append(str(proposal.origin))
            assert (proposal.origin == LLM) == bool(backend.calls)
    assert turns[0] == turns[1]
    assert set(turns[0]) == {"llm", "bo"}


def test_a_chat_model_that_did_well_in_past_studies_takes_more_turns(
    make_task, make_trial, chat_backend
):
    task = make_task(space=SPACE)
    digest = chat_backend(SPACE).model.digest
    configs = [SPACE.sample(np.random.default_rng(n)) for n in range(12)]
    trials = tuple(make_trial(n, config, value=0.0) for n, config in enumerate(configs[:4]))

    def turns(better):
        rows = [(LLM if n % 2 else ORIGIN, configs[n]) for n in range(12)]
        past = PastStudy(
            "old/1", task,
            tuple(
                Trial(
                    n, State.COMPLETE, Proposal(config, side, model_digest=digest),
                    values=(n + (0.0 if side == better else 100.0),),
                )
                for n, (side, config) in enumerate(rows)
            ),
        )  # fmt: skip
        found = []
        for seed in range(60):
            creator = open_creator(task, backend=chat_backend(SPACE), past_studies=[past])
            found += [p.origin for p in creator.propose(History(task, trials, seed, 4), 1)]
        return found.count(LLM)

    assert turns(LLM) > turns(ORIGIN)


def loss(config):
    return (np.log10(config["rate"]) + 2.0) ** 2 + (config["depth"] - 4) ** 2 / 20


def run(creator, task, trials):
    done = []
    for number in range(trials):
        (proposal,) = creator.propose(History(task, tuple(done), 0, number), 1)
        done.append(Trial(number, State.COMPLETE, proposal, values=(float(loss(proposal.config)),)))
    return done


def model_that_knows(fake_backend, *names):
    rng = np.random.default_rng(0)
    return fake_backend(
        lambda call, sample: SPACE.text(SPACE.sample(rng)),
        "compact",
        known_parameters=frozenset(names),
    )


def test_a_model_is_not_asked_where_it_does_not_know_the_names(make_task, fake_backend):
    task, backend = (
        make_task(space=SPACE),
        model_that_knows(fake_backend, "learning_rate", "momentum"),
    )
    creator = open_creator(task, backend=backend)
    trials = run(creator, task, 4)
    assert backend.calls == []
    origins = [str(trial.proposal.origin) for trial in trials]
    assert origins == ["default", "bo", "bo", "bo"]
    assert trials[0].config == SPACE.default()
    notes = [trial.proposal.note for trial in trials]
    assert notes == ["the model is not asked: it was not trained on rate, depth", "", "", ""]
    alone = run(Hybrid(None), task, 4)
    assert [t.config for t in trials] == [t.config for t in alone]


def test_a_model_is_asked_where_it_knows_half_of_the_names(make_task, fake_backend):
    task, backend = make_task(space=SPACE), model_that_knows(fake_backend, "rate")
    run(open_creator(task, backend=backend), task, 2)
    assert backend.calls
