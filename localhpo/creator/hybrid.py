"""The language model and an engine, sharing the trials: the default Creator.

Who makes the next proposal is computed from the trials' origins and outcomes (`policy`) and
drawn under a seed of the trial's number, so a resumed study goes on alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from localhpo.creator.batch import one_by_one
from localhpo.creator.engines import KINDS, Engine, fitting
from localhpo.creator.policy import model_share
from localhpo.creator.protocol import History
from localhpo.creator.seeds import derive
from localhpo.trial import Proposal

if TYPE_CHECKING:
    from localhpo.creator.agent import Agent


class Hybrid:
    """Model and engine by turns; the task's default first.

    Args:
        agent: asks the model. None: there is no model, and the engine makes all proposals.
        note: with each of them then: why.
    """

    def __init__(self, agent: Agent | None, *, note: str = "") -> None:
        self._agent = agent
        self._note = note

    @property
    def name(self) -> str:
        """The name by which a user selects it."""
        return "hybrid"

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals.

        Raises:
            SpaceExhaustedError: nothing new is left.
            ModelError: the model failed, and the task says to stop then.
        """
        return one_by_one(self._one, history, n)

    def close(self) -> None:
        """Close the agent."""
        if self._agent is not None:
            self._agent.close()

    def _one(self, history: History) -> Proposal:
        proposal = self._default(history)
        if proposal is None and self._agent is not None and self._is_models_turn(history):
            return self._agent.propose_one(history)
        if proposal is None:
            proposal = stand_in(history)
        notes = filter(None, (self._note, proposal.note))
        return dataclasses.replace(proposal, note="; ".join(notes))

    def _default(self, history: History) -> Proposal | None:
        """Return the task's default as the first trial, where it names one.

        Without a model the centre of the space comes first in any case: it is better than a
        random draw nearly everywhere.
        """
        space = history.task.space
        wanted = space.has_defaults or self._agent is None
        if history.trials or not wanted:
            return None
        reason = "the task's defaults" if space.has_defaults else "the centre of the space"
        return Proposal(
            config=space.default(),
            origin="default",
            rationale=f"{reason}, before there is evidence",
            rationale_by="computed",
        )

    def _is_models_turn(self, history: History) -> bool:
        task = history.task
        startup = KINDS[fitting(task.space, len(history.trials))].startup
        share = model_share(history.trials, task.direction, startup)
        rng = np.random.default_rng(derive(history, "turn"))
        return bool(rng.random() < share)


def stand_in(history: History) -> Proposal:
    """Return the proposal of the engine that suits the study."""
    return Engine(fitting(history.task.space, len(history.trials))).propose_one(history)
