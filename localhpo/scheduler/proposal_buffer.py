"""Prefetched proposals: made before a slot is free, and recorded only when one is.

A prefetched proposal is stale when the best trial has changed since it was made: the Creator might
propose something else now. It is then asked again. Until it has answered, a free slot takes a stale
proposal rather than stay empty. With several objectives no proposal is stale: the set of best
trials changes so often that most would be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from localhpo.objective import Objective, best_trial
from localhpo.space import Space
from localhpo.trial import Proposal, State, Trial


@dataclass(frozen=True, slots=True)
class _BufferedProposal:
    proposal: Proposal
    best: int | None
    """Number of the best trial when the proposal was made."""


class ProposalBuffer:
    """The prefetched proposals of a study, oldest first."""

    def __init__(self, space: Space) -> None:
        """Start empty."""
        self._space = space
        self._buffered: deque[_BufferedProposal] = deque()

    def __len__(self) -> int:
        return len(self._buffered)

    def add(self, proposals: Sequence[Proposal], best: Trial | None) -> list[Proposal]:
        """Add proposals that were made when `best` was the best trial.

        Returns:
            The stale proposals that they replace: the oldest first, at most one for each.
        """
        stale = self._stale(best)[: len(proposals)]
        number = None if best is None else best.number
        self._buffered.extend(_BufferedProposal(proposal, number) for proposal in proposals)
        return self._remove(stale)

    def pop(self) -> Proposal:
        """Remove and return the oldest proposal."""
        return self._buffered.popleft().proposal

    def as_trials(self, next_number: int) -> tuple[Trial, ...]:
        """Return the proposals as queued trials, to be shown to the Creator."""
        return tuple(
            Trial(number=next_number + i, state=State.QUEUED, proposal=buffered.proposal)
            for i, buffered in enumerate(self._buffered)
        )

    def count_stale(self, best: Trial | None) -> int:
        """Return how many proposals were made before `best` was the best trial."""
        return len(self._stale(best))

    def remove_equal(self, trials: Sequence[Trial]) -> list[Proposal]:
        """Remove and return the proposals that a trial has by now, as when a user enqueues one."""
        known = {self._space.key(trial.config) for trial in trials}
        return self._remove(
            [b for b in self._buffered if self._space.key(b.proposal.config) in known]
        )

    def _stale(self, best: Trial | None) -> list[_BufferedProposal]:
        number = None if best is None else best.number
        return [buffered for buffered in self._buffered if buffered.best != number]

    def _remove(self, removed: Sequence[_BufferedProposal]) -> list[Proposal]:
        for buffered in removed:
            self._buffered.remove(buffered)
        return [buffered.proposal for buffered in removed]


def find_reference(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Trial | None:
    """Return the best trial, by which proposals are stale; None with several objectives."""
    return best_trial(trials, objectives) if len(objectives) == 1 else None
