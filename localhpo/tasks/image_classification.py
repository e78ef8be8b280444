"""What cifar10-resnet and butterfly-resnet share: a ResNet of timm, trained from scratch.

All images lie on the device as bytes; a batch is turned into numbers, and half of it mirrored,
there. No other augmentation: what fights overfitting is among the hyperparameters.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import timm
import torch
from torch.nn import functional as F

from localhpo import report
from localhpo.tasks.images import as_numbers, flipped, shuffled_batches

SMALL = 32
"""Images of a split with --small."""


@dataclass(frozen=True)
class Split:
    """Images (N, 3, H, W), uint8, with labels (N,), int64, on one device."""

    images: torch.Tensor
    labels: torch.Tensor


def parse_arguments(description: str, layouts: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of the script.

    Args:
        description: its first line is shown by --help.
        layouts: layouts of the data; the first is the default.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--model_name", default="resnet18")
    parser.add_argument("--global_pool", default="avg")
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--momentum", type=float, default=0.9, help="of sgd")
    parser.add_argument("--weight_decay", type=float, default=1e-4)
    parser.add_argument("--dropout_rate", type=float, default=0.1)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="folder of the data; LOCALHPO_DATA by default")
    parser.add_argument("--workers", type=int, default=1, help="threads that decode images")
    parser.add_argument("--small", action="store_true", help="few images, at most two epochs")
    parser.add_argument("--layout", choices=layouts, default=layouts[0])
    return parser.parse_args()


def train(arguments: argparse.Namespace, splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Train and report: accuracies in percent, the one of `test` after the last epoch.

    Args:
        arguments: of the script: hyperparameters, `seed`, `small`.
        splits: `train`, `val` and `test`: images (N, 3, H, W), uint8, and labels (N,).
    """
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = {
        name: Split(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device))
        for name, (images, labels) in splits.items()
    }
    model = timm.create_model(
        arguments.model_name,
        num_classes=1 + max(int(split.labels.max()) for split in data.values()),
        global_pool=arguments.global_pool,
        drop_rate=arguments.dropout_rate,
    ).to(device)
    optimizer = make_optimizer(model, arguments)
    epochs = min(arguments.epochs, 2) if arguments.small else arguments.epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(1, epochs + 1):
        metrics = train_epoch(model, optimizer, data["train"], arguments.batch_size)
        schedule.step()
        metrics |= evaluate(model, data["val"], "val")
        if epoch == epochs:
            metrics |= evaluate(model, data["test"], "test")
        if report(step=epoch, **metrics):
            break


def make_optimizer(model, arguments):
    settings = {"lr": arguments.learning_rate, "weight_decay": arguments.weight_decay}
    if arguments.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=arguments.momentum, **settings)
    return torch.optim.Adam(model.parameters(), **settings)


def train_epoch(model, optimizer, data, batch_size):
    model.train()
    loss_sum, right, seen = 0.0, 0, 0
    for batch in shuffled_batches(len(data.labels), batch_size):
        batch = batch.to(data.labels.device)
        images, _ = flipped(as_numbers(data.images[batch]))
        labels = data.labels[batch]
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(batch)
        right += (logits.argmax(1) == labels).sum()
        seen += len(batch)
    return {"train_loss": loss_sum / seen, "train_accuracy": 100 * right / seen}


@torch.no_grad()
def evaluate(model, data, name):
    model.eval()
    loss, right, count = 0.0, 0, len(data.labels)
    for images, labels in zip(data.images.split(512), data.labels.split(512), strict=True):
        logits = model(as_numbers(images))
        loss += F.cross_entropy(logits, labels, reduction="sum")
        right += (logits.argmax(1) == labels).sum()
    return {f"{name}_loss": loss / count, f"{name}_accuracy": 100 * right / count}
