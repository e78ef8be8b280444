"""Views of fine-tuned models, and of the studies that they would be trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from localhpo.analysis.records import to_jsonable
from localhpo.cli.output import plain_table
from localhpo.finetune.pipeline import FinetunePlan
from localhpo.llm.models.card import IN_USE, Card, card_record


def plan_table(plan: FinetunePlan) -> Table:
    """Return the studies, the use of each, and why others are left out."""
    table = plain_table("study", "trials", "with values", "use",
                               right=("trials", "with values"))  # fmt: skip
    for row in _rows(plan):
        table.add_row(row["study"], str(row["trials"]), str(row["scored"]), row["use"])
    return table


def plan_record(plan: FinetunePlan) -> dict[str, Any]:
    """Return the studies and their use as JSON-able values."""
    return {
        "base": plan.base.name,
        "held_out_tasks": plan.split.held_out_tasks,
        "missing": plan.missing,
        "studies": list(_rows(plan)),
    }


def versions_table(cards: Sequence[Card]) -> Table:
    """Return the listing of fine-tuned models."""
    table = plain_table("fine-tuned", "base", "method", "trained on", "test", "reason")
    for card in cards:
        if (tuned := card.tuned) is not None:
            data = f"{tuned.trials} trials of {len(tuned.studies)} studies"
            table.add_row(card.name, tuned.base, tuned.method, data, tuned.status, tuned.reason)
    return table


def version_record(card: Card) -> dict[str, Any]:
    """Return the card of a fine-tuned model as JSON-able values."""
    known: dict[str, Any] = to_jsonable(card_record(card))
    return {"digest": card.identity, **known}


def is_in_use(card: Card) -> bool:
    """Return whether studies use the model: it passed its test, or the user forced it."""
    return card.tuned is not None and card.tuned.status in IN_USE


def _rows(plan: FinetunePlan) -> Iterator[dict[str, Any]]:
    uses = [(past, "training") for past in plan.split.train]
    uses += [(past, "test: held out to check the new model") for past in plan.split.held_out]
    uses += [(past, f"left out: {why}") for past, why in plan.left_out]
    for past, use in uses:
        yield {
            "study": past.study,
            "trials": len(past.trials),
            "with_values": len(past.ranked_trials),
            "scored": len(past.ranked_trials),
            "use": use,
        }
