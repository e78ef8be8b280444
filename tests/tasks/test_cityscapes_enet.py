"""cityscapes-enet: its network, its labels, and a trial."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from task_reports import by_name, check_reports, write_image

from localhpo import tasks
from localhpo.trial import State

FOLDER = tasks.find("cityscapes-enet").parent
CONFIG = {
    "learning_rate": 1e-3,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "activation": "relu",
    "batch_size": 4,
    "epochs": 10,
}


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    sys.modules.pop("enet", None)
    return loaded


def write_city(root: Path, split: str, city: str, count: int) -> None:
    for number in range(count):
        name = f"{city}_{number:06}"
        write_image(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", number, (64, 128))
        labels = np.full((64, 128), 7, np.uint8)  # road
        labels[:20] = 23  # sky
        labels[20:24] = 0  # unlabeled
        path = root / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(path)


def test_the_network_is_that_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    enet = module("enet", monkeypatch)
    network = enet.ENet(19, torch.nn.PReLU).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 128)).shape == (1, 19, 64, 128)
    count = sum(weight.numel() for weight in network.parameters())
    assert 0.34e6 < count < 0.38e6, "the paper's Table 3: 0.37 million"


def test_label_ids_become_train_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = module("train", monkeypatch)
    label_ids = np.array([[0, 7, 8, 11, 22, 28], [6, 9, 29, 31, 33, 34]], np.uint8)
    Image.fromarray(label_ids).save(tmp_path / "labels.png")
    told = train.read_labels(tmp_path / "labels.png", (2, 6))
    assert told.tolist() == [[255, 0, 1, 2, 9, 15], [255, 255, 255, 16, 18, 255]]


def test_whole_cities_are_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = module("train", monkeypatch)
    for city in ("aachen", "bonn", "ulm"):
        write_city(tmp_path, "train", city, 2)
    write_city(tmp_path, "val", "lindau", 1)
    files = train.find_files(tmp_path)
    assert {name: {path.parent.name for path in paths} for name, paths in files.items()} == {
        "train": {"aachen", "bonn"},
        "val": {"ulm"},
        "test": {"lindau"},
    }


@pytest.mark.slow
def test_a_trial(run_task: Callable, tmp_path: Path) -> None:
    for city in ("aachen", "ulm"):
        write_city(tmp_path, "train", city, 4)
    write_city(tmp_path, "val", "lindau", 2)
    outcome, reported = run_task("cityscapes-enet", tmp_path, "--small", **CONFIG)
    assert outcome.state is State.COMPLETE, outcome.failure
    assert outcome.value == by_name(reported)["val_iou"][-1]
    check_reports(reported, "iou", epochs=2)
