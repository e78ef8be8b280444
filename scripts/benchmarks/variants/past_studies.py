"""Past studies for a comparison of Creators with and without transfer.

They are studies of other problems, run here by a Creator without transfer, as a user's own past
studies would be. `creators.make_creator` takes them; the modifier `:retrieve` uses them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from localhpo.creator import Creator
from localhpo.transfer import PastStudy
from localhpo.trial import Origin, Proposal, State, Trial
from scripts.benchmarks import simulation
from scripts.benchmarks.problems.problem import Problem
from scripts.benchmarks.results import TrialRow


def run_past_study(problem: Problem, creator: Creator, *, seed: int, trials: int) -> PastStudy:
    """Run a study of a problem and return it as a past study.

    Args:
        problem: a problem that is not part of the comparison.
        creator: proposes; the caller closes it.
        seed: number of the repetition.
        trials: budget of the study.

    Raises:
        LocalHPOError: the Creator failed.
    """
    return to_past_study(
        problem, simulation.run_study(problem, creator, seed=seed, trials=trials), seed
    )


def to_past_study(problem: Problem, rows: Sequence[TrialRow], seed: int) -> PastStudy:
    """Return stored trials of a study as a past study."""
    trials = tuple(_to_trial(row) for row in rows if not row.invalid)
    return PastStudy(f"{problem.task.name}/{problem.task.metric}-{seed}", problem.task, trials)


def _to_trial(row: TrialRow) -> Trial:
    proposal = Proposal(json.loads(row.config), origin=Origin.parse(row.origin))
    return Trial(
        row.number, State(row.state), proposal, values=() if row.value is None else (row.value,)
    )
