"""Generates pictures, and trains a convolutional network on them.

A class is a few gratings, each with a position, size, direction and color. Each picture moves,
turns and dims them, mixes in those of another class, and adds noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from scripts.benchmarks.problems.dims import Array

from .learners import Split
from .optimizers import make_optimizer

SIDE, COLORS = 12, 3


def make(kind: str, rng: np.random.Generator) -> tuple[Split, str]:
    """Return pictures (rows, COLORS, SIDE, SIDE) of a few classes, and their description."""
    del kind
    classes, strokes = int(rng.integers(4, 11)), int(rng.integers(1, 4))
    rows = round(float(np.exp(rng.uniform(np.log(500), np.log(1500)))))
    drawn = rng.uniform(-1.0, 1.0, (classes, strokes, 7))
    blur, noise = rng.uniform(0.0, 0.5), rng.uniform(0.3, 1.5)
    move, turn = rng.uniform(0.0, 0.4), rng.uniform(0.0, 0.5)
    y = rng.integers(classes, size=rows)
    x = _pictures(drawn[y], move, turn, rng)
    x += blur * _pictures(drawn[rng.integers(classes, size=rows)], move, turn, rng)
    x = x / x.std() + noise * rng.normal(size=x.shape)
    wrong = rng.uniform(size=rows) < float(rng.choice([0.0, 0.02, 0.1]))
    y = np.where(wrong, rng.integers(classes, size=rows), y)
    x = ((x - x.mean()) / x.std()).astype(np.float32)
    cut = rows - max(300, rows // 4) if rows > 700 else int(0.6 * rows)
    text = f"{cut} pictures of {SIDE} x {SIDE} pixels, {classes} classes"
    return Split(x[:cut], y[:cut], x[cut:], y[cut:], classes), text


def _pictures(drawn: Array, move: float, turn: float, rng: np.random.Generator) -> Array:
    """Return pictures (rows, COLORS, SIDE, SIDE) of strokes (rows, strokes, 7)."""
    rows, strokes, _ = drawn.shape
    line = np.linspace(-1.0, 1.0, SIDE)
    across, down = np.meshgrid(line, line)
    out = np.zeros((rows, COLORS, SIDE, SIDE))
    for stroke in range(strokes):
        left, top, angle, pitch, *color = drawn[:, stroke].T
        left, top = (0.6 * at + move * rng.normal(size=rows) for at in (left, top))
        angle = math.pi * angle + turn * rng.normal(size=rows)
        u, v = across - left[:, None, None], down - top[:, None, None]
        wave = np.cos(angle)[:, None, None] * u + np.sin(angle)[:, None, None] * v
        grating = np.cos((6.0 + 3.0 * pitch)[:, None, None] * wave)
        spot = np.exp(-(u**2 + v**2) / 0.3) * rng.uniform(0.5, 1.5, (rows, 1, 1))
        out += np.array(color).T[:, :, None, None] * (grating * spot)[:, None]
    return out


def fit(config: Mapping[str, Any], data: Split, seed: int) -> Array:
    """Train a small convolutional network with a cosine schedule; return class probabilities."""
    import torch

    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    inputs = COLORS
    for width in (16, 32):
        layers += [torch.nn.Conv2d(inputs, width, 3, padding=1), torch.nn.BatchNorm2d(width)]
        layers += [torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        inputs = width
    layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    layers += [torch.nn.Dropout(config["dropout"]), torch.nn.Linear(inputs, data.classes)]
    model = torch.nn.Sequential(*layers)
    x, y = torch.as_tensor(data.x), torch.as_tensor(data.y)
    steps = make_optimizer(config, model)
    total = config["epochs"] * math.ceil(len(x) / config["batch_size"])
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(steps, total)
    for _ in range(config["epochs"]):
        for batch in torch.randperm(len(x)).split(config["batch_size"]):
            if len(batch) == 1:
                continue  # batch normalization needs more than one picture
            steps.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            steps.step()
            falling.step()
    model.eval()
    with torch.no_grad():
        return np.asarray(model(torch.as_tensor(data.x_valid)).softmax(-1))
