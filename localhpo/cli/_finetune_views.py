"""How fine-tuned models, and what they would be trained on, are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from localhpo.analysis.records import jsonable
from localhpo.cli import _views
from localhpo.finetune.rounds import Plan
from localhpo.llm.card import Card
from localhpo.llm.tuned import IN_USE


def plan_table(plan: Plan) -> Table:
    """Return the studies, what each is taken for, and why others are left out."""
    table = _views.plain_table("study", "trials", "with a score", "use",
                               right=("trials", "with a score"))  # fmt: skip
    for row in _rows(plan):
        table.add_row(row["study"], str(row["trials"]), str(row["scored"]), row["use"])
    return table


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return the same for JSON."""
    return {
        "base": plan.base.name,
        "held_out_tasks": plan.split.held_out_tasks,
        "missing": plan.missing,
        "studies": list(_rows(plan)),
    }


def versions_table(cards: Sequence[Card]) -> Table:
    """Return the listing of fine-tuned models."""
    table = _views.plain_table("fine-tuned", "base", "method", "trained on", "gate", "why")
    for card in cards:
        if (tuned := card.tuned) is not None:
            data = f"{tuned.trials} trials of {len(tuned.studies)} studies"
            table.add_row(card.name, tuned.base, tuned.method, data, tuned.gate, tuned.why)
    return table


def version_record(card: Card) -> dict[str, Any]:
    """Return everything that is known of a fine-tuned model, for JSON."""
    known: dict[str, Any] = jsonable(dataclasses.asdict(card))
    return {"digest": card.identity, **known}


def is_in_use(card: Card) -> bool:
    """Whether the gate, or the user, let it through."""
    return card.tuned is not None and card.tuned.gate in IN_USE


def _rows(plan: Plan) -> Iterator[dict[str, Any]]:
    uses = [(past, "trains") for past in plan.split.train]
    uses += [(past, "held out for the gate") for past in plan.split.held_out]
    uses += [(past, f"left out: {why}") for past, why in plan.left_out]
    for past, use in uses:
        yield {
            "study": past.study,
            "trials": len(past.trials),
            "scored": len(past.scored),
            "use": use,
        }
