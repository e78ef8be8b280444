"""One round: past studies -> examples -> training -> gate -> shelf."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from localhpo.errors import InputError
from localhpo.finetune import dataset, registration, train, training_memory
from localhpo.finetune.dataset import StudySplit, TrainingExample, task_key
from localhpo.finetune.evaluation import ReplayStudy, TaskComparison, evaluate_candidate
from localhpo.finetune.registration import BaseModel
from localhpo.finetune.rows import EncodedExample, encode
from localhpo.finetune.trainable_model import TrainableModel
from localhpo.llm import model_registry, versions
from localhpo.llm.card import Card
from localhpo.llm.transformers.rendering import PromptRenderer
from localhpo.transfer import PastStudy, split_usable

_CANDIDATE = "candidate"
_UNFINISHED = ".tuning"
"""Folder on the shelf of trainings that have not ended, one for each base."""


@dataclass(frozen=True)
class FinetunePlan:
    """What a round would do; `localhpo finetune --dry-run` shows it."""

    base: BaseModel
    split: StudySplit
    left_out: tuple[tuple[PastStudy, str], ...]
    """Studies that do not count, and why."""
    missing: str = ""
    """Why nothing can be trained; empty where it can."""

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            InputError: there is too little to learn from.
        """
        if self.missing:
            raise InputError(self.missing, hint=dataset.MORE_STUDIES)


def plan_finetuning(past_studies: Sequence[PastStudy], model: str, *, seed: int) -> FinetunePlan:
    """Return what a round would take.

    Raises:
        InputError: there is no such base.
        CardError: it is not what its card says.
    """
    taken, left = split_usable(past_studies)
    base = registration.find_base_model(model)
    try:
        return FinetunePlan(base, dataset.split_studies(taken, seed), tuple(left))
    except InputError as error:
        return FinetunePlan(base, StudySplit(tuple(taken), ()), tuple(left), str(error))


def run_finetuning(
    what: FinetunePlan,
    settings: train.TrainingSettings,
    replay: ReplayStudy,
    *,
    force: bool = False,
    device: str | None = None,
    watch: train.OnProgress = lambda _: None,
    pause: train.OnPause = lambda: None,
) -> Card:
    """Train, evaluate_candidate, and put the result on the shelf; return its card.

    One that was killed goes on where it was when it is called again with the same studies and
    settings.

    Args:
        what: what is trained on, and what tests.
        settings: how it is trained.
        replay: for the gate.
        force: use the result whatever the gate says.
        device: as torch names it; a GPU where there is one by default.
        watch: is told after each step.
        pause: is called between steps.

    Raises:
        InputError: there is too little to learn from, or the training does not fit the device.
        MissingExtraError: a package is not installed.
        ModelError: the base cannot be loaded, or the shelf cannot be written.
    """
    what.check()
    base = what.base
    work = model_registry.registry_folder() / _UNFINISHED / base.card.name
    draft = work / _CANDIDATE / registration.next_version_name(base)
    shutil.rmtree(draft.parent, ignore_errors=True)
    # Apart, so that the model is gone from its device before the gate opens it and its base.
    trained = _train(what, settings, work, draft, device, watch, pause)
    card = registration.make_card(draft, base, settings.method, what.split, trained.made)
    versions.write_card(card, draft)
    verdict = evaluate_candidate(
        _pairs(what.split.held_out, trained, replay, base.folder, draft), force=force
    )
    card = registration.register_version(draft, card, verdict)
    shutil.rmtree(work, ignore_errors=True)
    return card


@dataclass(frozen=True)
class _TrainingResult:
    """What training has left beside the files."""

    made: Mapping[str, Any]
    """How, for the card."""
    base_losses: Mapping[str, Sequence[float]]
    """Of good configurations of each held-out study, before."""
    tuned_losses: Mapping[str, Sequence[float]]
    """The same, afterwards."""


def _train(
    what: FinetunePlan, settings: train.TrainingSettings, work: Path, draft: Path, device: str | None,
    watch: train.OnProgress, pause: train.OnPause,
) -> _TrainingResult:  # fmt: skip
    """Train and write the result to `draft`; the checkpoint lies in `work`."""
    base = what.base
    _check_memory(base, settings, settings.batch_tokens, device)
    trainee = TrainableModel(
        base.folder, settings.method, rank=settings.rank, seed=settings.seed, device=device
    )
    learned = _encoded(what.split.train, base, trainee, settings)
    tested = _encoded(what.split.held_out, base, trainee, settings)
    _check_memory(base, settings, max(map(_longest, learned), default=0), device)
    before = train.compute_losses(trainee, tested, settings)
    key = train.compute_training_digest(learned, settings, base.card.digest)
    progress = train.train_model(trainee, learned, settings, work, key, watch=watch, pause=pause)
    after = train.compute_losses(trainee, tested, settings)
    trainee.write(draft, base.name)
    made = {
        **{k: v for k, v in dataclasses.asdict(settings).items() if v is not None},
        "steps": progress.step, "of_steps": progress.steps, "seconds": round(progress.seconds, 1),
        "examples": len(learned), "answers": sum(len(e.answers) for e in learned),
    }  # fmt: skip
    return _TrainingResult(made, _by_study(tested, before), _by_study(tested, after))


def _encoded(
    past_studies: Sequence[PastStudy],
    base: BaseModel,
    trainee: TrainableModel,
    settings: train.TrainingSettings,
) -> list[EncodedExample]:
    """Return the examples of some studies in the model's tokens."""
    render = PromptRenderer(trainee.tokenizer, base.model).tokens
    found: list[TrainingExample] = dataset.make_examples(
        past_studies, base.model, lambda messages: len(render(messages)), seed=settings.seed
    )
    return [encode(example, render, trainee.tokenizer) for example in found]


def _longest(example: EncodedExample) -> int:
    return len(example.prompt) + max(map(len, example.answers))


def _check_memory(
    base: BaseModel, settings: train.TrainingSettings, tokens: int, device: str | None
) -> None:
    from localhpo.llm.transformers import loading

    device = device or loading.default_device()
    needed = training_memory.estimate_training_bytes(
        base.folder, settings.method, rank=settings.rank, tokens=tokens,
        on_cpu=not device.startswith("cuda"),
    )  # fmt: skip
    training_memory.check_memory(needed, training_memory.find_free_bytes(device), device)


def _by_study(
    examples: Sequence[EncodedExample], losses: Sequence[float]
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for example, loss in zip(examples, losses, strict=True):
        found.setdefault(example.study, []).append(loss)
    return found


def _pairs(
    held_out: Sequence[PastStudy],
    trained: _TrainingResult,
    replay: ReplayStudy,
    base: Path,
    candidate: Path,
) -> list[TaskComparison]:
    """Return base and candidate on each held-out task, means over its studies."""
    # One model after the other: a device may not hold both.
    before = {past_study.study: replay(past_study, base) for past_study in held_out}
    after = {past_study.study: replay(past_study, candidate) for past_study in held_out}
    tasks: dict[str, list[str]] = {}
    for past_study in held_out:
        tasks.setdefault(task_key(past_study), []).append(past_study.study)
    return [
        TaskComparison(
            base_loss=fmean(loss for one in studies for loss in trained.base_losses[one]),
            tuned_loss=fmean(loss for one in studies for loss in trained.tuned_losses[one]),
            base_regret=fmean(before[one] for one in studies),
            tuned_regret=fmean(after[one] for one in studies),
        )
        for studies in tasks.values()
    ]
