"""Fine-tuned versions of a model: which one is in use, and how to go back to an older one.

The cards alone decide: in use is the newest version of a base that its evaluation, or the user,
accepted. Rolling back withdraws that version; its files stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from localhpo.errors import CardError, InputError
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models.card import CARD, IN_USE, Card, render_card


def check_in_use(folder: Path) -> None:
    """Refuse a fine-tuned model that was not accepted, or was withdrawn.

    Raises:
        CardError: the model is refused, or its card cannot be read.
    """
    if not (folder / CARD).is_file():
        return
    card = model_registry.read_card(folder)
    if card.tuned is not None and card.tuned.status not in IN_USE:
        raise CardError(
            f"model {card.name} is not in use ({card.tuned.status}): {card.tuned.reason}",
            hint=f"use its base, {card.tuned.base}, or train again: localhpo finetune",
        )


def find_versions(base: str) -> list[Card]:
    """Return the cards of all versions of a base, the newest first.

    Args:
        base: Name of the base, as in the cards.
    """
    found = [card for card in _tuned() if card.tuned and card.tuned.base == base]
    return sorted(found, key=lambda card: -(card.tuned.made_at if card.tuned else 0.0))


def find_current_version(base: str) -> Card | None:
    """Return the version of a base that is in use; None where the base itself is."""
    return next((c for c in find_versions(base) if c.tuned and c.tuned.status in IN_USE), None)


def current_version_name(base: str) -> str:
    """Return the name of the version of a base that is in use.

    Raises:
        InputError: there is none.
    """
    if (card := find_current_version(base)) is None:
        raise InputError(
            f"no fine-tuned version of {base} is in use",
            hint='train one: localhpo finetune; or set transfer = "off"',
        )
    return card.name


def roll_back(base: str) -> Card | None:
    """Withdraw the version in use, and return it; None where the base itself is in use.

    Raises:
        CardError: the card cannot be written.
    """
    card = find_current_version(base)
    if card is None or card.tuned is None:
        return None
    withdrawn = dataclasses.replace(
        card.tuned, status="withdrawn", reason=f"rolled back; {card.tuned.reason}"
    )
    card = dataclasses.replace(card, tuned=withdrawn)
    write_card(card, model_registry.registry_folder() / card.name)
    return card


def write_card(card: Card, folder: Path) -> None:
    """Write a card into the folder of its model, atomically.

    Raises:
        CardError: it cannot be written.
    """
    partial = folder / f".{CARD}"
    try:
        partial.write_text(render_card(card), encoding="utf-8")
        partial.replace(folder / CARD)
    except OSError as exc:
        raise CardError(f"{folder / CARD} cannot be written: {exc}") from exc


def _tuned() -> Iterator[Card]:
    for card_folder in model_registry.card_folders():
        if (
            card_folder.parent != model_registry.registry_folder()
            or not (card_folder / CARD).is_file()
        ):
            continue
        try:
            card = model_registry.read_card(card_folder)
        except CardError:  # `localhpo models` says so
            continue
        if card.tuned is not None:
            yield card
