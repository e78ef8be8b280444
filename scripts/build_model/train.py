"""Trains the model: a small Llama from scratch, in plain PyTorch, on a CPU thread or a GPU.

The budget is seconds of training, which the checkpoint counts: a run that was stopped continues,
and the learning rate falls with the used share of the budget. New shards are read as they appear,
so training can start while `generate` is still running.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import corpus, packing, tokenizer


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a model, except the data."""

    hidden: int = 128
    layers: int = 5
    heads: int = 2
    """Few wide heads: one of 64 is much faster on a CPU than two of 32."""
    context: int = 4096
    batch_tokens: int = 4096
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warmup: float = 0.02
    """Share of the budget."""
    budget_s: float = 2900.0
    seed: int = 1


@dataclass
class TrainProgress:
    """Progress of a training."""

    steps: int = 0
    tokens: int = 0
    questions: int = 0
    seconds: float = 0.0
    devices: list[str] = field(default_factory=list)
    """Devices that it was trained on, in order."""


UNKNOWN_DEVICE = "not recorded"
"""Device of trainings that started before devices were recorded."""


def build_model(settings: TrainSettings, folder: Path) -> Any:
    """Return a new model for the tokenizer in `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(settings.seed)
    vocabulary = tokenizer.load(folder)
    config = LlamaConfig(
        vocab_size=vocabulary.get_vocab_size(), hidden_size=settings.hidden,
        intermediate_size=32 * round(settings.hidden * 8 / 3 / 32),
        num_hidden_layers=settings.layers, num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads, max_position_embeddings=settings.context,
        tie_word_embeddings=True, attn_implementation="sdpa",
        pad_token_id=vocabulary.token_to_id("<pad>"), bos_token_id=vocabulary.token_to_id("<bos>"),
        eos_token_id=vocabulary.token_to_id("<eos>"),
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for token, number in vocabulary.get_vocab().items():
            features = number_features(token, settings.hidden)
            if features is not None:
                row = model.get_input_embeddings().weight[number]
                row.copy_(0.3 * row + torch.as_tensor(features, dtype=row.dtype))
    return model


def number_features(token: str, size: int) -> Any:
    """Return Fourier features of the value of a number token; None for a word."""
    match = re.fullmatch(r"(\.?)(\d{1,2})|e(-?\d+)", token)
    if match is None:
        return None
    point, digits, exponent = match.groups()
    if exponent is not None:
        value = (int(exponent) + 13) / 24
    elif point:
        value = int(digits) / 10 ** len(digits)
    else:
        value = int(digits) / 100
    # Each kind of token has its own phase, so that 0.5, 50 and e-1 differ.
    kind = 0.0 if exponent is not None else 2.0 if point else 4.0
    frequency = np.exp(np.linspace(np.log(0.5), np.log(60.0), size // 2))
    angle = frequency * value + kind * np.arange(1, size // 2 + 1)
    return 0.02 * math.sqrt(2.0) * np.concatenate([np.sin(angle), np.cos(angle)])


def iterate_batches(
    folder: Path, settings: TrainSettings, skip: int, seed: int
) -> Iterator[packing.Batch]:
    """Yield batches without end, shard by shard, after skipping `skip` questions.

    `VALIDATION` is left out where there is another shard.
    """
    vocabulary = tokenizer.load(folder / "model")
    pad = vocabulary.token_to_id("<pad>")
    rng = np.random.default_rng(seed)
    used: dict[str, int] = {}
    while True:
        shards = [p for p in sorted((folder / "questions").glob("shard-*.jsonl"))]
        shards = [p for p in shards if p.name != VALIDATION] or shards
        # The least used shard is next, so new ones come first.
        shard = min(shards, key=lambda p: (used.get(p.name, 0), p.name))
        used[shard.name] = used.get(shard.name, 0) + 1
        questions = corpus.load(shard)
        if skip >= len(questions):
            skip -= len(questions)
            continue
        skip = 0
        items = packing.tokenize_questions(questions, vocabulary)
        yield from _of_shard(items, settings, pad, rng)


VALIDATION = "shard-000.jsonl"
"""Shard for validation, not trained on unless it is the only one."""


def _of_shard(
    items: list[packing.Tokens], settings: TrainSettings, pad: int, rng: np.random.Generator
) -> Iterator[packing.Batch]:
    order = [items[i] for i in rng.permutation(len(items))]
    made = []
    shortest = 0
    for length in packing.ROW_LENGTHS:
        fitting = [item for item in order if shortest < len(item) <= length]
        shortest = length
        packed = packing.pack_rows(fitting, length)
        count = max(1, settings.batch_tokens // length)
        made += [(packed[i : i + count], length) for i in range(0, len(packed), count)]
    for i in rng.permutation(len(made)):
        yield packing.make_batch(*made[i], pad)


def compute_losses(model: Any, batch: packing.Batch, device: str) -> Any:
    """Return the losses of all tokens and their weights, each of shape (B * T,)."""
    import torch

    def tensor(array: Any) -> Any:
        return torch.as_tensor(array).to(device)

    seen = tensor(packing.attention_mask(batch))
    mask = torch.zeros(seen.shape, device=device).masked_fill_(~seen, -1e9)
    logits = model(
        input_ids=tensor(batch.ids), attention_mask=mask, position_ids=tensor(batch.positions)
    ).logits
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), tensor(batch.targets).flatten(), reduction="none"
    )
    return losses, tensor(batch.weights).flatten()


def train(folder: Path, settings: TrainSettings, *, max_steps: int | None = None) -> TrainProgress:
    """Train until the budget is used up; write checkpoints to `folder`."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(settings, folder / "model").to(device)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay},
         {"params": rest, "weight_decay": 0.0}],
        lr=settings.learning_rate, betas=(0.9, 0.95),
    )  # fmt: skip
    progress = _restore(folder, model, optimizer)
    source = iterate_batches(folder, settings, progress.questions, settings.seed + progress.steps)
    if device_name(device) not in progress.devices:
        progress.devices.append(device_name(device))
    first, saved, shown = progress.steps, time.monotonic(), _Mean()
    while progress.seconds < settings.budget_s:
        if max_steps is not None and progress.steps - first >= max_steps:
            break
        start = time.monotonic()
        batch = next(source)
        rate = settings.learning_rate * rate_factor(progress.seconds / settings.budget_s, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        shown.add(*_step(model, batch, optimizer, device))
        progress.steps += 1
        progress.tokens += int((batch.question > 0).sum())
        progress.questions += int(batch.question.max(1).sum())
        progress.seconds += time.monotonic() - start
        if progress.steps % 20 == 0:
            _log(folder, progress, shown.take(), rate)
        if time.monotonic() - saved > 120:
            _save(folder, model, optimizer, progress)
            saved = time.monotonic()
    _save(folder, model, optimizer, progress)
    return progress


def device_name(device: str) -> str:
    """Return the name of a torch device, for the card."""
    import torch

    if device != "cpu":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def _step(model: Any, batch: packing.Batch, optimizer: Any, device: str) -> tuple[float, float]:
    """Make one step; return the sum of the losses on values, and their number."""
    import torch

    with torch.autocast(device, dtype=torch.bfloat16, enabled=_rounds_fast(device)):
        losses, weights = compute_losses(model, batch, device)
    optimizer.zero_grad()
    ((losses * weights).sum() / weights.sum()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    values = weights == packing.WEIGHT_VALUE
    return float(losses.detach()[values].sum()), float(values.sum())


def _rounds_fast(device: str) -> bool:
    """Return whether bfloat16 is faster than float32.

    It is a third faster with AVX-512, but fifty times slower with AVX2 alone.
    """
    import torch

    return device != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"


def rate_factor(share: float, settings: TrainSettings) -> float:
    """Return the learning rate's factor after a share of the budget: warm-up, then a cosine."""
    if share < settings.warmup:
        return 0.05 + 0.95 * share / settings.warmup
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


class _Mean:
    """A running mean, which `take` returns and resets."""

    def __init__(self) -> None:
        self._sum = self._count = 0.0

    def add(self, total: float, count: float) -> None:
        self._sum += total
        self._count += count

    def take(self) -> float:
        mean = self._sum / max(1.0, self._count)
        self._sum = self._count = 0.0
        return mean


def _log(folder: Path, progress: TrainProgress, loss: float, rate: float) -> None:
    line = {**asdict(progress), "value_loss": round(loss, 4), "rate": round(rate, 6)}
    with (folder / "train.jsonl").open("a") as out:
        out.write(json.dumps(line) + "\n")
    print(f"step {progress.steps} {progress.seconds:.0f} s {progress.tokens / 1e6:.2f}M tokens "
          f"value loss {loss:.3f}", flush=True)  # fmt: skip


def _save(folder: Path, model: Any, optimizer: Any, progress: TrainProgress) -> None:
    """Write the checkpoint atomically: a kill leaves the old one or the new one."""
    import torch

    state = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }  # fmt: skip
    temporary = folder / "checkpoint.part"
    torch.save(state, temporary)
    temporary.replace(folder / "checkpoint.pt")


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Return the last checkpoint: model, optimizer, progress."""
    import torch

    state: dict[str, Any] = torch.load(
        folder / "checkpoint.pt", weights_only=True, map_location="cpu"
    )
    return state


def _restore(folder: Path, model: Any, optimizer: Any) -> TrainProgress:
    if not (folder / "checkpoint.pt").exists():
        return TrainProgress()
    state = load_checkpoint(folder)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return TrainProgress(**{"devices": [UNKNOWN_DEVICE], **state["progress"]})
