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
from localhpo.experience import Past, usable
from localhpo.finetune import dataset, memory, shelving, train
from localhpo.finetune.dataset import Example, Split, task_key
from localhpo.finetune.gate import Pair, Replay, judge
from localhpo.finetune.network import Trainee
from localhpo.finetune.rows import Encoded, encode
from localhpo.finetune.shelving import Base
from localhpo.llm import cards, versions
from localhpo.llm.card import Card
from localhpo.llm.transformers.rendering import Renderer

_CANDIDATE = "candidate"
_UNFINISHED = ".tuning"
"""Folder on the shelf of trainings that have not ended, one for each base."""


@dataclass(frozen=True)
class Plan:
    """What a round would do; `localhpo finetune --dry-run` shows it."""

    base: Base
    split: Split
    left_out: tuple[tuple[Past, str], ...]
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


def plan(pasts: Sequence[Past], model: str, *, seed: int) -> Plan:
    """Return what a round would take.

    Raises:
        InputError: there is no such base.
        CardError: it is not what its card says.
    """
    taken, left = usable(pasts)
    base = shelving.find_base(model)
    try:
        return Plan(base, dataset.split(taken, seed), tuple(left))
    except InputError as error:
        return Plan(base, Split(tuple(taken), ()), tuple(left), str(error))


def tune(
    what: Plan,
    settings: train.Settings,
    replay: Replay,
    *,
    force: bool = False,
    device: str | None = None,
    watch: train.Watch = lambda _: None,
    pause: train.Pause = lambda: None,
) -> Card:
    """Train, judge, and put the result on the shelf; return its card.

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
    work = cards.shelf() / _UNFINISHED / base.card.name
    draft = work / _CANDIDATE / shelving.new_name(base)
    shutil.rmtree(draft.parent, ignore_errors=True)
    # Apart, so that the model is gone from its device before the gate opens it and its base.
    trained = _train(what, settings, work, draft, device, watch, pause)
    card = shelving.card_of(draft, base, settings.method, what.split, trained.made)
    versions.write(card, draft)
    verdict = judge(_pairs(what.split.held_out, trained, replay, base.folder, draft), force=force)
    card = shelving.shelve(draft, card, verdict)
    shutil.rmtree(work, ignore_errors=True)
    return card


@dataclass(frozen=True)
class _Trained:
    """What training has left beside the files."""

    made: Mapping[str, Any]
    """How, for the card."""
    base_losses: Mapping[str, Sequence[float]]
    """Of good configurations of each held-out study, before."""
    tuned_losses: Mapping[str, Sequence[float]]
    """The same, afterwards."""


def _train(
    what: Plan, settings: train.Settings, work: Path, draft: Path, device: str | None,
    watch: train.Watch, pause: train.Pause,
) -> _Trained:  # fmt: skip
    """Train and write the result to `draft`; the checkpoint lies in `work`."""
    base = what.base
    _check_memory(base, settings, settings.batch_tokens, device)
    trainee = Trainee(
        base.folder, settings.method, rank=settings.rank, seed=settings.seed, device=device
    )
    learned = _encoded(what.split.train, base, trainee, settings)
    tested = _encoded(what.split.held_out, base, trainee, settings)
    _check_memory(base, settings, max(map(_longest, learned), default=0), device)
    before = train.mean_losses(trainee, tested, settings)
    key = train.identity(learned, settings, base.card.digest)
    progress = train.run(trainee, learned, settings, work, key, watch=watch, pause=pause)
    after = train.mean_losses(trainee, tested, settings)
    trainee.write(draft, base.name)
    made = {
        **{k: v for k, v in dataclasses.asdict(settings).items() if v is not None},
        "steps": progress.step, "of_steps": progress.steps, "seconds": round(progress.seconds, 1),
        "examples": len(learned), "answers": sum(len(e.answers) for e in learned),
    }  # fmt: skip
    return _Trained(made, _by_study(tested, before), _by_study(tested, after))


def _encoded(
    pasts: Sequence[Past], base: Base, trainee: Trainee, settings: train.Settings
) -> list[Encoded]:
    """Return the examples of some studies in the model's tokens."""
    render = Renderer(trainee.tokenizer, base.model).tokens
    found: list[Example] = dataset.examples(
        pasts, base.model, lambda messages: len(render(messages)), seed=settings.seed
    )
    return [encode(example, render, trainee.tokenizer) for example in found]


def _longest(example: Encoded) -> int:
    return len(example.prompt) + max(map(len, example.answers))


def _check_memory(base: Base, settings: train.Settings, tokens: int, device: str | None) -> None:
    from localhpo.llm.transformers import loading

    device = device or loading.default_device()
    needed = memory.needed_bytes(
        base.folder, settings.method, rank=settings.rank, tokens=tokens,
        on_cpu=not device.startswith("cuda"),
    )  # fmt: skip
    memory.check(needed, memory.free_bytes(device), device)


def _by_study(examples: Sequence[Encoded], losses: Sequence[float]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for example, loss in zip(examples, losses, strict=True):
        found.setdefault(example.study, []).append(loss)
    return found


def _pairs(
    held_out: Sequence[Past], trained: _Trained, replay: Replay, base: Path, candidate: Path
) -> list[Pair]:
    """Return base and candidate on each held-out task, means over its studies."""
    # One model after the other: a device may not hold both.
    before = {past.study: replay(past, base) for past in held_out}
    after = {past.study: replay(past, candidate) for past in held_out}
    tasks: dict[str, list[str]] = {}
    for past in held_out:
        tasks.setdefault(task_key(past), []).append(past.study)
    return [
        Pair(
            base_loss=fmean(loss for one in studies for loss in trained.base_losses[one]),
            tuned_loss=fmean(loss for one in studies for loss in trained.tuned_losses[one]),
            base_regret=fmean(before[one] for one in studies),
            tuned_regret=fmean(after[one] for one in studies),
        )
        for studies in tasks.values()
    ]
