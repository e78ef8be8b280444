"""The first configurations of a study: a short list, from what is known of its space.

The first trial is the task's default, where there is one. Otherwise it is the best configuration of
the source that is trusted most, if it is trusted at all, else the center of the space. The second
trial comes from the other side: after the default or the center the most trusted source, after a
source the next one, or the center. So two trials that rest on different grounds tell which of them
to believe, and a source that is wrong has cost one trial.

Results on the very kind of model, of meta-data or past studies, are trusted fully: they give four
configurations, each chosen in the light of the trials, and before the last of them comes one far
from all others, in case they mislead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from localhpo.creator.bo import optimizer
from localhpo.creator.candidates import DuplicateFilter
from localhpo.creator.sources import FULL_TRUST
from localhpo.trial import DEFAULT, Config, Proposal

if TYPE_CHECKING:
    from localhpo.creator.protocol import History
    from localhpo.creator.sources import PriorSource

MIN_TRUST = 0.5
"""Trust from which configurations of a source are tried as they are."""

SIZE = 2
"""Trials of the design; more only while no trial has a value."""

FULL_SIZE = 4
"""Trials that a fully trusted source gives."""


def propose_initial(
    history: History, ranked: Sequence[tuple[PriorSource, float]]
) -> Proposal | None:
    """Return the next proposal of the design; None where it is the optimizer's turn.

    Args:
        history: the study so far, of one objective.
        ranked: the sources with their trust, the largest first.
    """
    count, space = len(history.trials), history.task.space
    ranked = [pair for pair in ranked if pair[1] >= MIN_TRUST]
    if count == 0 and (space.has_defaults or not ranked):
        return _propose_default(history)
    if full := [pair for pair in ranked if pair[1] >= FULL_TRUST]:
        return _propose_portfolio(history, full)
    if not ranked or (count >= SIZE and history.has_value):
        return None
    given = sum(_is_of_design(trial.proposal) for trial in history.trials)
    if count == 1 and given == 1 and len(ranked) == 1 and not _default_was_tried(history):
        return _propose_default(history)
    return _propose_first_new(history, _rotate(ranked, given))


def _propose_portfolio(
    history: History, ranked: Sequence[tuple[PriorSource, float]]
) -> Proposal | None:
    """Return the next configuration of a fully trusted source, or the one that explores."""
    given = sum(_is_of_design(trial.proposal) for trial in history.trials)
    explored = any(trial.proposal.origin == optimizer.ORIGIN for trial in history.trials)
    if given == FULL_SIZE - 1 and not explored:
        made = optimizer.to_proposal(history, optimizer.suggest_far(history))
        reason = "exploration trial, far from all others, in case what is known misleads"
        return dataclasses.replace(made, rationale=f"{reason}; {made.rationale}")
    if given >= FULL_SIZE and history.has_value:
        return None
    return _propose_first_new(history, _rotate(ranked, given))


def _propose_first_new(
    history: History, ranked: Sequence[tuple[PriorSource, float]]
) -> Proposal | None:
    duplicates = DuplicateFilter(history)
    for source, _ in ranked:
        selection = duplicates.select_new(source.first_configs(history), _config_of)
        if selection is not None:
            return dataclasses.replace(selection.candidate, tries=selection.tries)
    return None if _default_was_tried(history) else _propose_default(history)


def _rotate(
    ranked: Sequence[tuple[PriorSource, float]], count: int
) -> Sequence[tuple[PriorSource, float]]:
    """Return the sources, beginning with the one whose turn it is."""
    turn = count % len(ranked) if ranked else 0
    return [*ranked[turn:], *ranked[:turn]]


def _config_of(proposal: Proposal) -> Config:
    return proposal.config


def _is_of_design(proposal: Proposal) -> bool:
    """Return whether a source gave the configuration as it is."""
    origin = proposal.origin
    return origin.engine is None and any(origin.uses(s) for s in ("llm", "meta", "transfer"))


def _default_was_tried(history: History) -> bool:
    space = history.task.space
    key = space.key(space.default())
    return any(space.key(trial.config) == key for trial in history.trials)


def _propose_default(history: History) -> Proposal:
    space = history.task.space
    what = "the task's defaults" if space.has_defaults else "the center of the space"
    return Proposal(
        config=space.default(), origin=DEFAULT, rationale=f"{what}, before there is evidence",
        rationale_by="computed",
    )  # fmt: skip
