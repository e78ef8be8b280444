"""A configuration model and a space whose names it does not know."""

from __future__ import annotations

import numpy as np

from localhpo.creator import History, open_creator
from localhpo.creator.hybrid import Hybrid
from localhpo.space import Float, Int, Space
from localhpo.trial import State, Trial

SPACE = Space([Float("rate", 1e-4, 1.0, log=True), Int("depth", 1, 10)])


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
