"""Optimizers of the networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def make_optimizer(config: Mapping[str, Any], model: Any) -> Any:
    """Return the optimizer of a configuration; `reg_weight` is a synonym of `weight_decay`."""
    import torch

    decay = config["weight_decay"] if "weight_decay" in config else config["reg_weight"]
    common = {"lr": config["learning_rate"], "weight_decay": decay}
    if config["optimizer"] == "sgd":
        momentum = config.get("momentum", 0.0)
        return torch.optim.SGD(model.parameters(), momentum=momentum, **common)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config["optimizer"]]
    return kind(model.parameters(), **common)
