"""Trains a model on examples within a time limit; continues from a checkpoint after a kill.

A step reads several rows. Their order follows from the seed and the number of the pass over the
examples, dropout from the seed and the number of the step: so a checkpoint needs only the trained
weights, the optimizer state and the step. The learning rate warms up, then decays with the share
of the steps, or of the minutes if that is larger.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from localhpo.errors import InputError
from localhpo.finetune.rows import WEIGHT_VALUE, EncodedExample, TokenRow
from localhpo.llm.models.card import ADAPTER_RANK, Method

if TYPE_CHECKING:
    from localhpo.finetune.trainable_model import TrainableModel

CHECKPOINT = "checkpoint.pt"
_EVERY_S = 20.0
"""Seconds between checkpoints."""
_WARMUP = 0.05
"""Share of the training with a rising learning rate."""
_CLIP = 1.0
"""Largest norm of the gradient."""

RATES: dict[Method, float] = {"lora": 2e-3, "full": 5e-4}


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Settings of a training."""

    method: Method = "lora"
    rank: int = ADAPTER_RANK
    rate: float | None = None
    """Highest learning rate; None: that of `RATES`."""
    passes: int = 8
    """Passes over the examples."""
    rows: int = 2
    """Rows of a step."""
    answers: int = 12
    """Answers of a row."""
    batch_tokens: int = 3072
    """Tokens of a row, unless a single answer takes more."""
    weight_decay: float = 0.01
    minutes: float = 20.0
    """Time limit; training ends then, and the weights so far are the result."""
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Progress of a training."""

    step: int
    steps: int
    loss: float
    """Mean loss of the values in the last step."""
    seconds: float
    """Seconds of training, over all runs."""
    left_s: float
    """Seconds until the end, at most."""


OnProgress = Callable[[TrainingProgress], None]
OnPause = Callable[[], None]


def compute_training_digest(
    examples: Sequence[EncodedExample], settings: TrainingSettings, base_digest: str
) -> str:
    """Return a hash of all inputs of a training; a checkpoint with another hash is ignored."""
    chosen = dataclasses.asdict(settings)
    chosen.pop("minutes")
    text = json.dumps([[dataclasses.astuple(e) for e in examples], chosen, base_digest])
    return hashlib.sha256(text.encode()).hexdigest()


def train_model(
    trainee: TrainableModel,
    examples: Sequence[EncodedExample],
    settings: TrainingSettings,
    folder: Path,
    key: str,
    *,
    watch: OnProgress = lambda _: None,
    pause: OnPause = lambda: None,
) -> TrainingProgress:
    """Train a model; return the progress at the end.

    Args:
        trainee: the model to train.
        examples: at least one example.
        settings: settings of the training.
        folder: folder of the checkpoint; created if missing.
        key: hash of the training (`compute_training_digest`).
        watch: called after each step.
        pause: called between steps; the time that it takes does not count.

    Raises:
        InputError: there is no example.
    """
    import torch

    if not examples:
        raise InputError("there is no example to train on")
    torch.set_num_threads(settings.threads)
    optimizer = torch.optim.AdamW(
        trainee.trained().values(), lr=0.0, betas=(0.9, 0.99), weight_decay=settings.weight_decay
    )
    folder.mkdir(parents=True, exist_ok=True)
    state = _Checkpoint(trainee, optimizer, folder / CHECKPOINT, key)
    plan = _StepPlan(examples, settings, trainee.packs)
    progress = TrainingProgress(
        state.step, plan.steps, math.nan, state.seconds, settings.minutes * 60
    )
    trainee.network.train()
    for rows in plan.from_step(state.step):
        started = time.monotonic()
        share = max(state.step / plan.steps, state.seconds / (60.0 * settings.minutes))
        if share >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = (settings.rate or RATES[settings.method]) * _factor(share)
        torch.manual_seed(settings.seed + state.step)  # dropout, the same after a kill
        loss = _step(trainee, rows, optimizer)
        state.advance(time.monotonic() - started)
        progress = _progress(state, plan.steps, loss, settings)
        watch(progress)
        pause()
    trainee.network.eval()
    state.save()
    return progress


def compute_losses(
    trainee: TrainableModel, examples: Sequence[EncodedExample], settings: TrainingSettings
) -> list[float]:
    """Return the mean loss of the values in each example's answers."""
    import torch

    torch.set_num_threads(settings.threads)
    trainee.network.eval()
    means = []
    with torch.inference_mode():
        for example in examples:
            total = count = 0.0
            for row in _rows(example, settings, trainee.packs):
                kept = torch.as_tensor(row.weights == WEIGHT_VALUE, device=trainee.device)
                total += float(trainee.losses(row)[kept].sum())
                count += float(kept.sum())
            means.append(total / max(1.0, count))
    return means


