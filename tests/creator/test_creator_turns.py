"""Turns between a chat model and the optimizer."""

from __future__ import annotations

import numpy as np

from localhpo.creator import History, open_creator
from localhpo.creator.bo.optimizer import ORIGIN
from localhpo.space import Float, Int, Space
from localhpo.transfer import PastStudy
from localhpo.trial import LLM, Proposal, State, Trial

SPACE = Space([Float("rate", 1e-4, 1.0, log=True), Int("depth", 1, 10)])


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
