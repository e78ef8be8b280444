"""When the next round is due: after so many finished studies that no round has seen."""

from __future__ import annotations

from collections.abc import Sequence

from localhpo.experience import Past, refusal
from localhpo.llm import versions

EVERY = 5


def missing(pasts: Sequence[Past], base: str, every: int) -> int:
    """Return how many finished studies are missing until a round is due; 0: it is due.

    Also a version that the gate kept out has seen its studies: the same ones would not get
    another through.

    Args:
        pasts: the studies of the store.
        base: name of the model, as cards of its versions have it.
        every: studies after which a round is due.
    """
    seen: set[str] = set()
    for card in versions.of_base(base):
        if card.tuned is not None:
            seen |= {*card.tuned.studies, *card.tuned.held_out}
    fresh = [past for past in pasts if past.study not in seen and _counts(past)]
    return max(0, every - len(fresh))


def _counts(past: Past) -> bool:
    """Whether a study has used up its trials, and teaches something."""
    return refusal(past) is None and len(past.trials) >= (past.task.budget.trials or 1)
