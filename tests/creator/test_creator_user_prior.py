"""Priors of the user: they open a study, guide the optimizer, and are overcome where wrong."""

from __future__ import annotations

import dataclasses
import statistics

import numpy as np
import pytest

from localhpo.creator import History, open_creator
from localhpo.creator.hybrid import HybridCreator
from localhpo.creator.sources import make_user_prior
from localhpo.space import Categorical, Float, Int, Space
from localhpo.space.base import NumberPrior
from localhpo.trial import State, Trial


def space_around(rate, depth, opt):
    return Space([
        Float("rate", 1e-5, 1.0, log=True, prior=NumberPrior(rate, 3.0)),
        Int("depth", 1, 20, prior=NumberPrior(depth, 2.0)),
        Categorical("opt", ("sgd", "adam", "lion", "rms"), likely=(opt,)),
    ])  # fmt: skip


GOOD, MISLEADING = space_around(1e-3, 12, "adam"), space_around(0.5, 2, "rms")
NONE = Space([
    dataclasses.replace(p, likely=()) if isinstance(p, Categorical) else
    dataclasses.replace(p, prior=None) for p in GOOD.parameters
])  # fmt: skip


def loss(config):
    away = (np.log10(config["rate"]) + 3.0) ** 2 / 8 + (config["depth"] - 12) ** 2 / 100
    return float(away + (config["opt"] != "adam") * 0.3)


def run(task, trials, seed=0):
    creator, done = HybridCreator(), []
    for number in range(trials):
        (proposal,) = creator.propose(History(task, tuple(done), seed, number), 1)
        done.append(Trial(number, State.COMPLETE, proposal, values=(loss(proposal.config),)))
    return done


def best(trials):
    return np.minimum.accumulate([trial.value for trial in trials])


def test_the_expected_values_are_first_and_then_guide(make_task):
    trials = run(make_task(space=GOOD), 8)
    assert trials[0].config == {"rate": 1e-3, "depth": 12, "opt": "adam"}
    assert str(trials[0].proposal.origin) == "default"
    origins = [str(trial.proposal.origin) for trial in trials[1:]]
    assert set(origins) <= {"bo+user", "bo"}
    guided = next(t for t in trials if str(t.proposal.origin) == "bo+user")
    assert "guided by what you expect" in guided.proposal.rationale


def test_a_good_prior_helps_and_a_misleading_one_costs_few_trials(make_task):
    seeds = range(5)
    good, none, bad = (
        [best(run(make_task(space=space), 16, seed)) for seed in seeds]
        for space in (GOOD, NONE, MISLEADING)
    )
    assert np.mean([one[2] for one in good]) < 0.3 * np.mean([one[2] for one in none])
    later = [
        float(np.argmax(wrong <= right[9] + 1e-9) if wrong[-1] <= right[9] else 16)
        - float(np.argmax(right <= right[9]))
        for wrong, right in zip(bad, none, strict=True)
    ]
    assert statistics.median(later) <= 3


def test_parameters_without_a_prior_are_not_informed():
    space = Space([*GOOD.parameters, Float("free", 0.0, 1.0)])
    prior = make_user_prior(space)
    assert prior is not None
    config = space.default()
    points = np.array([space.encode({**config, "free": x}) for x in (0.0, 0.4, 1.0)])
    assert np.ptp(prior(points)) == pytest.approx(0.0)
    away = np.array([space.encode({**config, "rate": r}) for r in (1e-3, 1e-1)])
    assert prior(away)[0] > prior(away)[1]


def test_there_is_no_prior_where_nothing_is_expected():
    assert make_user_prior(NONE) is None


def test_it_joins_the_other_sources(make_task, fake_backend):
    rng = np.random.default_rng(0)

    def answer(call, sample):
        rate = float(10.0 ** np.clip(rng.normal(-3.0, 0.3), -5.0, 0.0))
        depth = int(np.clip(rng.normal(12, 1), 1, 20))
        return GOOD.text({"rate": rate, "depth": depth, "opt": "adam"})

    task = make_task(space=GOOD)
    creator, done = open_creator(task, backend=fake_backend(answer, "chat")), []
    for number in range(10):
        (proposal,) = creator.propose(History(task, tuple(done), 0, number), 1)
        done.append(Trial(number, State.COMPLETE, proposal, values=(loss(proposal.config),)))
    origins = [str(trial.proposal.origin) for trial in done]
    assert origins[:2] == ["default", "llm"]
    assert "bo+llm+user" in origins
