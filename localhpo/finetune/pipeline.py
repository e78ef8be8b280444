"""Runs fine-tuning: past studies -> examples -> training -> evaluation -> model registry.

Also says when a training is due: after a number of finished studies that no version was trained on.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from localhpo.errors import InputError
from localhpo.finetune import dataset, registration, train, trainable_model
from localhpo.finetune.dataset import StudySplit, TrainingExample, task_key
from localhpo.finetune.evaluation import ReplayStudy, TaskComparison, evaluate_candidate
from localhpo.finetune.registration import BaseModel
from localhpo.finetune.rows import EncodedExample, encode_example
from localhpo.finetune.trainable_model import TrainableModel
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models import versions
from localhpo.llm.models.card import Card
from localhpo.llm.transformers.rendering import PromptRenderer
from localhpo.transfer import PastStudy, split_usable, unusable_reason

_CANDIDATE = "candidate"
_UNFINISHED = ".tuning"
"""Folder in the model registry for unfinished trainings, one for each base."""


@dataclass(frozen=True)
class FinetunePlan:
    """What fine-tuning would use; `localhpo finetune --dry-run` shows it."""

    base: BaseModel
    split: StudySplit
    left_out: tuple[tuple[PastStudy, str], ...]
    """Studies that are not used, with the reason."""
    missing: str = ""
    """Why nothing can be trained; empty if training is possible."""

    def check(self) -> None:
        """Refuse a plan with too few studies.

        Raises:
            InputError: there are too few studies.
        """
        if self.missing:
            raise InputError(self.missing, hint=dataset.MORE_STUDIES)


def plan_finetuning(past_studies: Sequence[PastStudy], model: str, *, seed: int) -> FinetunePlan:
    """Return which studies fine-tuning would use.

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
    plan: FinetunePlan,
    settings: train.TrainingSettings,
    replay: ReplayStudy,
    *,
    force: bool = False,
    device: str | None = None,
    watch: train.OnProgress = lambda _: None,
    pause: train.OnPause = lambda: None,
) -> Card:
    """Train and evaluate a model, and register it; return its card.

    After a kill, a call with the same studies and settings continues from the checkpoint.

    Args:
        plan: the studies for training and evaluation.
        settings: settings of the training.
        replay: replays a held-out study with a model, for the evaluation.
        force: use the model even if it is not better than its base.
        device: device as torch names it; by default a GPU if there is one.
        watch: called after each step.
        pause: called between steps.

    Raises:
        InputError: there are too few studies, or the training does not fit the device.
        MissingExtraError: a package is not installed.
        ModelError: the base cannot be loaded, or the model registry cannot be written.
    """
    plan.check()
    base = plan.base
    work = model_registry.registry_folder() / _UNFINISHED / base.card.name
    candidate = work / _CANDIDATE / registration.next_version_name(base)
    shutil.rmtree(candidate.parent, ignore_errors=True)
    # In a function, so that the device is free again before the evaluation loads the models.
    trained = _train(plan, settings, work, candidate, device, watch, pause)
    card = registration.make_card(candidate, base, settings.method, plan.split, trained.made)
    versions.write_card(card, candidate)
    result = evaluate_candidate(
        _pairs(plan.split.held_out, trained, replay, base.folder, candidate), force=force
    )
    card = registration.register_version(candidate, card, result)
    shutil.rmtree(work, ignore_errors=True)
    return card


@dataclass(frozen=True)
class _TrainingResult:
    """Result of a training, besides the files."""

    made: Mapping[str, Any]
    """How the model was trained, for the card."""
    base_losses: Mapping[str, Sequence[float]]
    """Held-out study -> losses of its good configurations under the base."""
    tuned_losses: Mapping[str, Sequence[float]]
    """The same under the trained model."""


def _train(
    plan: FinetunePlan,
    settings: train.TrainingSettings,
    work: Path,
    candidate: Path,
    device: str | None,
    watch: train.OnProgress,
    pause: train.OnPause,
) -> _TrainingResult:
    """Train a model and write it to `candidate`; the checkpoint is in `work`."""
    base = plan.base
    _check_memory(base, settings, settings.batch_tokens, device)
    trainee = TrainableModel(
        base.folder, settings.method, rank=settings.rank, seed=settings.seed, device=device
    )
    training = _encode_examples(plan.split.train, base, trainee, settings)
    held_out = _encode_examples(plan.split.held_out, base, trainee, settings)
    _check_memory(base, settings, max(map(_longest, training), default=0), device)
    before = train.compute_losses(trainee, held_out, settings)
    key = train.compute_training_digest(training, settings, base.card.digest)
    progress = train.train_model(trainee, training, settings, work, key, watch=watch, pause=pause)
    after = train.compute_losses(trainee, held_out, settings)
    trainee.write(candidate, base.name)
    made = {
        **{k: v for k, v in dataclasses.asdict(settings).items() if v is not None},
        "steps": progress.step, "of_steps": progress.steps, "seconds": round(progress.seconds, 1),
        "examples": len(training), "answers": sum(len(e.answers) for e in training),
    }  # fmt: skip
    return _TrainingResult(made, _by_study(held_out, before), _by_study(held_out, after))


def _encode_examples(
    past_studies: Sequence[PastStudy],
    base: BaseModel,
    trainee: TrainableModel,
    settings: train.TrainingSettings,
) -> list[EncodedExample]:
    """Return the examples of some studies as tokens of the model."""
    render = PromptRenderer(trainee.tokenizer, base.model).tokens
    found: list[TrainingExample] = dataset.make_examples(
        past_studies, base.model, lambda messages: len(render(messages)), seed=settings.seed
    )
    return [encode_example(example, render, trainee.tokenizer) for example in found]


def _longest(example: EncodedExample) -> int:
    """Return the tokens of the prompt with the longest answer."""
    return len(example.prompt) + max(map(len, example.answers))


def _check_memory(
    base: BaseModel, settings: train.TrainingSettings, tokens: int, device: str | None
) -> None:
    from localhpo.llm.transformers import loading

    device = device or loading.default_device()
    needed = trainable_model.estimate_training_bytes(
        base.folder, settings.method, rank=settings.rank, tokens=tokens,
        on_cpu=not device.startswith("cuda"),
    )  # fmt: skip
    trainable_model.check_memory(needed, trainable_model.find_free_bytes(device), device)


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
    """Return base and candidate on each held-out task, as means over its studies."""
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
