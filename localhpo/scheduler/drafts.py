"""Proposals drawn ahead of need: in no record until a slot is free, so they cost nothing.

A draft is stale when a trial became the best one after it was drawn: what the Creator would try
now may be something else. It is asked again then; until it has answered, a free slot takes a stale
draft rather than stand empty.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from localhpo.space import Space
from localhpo.trial import Proposal, State, Trial


@dataclass(frozen=True, slots=True)
class _Draft:
    proposal: Proposal
    best: int | None
    """Number of the best trial that it knew of."""


class Drafts:
    """The proposals in hand, the oldest first."""

    def __init__(self, space: Space) -> None:
        """Begin with none."""
        self._space = space
        self._drafts: deque[_Draft] = deque()

    def __len__(self) -> int:
        return len(self._drafts)

    def add(self, proposals: Sequence[Proposal], best: Trial | None) -> list[Proposal]:
        """Keep proposals that were drawn when `best` was the best trial.

        Returns:
            Those that gave way to them: stale ones, the oldest first, one for each at most.
        """
        stale = self._stale(best)[: len(proposals)]
        number = None if best is None else best.number
        self._drafts.extend(_Draft(proposal, number) for proposal in proposals)
        return self._drop(stale)

    def take(self) -> Proposal:
        """Return the oldest one."""
        return self._drafts.popleft().proposal

    def as_trials(self, next_number: int) -> tuple[Trial, ...]:
        """Return them as the trials that they would become, for the Creator to know of."""
        return tuple(
            Trial(number=next_number + i, state=State.QUEUED, proposal=draft.proposal)
            for i, draft in enumerate(self._drafts)
        )

    def stale(self, best: Trial | None) -> int:
        """Return how many did not know of the best trial."""
        return len(self._stale(best))

    def drop_equal(self, trials: Sequence[Trial]) -> list[Proposal]:
        """Drop and return those that are trials by now: a user may have had the same idea."""
        known = {self._space.key(trial.config) for trial in trials}
        return self._drop(
            [draft for draft in self._drafts if self._space.key(draft.proposal.config) in known]
        )

    def _stale(self, best: Trial | None) -> list[_Draft]:
        number = None if best is None else best.number
        return [draft for draft in self._drafts if draft.best != number]

    def _drop(self, drafts: Sequence[_Draft]) -> list[Proposal]:
        for draft in drafts:
            self._drafts.remove(draft)
        return [draft.proposal for draft in drafts]
