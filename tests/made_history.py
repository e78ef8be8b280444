"""Past studies of made-up tasks, whose best configurations lie at one place."""

from __future__ import annotations

import dataclasses

import numpy as np

from localhpo.objective import Objective
from localhpo.space import Space
from localhpo.study import Study
from localhpo.task import Budget, Task
from localhpo.transfer import PastStudy
from localhpo.trial import Cause, Failure, Origin, Proposal, State, Trial

SPACE = Space.from_table(
    {
        "rate": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "depth": {"type": "int", "low": 2, "high": 12},
        "kind": {"type": "categorical", "values": ["left", "right"]},
    }
)
BEST = {"rate": 2e-3, "depth": 9, "kind": "right"}


def make_past(number, *, trials=8, fails=1, space=SPACE, study="main"):
    """A study whose score is the distance to `BEST`, up to a shift of its own."""
    task = Task(
        name=f"made-{number}", command=(), objectives=(Objective("loss"),), space=space,
        background=f"The made-up data set number {number}.",
    )  # fmt: skip
    rng = np.random.default_rng([number, len(study)])
    made = []
    for i in range(trials):
        config = space.sample(rng)
        proposal = Proposal(config=config, origin=Origin(engine="random"))
        if i < fails:
            failure = Failure(Cause.EXIT_CODE, "the script ended with exit code 1")
            made.append(Trial(i, State.FAILED, proposal, failure=failure))
        else:
            score = number + space.distance(config, BEST)
            made.append(Trial(i, State.COMPLETE, proposal, values=(score,)))
    return PastStudy(f"{task.name}/{study}", task, tuple(made))


def keep(home, past, **changes):
    """Store a made-up study as a finished one."""
    task = dataclasses.replace(past.task, budget=Budget(trials=len(past.trials)), **changes)
    with Study.open(task, home=home) as study:
        for trial in past.trials:
            failure = None if trial.failure is None else trial.failure.message
            study.add_trial(trial.config, trial.value, failure=failure)
