"""Past studies for a comparison: what a Creator with experience may remember.

They are studies of other problems, run here by a Creator without experience, as a user's own
past would be. Give them to `creators.make`, whose modifier `:retrieve` makes use of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from localhpo.bench import simulation
from localhpo.bench.problems.problem import Problem
from localhpo.creator import Creator
from localhpo.experience import Past
from localhpo.store.results import TrialRow
from localhpo.trial import Proposal, State, Trial


def past_of(problem: Problem, creator: Creator, *, seed: int, trials: int) -> Past:
    """Run a study of a problem and return it as a past one.

    Args:
        problem: another one than those that are compared on.
        creator: who proposed then; the caller closes it.
        seed: number of the repetition.
        trials: of the study.

    Raises:
        LocalHPOError: the Creator failed.
    """
    return from_rows(problem, simulation.run(problem, creator, seed=seed, trials=trials), seed)


def from_rows(problem: Problem, rows: Sequence[TrialRow], seed: int) -> Past:
    """Return a study that is in the results already as a past one."""
    trials = tuple(_trial(row) for row in rows if not row.invalid)
    return Past(f"{problem.task.name}/{problem.task.metric}-{seed}", problem.task, trials)


def _trial(row: TrialRow) -> Trial:
    proposal = Proposal(json.loads(row.config), origin=row.origin)
    return Trial(row.number, State(row.state), proposal, score=row.score)
