"""Makes several proposals at once, each of which takes those before it into account.

Asking for n proposals is the same as asking n times for one while none of them has run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from localhpo.creator.protocol import History
from localhpo.errors import SpaceExhaustedError
from localhpo.trial import Proposal, State, Trial


def propose_one_by_one(
    propose: Callable[[History], Proposal], history: History, n: int
) -> list[Proposal]:
    """Return up to `n` proposals; fewer when the space holds no more.

    Raises:
        SpaceExhaustedError: not even one is left.
    """
    proposals: list[Proposal] = []
    for _ in range(n):
        try:
            proposal = propose(history)
        except SpaceExhaustedError:
            if not proposals:
                raise
            break
        proposals.append(proposal)
        history = with_queued(history, proposal)
    return proposals


def with_queued(history: History, proposal: Proposal) -> History:
    """Return the history with the proposal queued as its next trial."""
    trial = Trial(number=history.next_number, state=State.QUEUED, proposal=proposal)
    return dataclasses.replace(
        history, trials=(*history.trials, trial), next_number=history.next_number + 1
    )
