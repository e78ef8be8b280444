"""The Creator protocol, and what creators share: seeds, and making several proposals.

A creator decides which configuration to try next. Laws, which `localhpo.testing` has as tests:

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
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from localhpo.errors import SpaceExhaustedError
from localhpo.task import Task
from localhpo.trial import Config, Proposal, State, Trial

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

    @property
    def has_value(self) -> bool:
        """Whether a trial is complete."""
        return any(trial.state is State.COMPLETE for trial in self.trials)

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


def derive_seed(history: History, purpose: str, attempt: int = 0) -> int:
    """Return the seed (31 bits) of one random choice for the next trial.

    It is derived from the study's seed and the number of the trial, and from nothing else, so a
    study that is resumed in another process goes on as it would have.

    Args:
        history: the study so far; its seed and next number count.
        purpose: separates the random choices of one proposal. Changing its text changes the seed.
        attempt: separates the attempts at one purpose.
    """
    from numpy.random import SeedSequence  # here: the names of creators are in `run --help`

    entropy = (history.seed % 2**64, history.next_number, zlib.crc32(purpose.encode()), attempt)
    return int(SeedSequence(entropy).generate_state(1)[0]) >> 1


def propose_one_by_one(
    propose: Callable[[History], Proposal], history: History, n: int
) -> list[Proposal]:
    """Return up to `n` proposals; fewer when the space holds no more.

    Asking for n proposals is the same as asking n times for one while none of them has run.

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