class _StepPlan:
    """Assigns rows to steps."""

    def __init__(
        self, examples: Sequence[EncodedExample], settings: TrainingSettings, packs: bool
    ) -> None:
        self._examples = examples
        self._settings = settings
        self._packs = packs
        self._steps_per_pass = len(list(self._pass(0)))
        self.steps = self._steps_per_pass * settings.passes

    def from_step(self, step: int) -> Iterator[list[TokenRow]]:
        """Yield the rows of each remaining step."""
        for number in range(step // self._steps_per_pass, self._settings.passes):
            skip = step - number * self._steps_per_pass
            yield from list(self._pass(number))[max(0, skip) :]

    def _pass(self, number: int) -> Iterator[list[TokenRow]]:
        rng = np.random.default_rng([self._settings.seed, number])
        rows = [row for e in self._examples for row in _rows(e, self._settings, self._packs, rng)]
        order = rng.permutation(len(rows))
        for start in range(0, len(rows), self._settings.rows):
            yield [rows[int(i)] for i in order[start : start + self._settings.rows]]


def _rows(
    example: EncodedExample,
    settings: TrainingSettings,
    packs: bool,
    rng: np.random.Generator | None = None,
) -> Iterator[TokenRow]:
    return example.rows(settings.answers if packs else 1, settings.batch_tokens, rng)


class _Checkpoint:
    """State of a training, which is saved and restored."""

    def __init__(self, trainee: TrainableModel, optimizer: Any, path: Path, key: str) -> None:
        """Restore the checkpoint of this training, if there is one."""
        self.step = 0
        self.seconds = 0.0
        self._trainee = trainee
        self._optimizer = optimizer
        self._path = path
        self._key = key
        self._saved = time.monotonic()
        self._restore()

    def advance(self, seconds: float) -> None:
        """Count a step; save from time to time."""
        self.step += 1
        self.seconds += seconds
        if time.monotonic() - self._saved > _EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the checkpoint atomically: a kill leaves the old or the new one."""
        import torch

        state = {
            "key": self._key, "step": self.step, "seconds": self.seconds,
            "weights": {n: p.detach().cpu() for n, p in self._trainee.trained().items()},
            "optimizer": self._optimizer.state_dict(),
        }  # fmt: skip
        partial = self._path.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(self._path)
        self._saved = time.monotonic()

    def _restore(self) -> None:
        import torch

        if not self._path.exists():
            return
        state = torch.load(self._path, weights_only=True, map_location="cpu")
        if state["key"] != self._key:
            return
        with torch.no_grad():
            for name, weights in self._trainee.trained().items():
                weights.copy_(state["weights"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]


def _step(trainee: TrainableModel, rows: Sequence[TokenRow], optimizer: Any) -> float:
    """Make one optimizer step; return the mean loss of values before it."""
    import torch

    whole = float(sum(row.weights.sum() for row in rows))
    total = count = 0.0
    optimizer.zero_grad()
    for row in rows:
        losses = trainee.losses(row)
        weights = torch.as_tensor(row.weights, device=losses.device)
        ((losses * weights).sum() / whole).backward()
        values = weights == WEIGHT_VALUE
        total += float(losses.detach()[values].sum())
        count += float(values.sum())
    torch.nn.utils.clip_grad_norm_(trainee.trained().values(), _CLIP)
    optimizer.step()
    return total / max(1.0, count)


def _factor(share: float) -> float:
    """Return the factor of the learning rate at a share of the training: warm-up, then cosine."""
    if share < _WARMUP:
        return 0.05 + 0.95 * share / _WARMUP
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * share))


def _progress(
    state: _Checkpoint, steps: int, loss: float, settings: TrainingSettings
) -> TrainingProgress:
    by_steps = state.seconds / state.step * (steps - state.step)
    left = min(by_steps, max(0.0, 60.0 * settings.minutes - state.seconds))
    return TrainingProgress(state.step, steps, loss, state.seconds, left)
