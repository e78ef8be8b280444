"""Adds a trained model to the model registry, with a card that says how it was made."""

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
from localhpo.llm.models import description, registration, versions
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models.card import Card, Method, TuningRecord, templates_sha256
from localhpo.llm.protocol import Model


@dataclass(frozen=True)
class BaseModel:
    """A model to fine-tune."""

    name: str
    """Name in the model registry; the path of its folder if it is not registered."""
    folder: Path
    card: Card
    """Its card, or the one that `models add` would write."""
    model: Model


def find_base_model(name: str) -> BaseModel:
    """Return a base model by name or folder, verified.

    Raises:
        InputError: there is no such model, or it is fine-tuned itself.
        CardError: its files differ from its card, or it cannot be used.
    """
    folder = model_registry.find_model(name)
    card = model_registry.read_verified_card(folder)
    if card is not None and card.tuned is not None:
        raise InputError(
            f"model {card.name} is already fine-tuned",
            hint=f"fine-tune its base on all studies instead: --model {card.tuned.base}",
        )
    if card is None:
        card = registration.build_card(folder, folder.resolve().name)
    known = {place.name for place in model_registry.card_folders()}
    return BaseModel(
        name=card.name if card.name in known else str(folder.resolve()),
        folder=folder,
        card=card,
        model=description.describe_model(folder, card, card.context_length, deterministic=True),
    )


def next_version_name(base: BaseModel) -> str:
    """Return the first free name in the model registry, such as `sprout-tuned-3`."""
    known = {place.name for place in model_registry.card_folders()}
    number = 1
    while (name := f"{base.card.name}-tuned-{number}") in known:
        number += 1
    return name


def make_card(
    folder: Path, base: BaseModel, method: Method, split: StudySplit, made: Mapping[str, Any]
) -> Card:
    """Return the card of a trained model that is not evaluated yet.

    Args:
        folder: folder of its files.
        base: its base.
        method: whether an adapter or all weights were trained.
        split: the studies for training and evaluation.
        made: settings, seconds and steps of the training.
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
        # A model without this list is always asked.
        known_parameters=tuple(sorted({*base.card.known_parameters, *names}))
        if base.card.known_parameters
        else (),
        tuned=TuningRecord(
            base=base.name,
            base_digest=base.card.digest,
            prompt_sha256=templates_sha256(base.card.prompt),
            method=method,
            status="undecided",
            reason="not evaluated yet",
            studies=tuple(past_study.study for past_study in studies),
            held_out=tuple(past_study.study for past_study in split.held_out),
            trials=sum(len(past_study.ranked_trials) for past_study in studies),
            made_at=time.time(),
        ),
    )


def register_version(candidate: Path, card: Card, result: EvaluationResult) -> Card:
    """Write the evaluation into the card, and move the folder to the model registry.

    Raises:
        CardError: the model registry cannot be written.
    """
    if card.tuned is None:
        raise ValueError(f"{card.name} was not fine-tuned")
    tuned = dataclasses.replace(card.tuned, status=result.status, reason=result.reason)
    card = dataclasses.replace(card, tuned=tuned, evaluation=dict(result.numbers))
    versions.write_card(card, candidate)
    try:
        candidate.rename(model_registry.registry_folder() / card.name)
    except OSError as exc:
        raise CardError(f"the model registry cannot be written: {exc}") from exc
    return card
