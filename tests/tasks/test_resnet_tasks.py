"""cifar10-resnet and butterfly-resnet, in an environment that has timm."""

from __future__ import annotations

import importlib.util
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from task_reports import by_name, check_reports, write_image

from localhpo.executor import Outcome
from localhpo.trial import Measurement, State

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("timm") is None, reason="timm comes with the extra tasks"
    ),
]

OPERATORS = Path(__file__).parent / "torchvision_operators"
CONFIG = {
    "model_name": "resnet18",
    "global_pool": "avg",
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "dropout_rate": 0.1,
    "batch_size": 32,
    "epochs": 25,
}
OTHER = {
    **CONFIG,
    "model_name": "skresnet18",
    "global_pool": "catavgmax",
    "optimizer": "sgd",
    "momentum": 1.0,
    "batch_size": 512,
}


@pytest.fixture
def run(run_task: Callable) -> Callable:
    """Run a trial at `--small` size, with the operators that a CPU build of torch lacks."""

    def small(name: str, place: Path, *words: str, **options: object) -> object:
        return run_task(name, place, "--small", *words, path=OPERATORS, **options)

    return small


def check(outcome: Outcome, reported: list[Measurement]) -> None:
    assert outcome.state is State.COMPLETE, outcome.failure
    assert outcome.value == by_name(reported)["val_accuracy"][-1]
    check_reports(reported, "accuracy", epochs=2)


def write_binary(path: Path, per_class: int) -> None:
    """Write images that give their class away: each is a color of its own."""
    labels = np.repeat(np.arange(10, dtype=np.uint8), per_class)
    pixels = np.repeat(labels[:, None] * 25, 3072, axis=1)
    path.write_bytes(np.concatenate([labels[:, None], pixels], axis=1).tobytes())


def test_cifar10_in_the_binary_layout(run: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in range(1, 6):
        write_binary(folder / f"data_batch_{number}.bin", 10)
    write_binary(folder / "test_batch.bin", 3)
    check(*run("cifar10-resnet", tmp_path, **CONFIG))
    (folder / "test_batch.bin").write_bytes(b"torn")
    outcome, _ = run("cifar10-resnet", tmp_path, trial=1, **CONFIG)
    assert outcome.failure is not None
    assert "test_batch.bin must hold records of 3073 bytes" in outcome.failure.message


def test_butterflies_as_on_kaggle(run: Callable, tmp_path: Path) -> None:
    rows = ["filename,label"]
    for number in range(40):
        write_image(tmp_path / f"train/Image_{number}.jpg", number)
        rows.append(f"Image_{number}.jpg,{('MONARCH', 'ADONIS')[number % 2]}")
    (tmp_path / "Training_set.csv").write_text("\n".join(rows) + "\n")
    check(*run("butterfly-resnet", tmp_path, **OTHER))


def test_butterflies_in_packed_class_folders(run: Callable, tmp_path: Path) -> None:
    for number in range(40):
        write_image(tmp_path / f"leeds/{number % 2}/{number}.jpg", number)
    with tarfile.open(tmp_path / "leeds_butterfly_128.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "leeds", "leeds_butterfly_128")
    check(*run("butterfly-resnet", tmp_path, "--layout", "leeds", **CONFIG))


def test_cifar10_of_real_photographs(run: Callable, public_data: Callable) -> None:
    check(*run("cifar10-resnet", public_data("cifar10_jpeg"), "--layout", "jpeg", **OTHER))


def test_butterflies_of_leeds(run: Callable, public_data: Callable) -> None:
    check(*run("butterfly-resnet", public_data("leeds_butterfly"), "--layout", "leeds", **CONFIG))
