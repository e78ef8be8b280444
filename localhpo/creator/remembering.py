"""Experience in the hands of the optimizer: what was good elsewhere opens a study, then guides it.

The remembered configurations (`experience.recall`) are samples of what is good, as a small
model's are, only fewer, better founded and of unequal weight. So they are used the same way:
the one that represents them best opens the study, and all of them together are an opinion that
the optimizer leans on for as long as the trials agree with it.

Where a small model has an opinion too, the two are mixed by `EXPERIENCE_SHARE`, and what
represents both best opens the study. (On the problems for choosing settings that lowered the
regret of the first trial from .34 to .29; for the second and third what is remembered alone was
better.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from localhpo.creator.bayes import Opinion, optimizer
from localhpo.creator.bayes.gp import Array
from localhpo.creator.choosing import representative
from localhpo.creator.guard import Guard, Verdict
from localhpo.experience.recall import MOST
from localhpo.trial import Proposal, State

if TYPE_CHECKING:
    from localhpo.creator.bayes.optimizer import Belief
    from localhpo.creator.protocol import History
    from localhpo.experience import Memory
    from localhpo.space import Space
    from localhpo.trial import Config

ORIGIN = "experience"
"""Of a configuration that is taken over as it was."""

SAID = "model"
"""Of a configuration that a small model drew, and that is taken as it was."""

LEANING = "experience+bo"
"""Of a proposal of the optimizer that leans on what was good elsewhere."""

WITH_MODEL = "model+experience+bo"
"""Of one that leans on that and on the model's opinion."""

OPENERS = 3
"""Configurations that are tried as they are. With one alone the regret at trials 5 and 10 was
higher by half (`scripts/measure_experience.py`), with five by a fifth."""

TRUST = 0.5
"""Weight of experience before any trial, in units of the process's own spread. 0.5, 1 and 2 were
nearly alike; the least of them leaves most to the trials."""

EXPERIENCE_SHARE = 0.5
"""Of an opinion that a small model has a part in: even, for nothing else was tried."""

OTHERS = 0.5
"""Weight of what a model was taught, where its owner has something alike."""

OWNER = "the opinion of past studies"
BOTH = "the opinion of the model and of past studies"


def joined(memories: Sequence[Memory], others: Sequence[Memory]) -> tuple[Memory, ...]:
    """Return the owner's memories and what a model was taught, the weightiest first."""
    weight = OTHERS if memories else 1.0
    lighter = [dataclasses.replace(other, weight=weight * other.weight) for other in others]
    return tuple(sorted([*memories, *lighter], key=lambda memory: -memory.weight)[:MOST])


def opening(
    history: History, memories: Sequence[Memory], thoughts: Sequence[Config] = ()
) -> Proposal | None:
    """Return a remembered configuration, one of the thoughts (its origin is `SAID`), or None.

    None after `OPENERS` of them, once a trial has a score, or where none is new.

    Args:
        history: of the study.
        memories: at least one.
        thoughts: configurations that a small model drew, where they are to be considered too.
    """
    opened = sum(trial.proposal.origin in (ORIGIN, SAID) for trial in history.trials)
    if opened >= OPENERS and is_scored(history):
        return None
    configs = [*(memory.config for memory in memories), *thoughts]
    tried = [trial.config for trial in history.trials]
    order = representative(history.task.space, configs, tried, weights=_shares(memories, thoughts))
    pick = Guard(history).pick(order, lambda place: configs[place])
    if pick is None or pick.verdict is not Verdict.NEW:
        return None
    config = configs[pick.drawn]
    if pick.drawn >= len(memories):
        return Proposal(config, origin=SAID, tries=pick.tries)
    return Proposal(
        config, origin=ORIGIN, rationale=reason(memories[pick.drawn]), rationale_by="computed",
        tries=pick.tries,
    )  # fmt: skip


def _shares(memories: Sequence[Memory], thoughts: Sequence[Config]) -> Array:
    """Return the share of each memory and then of each thought in what is believed."""
    weights = np.array([memory.weight for memory in memories])
    weights /= weights.sum()
    if not thoughts:
        return weights
    drawn = np.full(len(thoughts), (1.0 - EXPERIENCE_SHARE) / len(thoughts))
    return np.concatenate([EXPERIENCE_SHARE * weights, drawn])


def is_scored(history: History) -> bool:
    """Return whether a trial has a score."""
    return any(trial.state is State.COMPLETE for trial in history.trials)


def reason(memory: Memory) -> str:
    """Return in words where a configuration comes from, and why it may be good here."""
    where = memory.study if memory.trial is None else f"trial {memory.trial} of {memory.study}"
    return (
        f"good elsewhere: {where} had {memory.metric} "
        f"{memory.score:.4g}; that task is similar by {memory.similarity:.2f} "
        f"({'; '.join(memory.reasons)})"
    )


def opinion(space: Space, memories: Sequence[Memory], thoughts: Sequence[Config] = ()) -> Opinion:
    """Return what past studies, and the thoughts of a small model, say of each point.

    Args:
        space: of the study.
        memories: at least one.
        thoughts: configurations that the model drew.
    """
    configs = [*(memory.carried for memory in memories), *thoughts]
    owner = BOTH if thoughts else OWNER
    return Opinion(space, configs, TRUST, weights=_shares(memories, thoughts), owner=owner)


def suggested(history: History, opinion: Belief, leaning: str) -> Proposal:
    """Return the optimizer's proposal; its origin is `leaning` where the opinion took part."""
    return optimizer.proposed(history, optimizer.suggest(history, opinion), leaning)
