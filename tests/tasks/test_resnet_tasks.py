"""cifar10-resnet and butterfly-resnet, in an environment that has timm."""

from __future__ import annotations

import importlib.util
import tarfile
from pathlib import Path

import numpy as np
import pytest
from media_tasks import REAL, Reports, check_reports, run_small, write_image

from localhpo.executor import Outcome
from localhpo.trial import State

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


def run(
    name: str, config: dict[str, object], data: Path, folder: Path, *words: str
) -> tuple[Outcome, Reports]:
    return run_small(name, config, data, folder, *words, PYTHONPATH=str(OPERATORS))  # type: ignore[arg-type]


def check(outcome: Outcome, reports: Reports) -> None:
    assert outcome.state is State.COMPLETE, outcome.failure
    assert outcome.score == reports["val_accuracy"][-1]
    check_reports(reports, "accuracy", epochs=2)


def write_binary(path: Path, per_class: int) -> None:
    """Write images that give their class away: each is a colour of its own."""
    labels = np.repeat(np.arange(10, dtype=np.uint8), per_class)
    pixels = np.repeat(labels[:, None] * 25, 3072, axis=1)
    path.write_bytes(np.concatenate([labels[:, None], pixels], axis=1).tobytes())


def test_cifar10_in_the_binary_layout(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in range(1, 6):
        write_binary(folder / f"data_batch_{number}.bin", 10)
    write_binary(folder / "test_batch.bin", 3)
    check(*run("cifar10-resnet", CONFIG, tmp_path, tmp_path / "0"))
    (folder / "test_batch.bin").write_bytes(b"torn")
    outcome, _ = run("cifar10-resnet", CONFIG, tmp_path, tmp_path / "1")
    assert outcome.failure is not None
    assert "test_batch.bin must hold records of 3073 bytes" in outcome.failure.message


def test_butterflies_as_on_kaggle(tmp_path: Path) -> None:
    rows = ["filename,label"]
    for number in range(40):
        write_image(tmp_path / f"train/Image_{number}.jpg", number)
        rows.append(f"Image_{number}.jpg,{('MONARCH', 'ADONIS')[number % 2]}")
    (tmp_path / "Training_set.csv").write_text("\n".join(rows) + "\n")
    check(*run("butterfly-resnet", OTHER, tmp_path, tmp_path / "0"))


def test_butterflies_in_packed_class_folders(tmp_path: Path) -> None:
    for number in range(40):
        write_image(tmp_path / f"leeds/{number % 2}/{number}.jpg", number)
    with tarfile.open(tmp_path / "leeds_butterfly_128.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "leeds", "leeds_butterfly_128")
    check(*run("butterfly-resnet", CONFIG, tmp_path, tmp_path / "0", "--layout", "leeds"))


@pytest.mark.skipif(not (REAL / "cifar10_jpeg").is_dir(), reason="the real files are not here")
def test_cifar10_of_real_photographs(tmp_path: Path) -> None:
    check(*run("cifar10-resnet", OTHER, REAL, tmp_path, "--layout", "jpeg"))


@pytest.mark.skipif(not (REAL / "leeds_butterfly").is_dir(), reason="the real files are not here")
def test_butterflies_of_leeds(tmp_path: Path) -> None:
    check(*run("butterfly-resnet", CONFIG, REAL, tmp_path, "--layout", "leeds"))
