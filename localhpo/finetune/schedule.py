"""When the next round is due: after so many finished studies that no round has seen."""

from __future__ import annotations

from collections.abc import Sequence

from localhpo.llm import versions
from localhpo.transfer import PastStudy, unusable_reason

DEFAULT_EVERY = 5


def count_missing_studies(past_studies: Sequence[PastStudy], base: str, every: int) -> int:
    """Return how many finished studies are missing until a round is due; 0: it is due.

    Also a version that the gate kept out has seen its studies: the same ones would not get
    another through.

    Args:
        past_studies: the studies of the store.
        base: name of the model, as cards of its versions have it.
        every: studies after which a round is due.
    """
    seen: set[str] = set()
    for card in versions.find_versions(base):
        if card.tuned is not None:
            seen |= {*card.tuned.studies, *card.tuned.held_out}
    fresh = [
        past_study
        for past_study in past_studies
        if past_study.study not in seen and _counts(past_study)
    ]
    return max(0, every - len(fresh))


def _counts(past_study: PastStudy) -> bool:
    """Whether a study has used up its trials, and teaches something."""
    return unusable_reason(past_study) is None and len(past_study.trials) >= (
        past_study.task.budget.trials or 1
    )
