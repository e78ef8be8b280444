"""Puts a trained model on the shelf, with a card that says what it was made of."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localhpo.errors import CardError, InputError
from localhpo.finetune.dataset import StudySplit
from localhpo.finetune.evaluation import EvaluationResult
from localhpo.llm import model_registry, registration, versions
from localhpo.llm.card import Card
from localhpo.llm.folder import description
from localhpo.llm.protocol import Model
from localhpo.llm.tuning_record import Method, TuningRecord, templates_sha256


@dataclass(frozen=True)
class BaseModel:
    """A model that is to be fine-tuned."""

    name: str
    """On the shelf; its folder where it is not there."""
    folder: Path
    card: Card
    """As it is, or as `models add` would write it."""
    model: Model


def find_base_model(name: str) -> BaseModel:
    """Return the base of that name or in that folder, verified.

    Raises:
        InputError: there is none, or it is a fine-tuned model itself.
        CardError: it is not what its card says, or no model that can be used.
    """
    folder = model_registry.find_model(name)
    card = model_registry.read_verified_card(folder)
    if card is not None and card.tuned is not None:
        raise InputError(
            f"model {card.name} is fine-tuned already",
            hint=f"tune its base again, on all studies: --model {card.tuned.base}",
        )
    if card is None:
        card = registration.draft_card(folder, folder.resolve().name)
    known = {place.name for place in model_registry.card_folders()}
    return BaseModel(
        name=card.name if card.name in known else str(folder.resolve()),
        folder=folder,
        card=card,
        model=description.describe_model(folder, card, card.context_length, deterministic=True),
    )


def next_version_name(base: BaseModel) -> str:
    """Return a name that no model on the shelf has: `sprout-tuned-3`."""
    known = {place.name for place in model_registry.card_folders()}
    number = 1
    while (name := f"{base.card.name}-tuned-{number}") in known:
        number += 1
    return name


def make_card(
    folder: Path, base: BaseModel, method: Method, split: StudySplit, made: Mapping[str, Any]
) -> Card:
    """Return the card of what was trained, which no gate has seen yet.

    Args:
        folder: with its files.
        base: what it was made from.
        method: what was trained of it.
        split: what it was trained on, and what tests it.
        made: how: settings, seconds, steps.
    """
    studies = split.train
    names = {name for past_study in studies for name in past_study.task.space.names}
    return dataclasses.replace(
        base.card,
        name=folder.name,
        version="1",
        summary=f"{base.card.name}, fine-tuned on {len(studies)} past studies",
        files=model_registry.hash_files(folder),
        made=made,
        measured={},
        folder="",
        profile="",
        # One that does not tell what it knows is always asked.
        knows=tuple(sorted({*base.card.knows, *names})) if base.card.knows else (),
        tuned=TuningRecord(
            base=base.name,
            base_digest=base.card.digest,
            prompt_sha256=templates_sha256(base.card.prompt),
            method=method,
            gate="undecided",
            why="no gate has seen it",
            studies=tuple(past_study.study for past_study in studies),
            held_out=tuple(past_study.study for past_study in split.held_out),
            trials=sum(len(past_study.ranked_trials) for past_study in studies),
            made_at=time.time(),
        ),
    )


def register_version(draft: Path, card: Card, verdict: EvaluationResult) -> Card:
    """Write the verdict into the card, and move the folder to the shelf.

    Raises:
        CardError: the shelf cannot be written.
    """
    if card.tuned is None:
        raise ValueError(f"{card.name} was not fine-tuned")
    judged = dataclasses.replace(card.tuned, gate=verdict.gate, why=verdict.why)
    card = dataclasses.replace(card, tuned=judged, gate=dict(verdict.numbers))
    versions.write_card(card, draft)
    try:
        draft.rename(model_registry.registry_folder() / card.name)
    except OSError as exc:
        raise CardError(f"the shelf of models cannot be written: {exc}") from exc
    return card
