"""Fine-tuned versions of a model: which may be used, which one is, and how to go back.

What is in use is written in the cards alone: of the versions of a base, the newest that its gate
(or the user) let through. To roll back is to withdraw that one; it is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from localhpo.errors import CardError, InputError
from localhpo.llm import model_registry
from localhpo.llm.card import CARD, Card, render_card
from localhpo.llm.tuning_record import IN_USE


def check_in_use(folder: Path) -> None:
    """Refuse a fine-tuned model that did not pass its gate, or was withdrawn.

    Raises:
        CardError: so it is, or its card cannot be understood.
    """
    if not (folder / CARD).is_file():
        return
    card = model_registry.read_card(folder)
    if card.tuned is not None and card.tuned.gate not in IN_USE:
        raise CardError(
            f"model {card.name} is kept out of use ({card.tuned.gate}): {card.tuned.why}",
            hint=f"use its base, {card.tuned.base}, or train again: localhpo finetune",
        )


def find_versions(base: str) -> list[Card]:
    """Return the cards of all versions of a base, the newest first.

    Args:
        base: Its name, as their cards have it.
    """
    found = [card for card in _tuned() if card.tuned and card.tuned.base == base]
    return sorted(found, key=lambda card: -(card.tuned.made_at if card.tuned else 0.0))


def find_current_version(base: str) -> Card | None:
    """Return the version of a base that is in use; None where that is the base itself."""
    return next((c for c in find_versions(base) if c.tuned and c.tuned.gate in IN_USE), None)


def current_version_name(base: str) -> str:
    """Return the name of the version in use.

    Raises:
        InputError: there is none.
    """
    if (card := find_current_version(base)) is None:
        raise InputError(
            f"no fine-tuned version of {base} is in use",
            hint='train one: localhpo finetune; or set experience = "off"',
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
    gone = dataclasses.replace(card.tuned, gate="withdrawn", why=f"rolled back; {card.tuned.why}")
    card = dataclasses.replace(card, tuned=gone)
    write_card(card, model_registry.registry_folder() / card.name)
    return card


def write_card(card: Card, folder: Path) -> None:
    """Write a card into the folder of its model, whole or not at all.

    Raises:
        CardError: it cannot be written.
    """
    draft = folder / f".{CARD}"
    try:
        draft.write_text(render_card(card), encoding="utf-8")
        draft.replace(folder / CARD)
    except OSError as exc:
        raise CardError(f"{folder / CARD} cannot be written: {exc}") from exc


def _tuned() -> Iterator[Card]:
    for place in model_registry.card_folders():
        if place.parent != model_registry.registry_folder() or not (place / CARD).is_file():
            continue
        try:
            card = model_registry.read_card(place)
        except CardError:  # `localhpo models` says so
            continue
        if card.tuned is not None:
            yield card
