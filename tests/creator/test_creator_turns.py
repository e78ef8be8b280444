"""Whose turn it is: a model that talks, or the optimizer."""

from __future__ import annotations

import numpy as np

from localhpo.creator import History, open_creator
from localhpo.experience import Past
from localhpo.space import Float, Int, Space
from localhpo.trial import Proposal, State, Trial

SPACE = Space([Float("rate", 1e-4, 1.0, log=True), Int("depth", 1, 10)])


def test_a_model_that_talks_takes_turns_as_the_history_says(make_task, make_trial, talking):
    task = make_task(space=SPACE)
    turns = []
    for _ in range(2):
        turns.append([])
        for number in range(5, 25):
            trials = tuple(
                make_trial(n, SPACE.sample(np.random.default_rng(n)), score=0.0)
                for n in range(number)
            )
            backend = talking(SPACE)
            creator = open_creator(task, backend=backend)
            (proposal,) = creator.propose(History(task, trials, 1, number), 1)
            turns[-1].append(proposal.origin)
            assert (proposal.origin == "model") == bool(backend.calls)
    assert turns[0] == turns[1]
    assert set(turns[0]) == {"model", "engine:bo"}


def test_a_model_that_did_well_in_past_studies_takes_more_turns(make_task, make_trial, talking):
    task = make_task(space=SPACE)
    digest = talking(SPACE).model.digest
    configs = [SPACE.sample(np.random.default_rng(n)) for n in range(12)]
    trials = tuple(make_trial(n, config, score=0.0) for n, config in enumerate(configs[:4]))

    def turns(better):
        rows = [("model" if n % 2 else "engine:bo", configs[n]) for n in range(12)]
        past = Past(
            "old/1", task,
            tuple(
                Trial(
                    n, State.COMPLETE, Proposal(config, who, model_digest=digest),
                    score=n + (0.0 if who == better else 100.0),
                )
                for n, (who, config) in enumerate(rows)
            ),
        )  # fmt: skip
        found = []
        for seed in range(60):
            creator = open_creator(task, backend=talking(SPACE), pasts=[past])
            found += [p.origin for p in creator.propose(History(task, trials, seed, 4), 1)]
        return found.count("model")

    assert turns("model") > turns("engine:bo")
