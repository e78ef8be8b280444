"""The spaces of the tasks on images and text are those of the AgentHPO paper's Table 2."""

from __future__ import annotations

from typing import Any

import pytest

from localhpo import tasks
from localhpo.task import load_task

RATE = {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}
DECAY = {"type": "float", "low": 1e-6, "high": 1e-1, "log": True}
HALF = {"type": "float", "low": 0.0, "high": 0.5}
OPTIMIZER = {"type": "categorical", "values": ["adam", "sgd"]}
MOMENTUM = {"type": "float", "low": 0.5, "high": 1.0, "when": {"optimizer": ["sgd"]}}
FINE_TUNING = {
    "learning_rate": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
    "epochs": {"type": "int", "low": 1, "high": 4},
    "weight_decay": DECAY,
}
RESNET = {
    "model_name": {
        "type": "categorical",
        "values": ["resnet18", "resnet18d", "seresnet18", "skresnet18"],
    },
    "global_pool": {"type": "categorical", "values": ["avg", "max", "avgmax", "catavgmax"]},
    "optimizer": OPTIMIZER,
    "learning_rate": RATE,
    "momentum": MOMENTUM,
    "weight_decay": DECAY,
    "dropout_rate": HALF,
    "batch_size": {"type": "ordinal", "values": [32, 64, 128, 256, 512]},
    "epochs": {"type": "int", "low": 25, "high": 200},
}
ENET = {
    "learning_rate": RATE,
    "optimizer": OPTIMIZER,
    "momentum": MOMENTUM,
    "weight_decay": DECAY,
    "activation": {"type": "categorical", "values": ["relu", "prelu"]},
    "batch_size": {"type": "ordinal", "values": [4, 8, 16, 32, 64]},
    "epochs": {"type": "int", "low": 10, "high": 50},
}
DISTILBERT = {
    **FINE_TUNING,
    "dropout_rate": HALF,
    "attention_dropout": HALF,
    "seq_classif_dropout": HALF,
    "batch_size": {"type": "ordinal", "values": [8, 16, 32, 64, 128]},
    "activation": {"type": "categorical", "values": ["gelu", "relu", "silu"]},
}
T5 = {
    **FINE_TUNING,
    "dropout": HALF,
    "batch_size": {"type": "ordinal", "values": [16, 32, 64, 128]},
}


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("cifar10-resnet", RESNET),
        ("butterfly-resnet", RESNET),
        ("cityscapes-enet", ENET),
        ("sst2-distilbert", DISTILBERT),
        ("ecommerce-distilbert", DISTILBERT),
        ("opus-t5", T5),
    ],
)
def test_the_space_is_that_of_the_paper(name: str, space: dict[str, Any]) -> None:
    told = load_task(tasks.find(name)).space.to_table()
    for table in told.values():
        table.pop("help", None)
    assert told == space
