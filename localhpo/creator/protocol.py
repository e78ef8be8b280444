"""What a Creator is: it decides what to try next.

Laws, which `tests/contracts/test_creator_contract.py` runs over every implementation:

- `propose(history, n)` returns between 1 and `n` proposals (fewer only when the space or the
  constraint on novelty leaves no more) or raises `SpaceExhaustedError`;
- each is canonical, valid, and new: equal to no trial of the history, whatever its state
  (queued and running ones included), and to no other proposal of the call;
- each carries its true origin;
- it depends on the history and the seed alone: the same history gives the same engine
  proposals, in this process or in another (an engine's state travels in
  `Proposal.engine_state` of the trials);
- what is known not to fit the machine (`History.misfit`) is proposed only where all draws are;
- trials that failed carry no score, and none is made up for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from localhpo.task import Task
from localhpo.trial import Config, Proposal, Trial


@dataclass(frozen=True, slots=True)
class History:
    """Everything a Creator may look at."""

    task: Task
    trials: tuple[Trial, ...]
    """All trials of the study, by number: finished, running and queued ones."""
    seed: int
    """Seed of the study."""
    next_number: int
    """The number that the next trial will get; seeds of proposals derive from it."""
    misfit: Callable[[Config], str | None] | None = None
    """Says why a configuration cannot run on this machine, as trials have shown, or None where it
    may; None: nobody knows."""


class Creator(Protocol):
    """Decides what to try next. See the module for the laws."""

    @property
    def name(self) -> str:
        """The name by which a user selects it."""
        ...

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals.

        Raises:
            SpaceExhaustedError: nothing new is left.
            ModelError: the model failed, and the task says to stop then.
        """
        ...

    def close(self) -> None:
        """Free what it holds (a model, a connection). May be called twice."""
        ...
