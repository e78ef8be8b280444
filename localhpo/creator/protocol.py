"""The Creator protocol: a creator decides which configuration to try next.

Laws, which `tests/contracts/test_creator_contract.py` runs over every implementation:

- `propose(history, n)` returns between 1 and `n` proposals (fewer only where the space holds no
  more new ones) or raises `SpaceExhaustedError`;
- each proposal is canonical, valid and new: it equals no trial of the history, whatever its state
  (queued and running ones included), and no other proposal of the call;
- each proposal carries its true origin;
- a proposal depends on the history and the seed alone: the same history gives the same engine
  proposals, in this process or in another (an engine's state travels in
  `Proposal.engine_state` of the trials);
- a configuration known not to run on this machine (`History.invalid_reason`) is proposed only
  where every candidate is one;
- failed trials have no value, and none is made up for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from localhpo.task import Task
from localhpo.trial import Config, Proposal, Trial

if TYPE_CHECKING:
    from localhpo.llm.protocol import Backend


@dataclass(frozen=True, slots=True)
class History:
    """Everything a Creator may look at."""

    task: Task
    trials: tuple[Trial, ...]
    """All trials of the study, by number: finished, running and queued ones."""
    seed: int
    """Seed of the study."""
    next_number: int
    """Number of the next trial; the seeds of its proposal derive from it."""
    invalid_reason: Callable[[Config], str | None] | None = None
    """Returns why a configuration cannot run on this machine, as trials have shown, or None where
    it may run. None: nothing is known."""

    def first_objective(self) -> History:
        """Return the history of the first objective alone, for a creator that knows no more."""
        task = self.task.single_objective
        if task is self.task:
            return self
        trials = tuple(trial.with_(values=trial.values[:1], violations=()) for trial in self.trials)
        return dataclasses.replace(self, task=task, trials=trials)


class Creator(Protocol):
    """Decides which configuration to try next. See the module for the laws."""

    @property
    def name(self) -> str:
        """The name by which a user selects it."""
        ...

    @property
    def backend(self) -> Backend | None:
        """Backend of the language model that it asks; None where it asks none."""
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
