"""When to fine-tune again: after a number of finished studies that no version was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from localhpo.llm.models import versions
from localhpo.transfer import PastStudy, unusable_reason

DEFAULT_EVERY = 5


def count_missing_studies(past_studies: Sequence[PastStudy], base: str, every: int) -> int:
    """Return how many finished studies are missing until the next training; 0: it is due.

    The studies of a refused version count as used: training on them again would give the same.

    Args:
        past_studies: the studies of the store.
        base: name of the base model, as in the cards of its versions.
        every: number of new studies after which a training is due.
    """
    seen: set[str] = set()
    for card in versions.find_versions(base):
        if card.tuned is not None:
            seen |= {*card.tuned.studies, *card.tuned.held_out}
    unused = [
        past_study
        for past_study in past_studies
        if past_study.study not in seen and _is_finished(past_study)
    ]
    return max(0, every - len(unused))


def _is_finished(past_study: PastStudy) -> bool:
    """Whether a study is finished and can be learned from."""
    return unusable_reason(past_study) is None and len(past_study.trials) >= (
        past_study.task.budget.trials or 1
    )
