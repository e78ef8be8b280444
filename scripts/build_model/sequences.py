"""Generates sequences, and trains a transformer on them from random weights.

A class is a distribution over signs, like words of a topic, and the order of a pair of signs, which
only attention can tell, not counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scripts.benchmarks.problems.dims import Array

from .learners import Split
from .optimizers import make_optimizer

HEADS = 2


def make(kind: str, rng: np.random.Generator) -> tuple[Split, str]:
    """Return sequences of signs (rows, length) of a few classes, and their description."""
    del kind
    classes, signs = int(rng.integers(2, 7)), int(rng.integers(30, 120))
    length = int(rng.integers(12, 25))
    rows = round(float(np.exp(rng.uniform(np.log(600), np.log(1600)))))
    y = rng.integers(classes, size=rows)
    topics = rng.dirichlet([0.15] * signs, classes)
    share = rng.uniform(0.05, 0.4)
    mixed = share * topics[y] + (1.0 - share) * rng.dirichlet([0.5] * signs)
    x = (rng.uniform(size=(rows, length, 1)) > mixed.cumsum(axis=1)[:, None]).sum(axis=2)
    x = np.minimum(x, signs - 1)
    first, second = rng.permutation(signs)[:2]
    told = rng.uniform(size=rows) < rng.uniform(0.3, 0.9)
    for row in np.flatnonzero(told):  # the same two signs in all classes, in another order
        early, late = np.sort(rng.permutation(length)[:2])
        pair = (first, second) if y[row] % 2 else (second, first)
        x[row, [early, late]] = pair
    wrong = rng.uniform(size=rows) < float(rng.choice([0.0, 0.05, 0.1]))
    y = np.where(wrong, rng.integers(classes, size=rows), y)
    cut = int(0.65 * rows)
    text = f"{cut} sequences of {length} of {signs} signs, {classes} classes"
    return Split(x[:cut], y[:cut], x[cut:], y[cut:], classes), text


def fit(config: Mapping[str, Any], data: Split, seed: int) -> Array:
    """Train a transformer encoder; return class probabilities."""
    import torch

    torch.manual_seed(seed)
    width, length = HEADS * round(config["d_model"] / HEADS), data.x.shape[1]

    class Encoder(torch.nn.Module):
        """Encoder with norms first (https://arxiv.org/abs/2002.04745) and mean pooling."""

        def __init__(self) -> None:
            super().__init__()
            signs = int(max(data.x.max(), data.x_valid.max())) + 1
            self.signs = torch.nn.Embedding(signs, width)
            self.places = torch.nn.Parameter(0.02 * torch.randn(length, width))
            layer = torch.nn.TransformerEncoderLayer(
                width, HEADS, 2 * width, config["dropout"], activation=config["activation"],
                batch_first=True, norm_first=True,
            )  # fmt: skip
            self.layers = torch.nn.TransformerEncoder(
                layer, config["num_layers"], torch.nn.LayerNorm(width), enable_nested_tensor=False
            )
            self.last = torch.nn.Linear(width, data.classes)

        def forward(self, x: Any) -> Any:
            return self.last(self.layers(self.signs(x) + self.places).mean(1))

    x, y = torch.as_tensor(data.x), torch.as_tensor(data.y)
    model = Encoder()
    steps = make_optimizer({**config, "optimizer": "adamw"}, model)
    batches = -(-len(x) // config["batch_size"])
    total = config["epochs"] * batches
    warm = max(1.0, config["warmup_ratio"] * total)
    falling = torch.optim.lr_scheduler.LambdaLR(
        steps, lambda step: min((step + 1) / warm, (total - step) / max(1.0, total - warm))
    )
    for _ in range(config["epochs"]):
        for batch in torch.randperm(len(x)).split(config["batch_size"]):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            steps.step()
            falling.step()
    model.eval()
    with torch.no_grad():
        return np.asarray(model(torch.as_tensor(data.x_valid)).softmax(-1))
