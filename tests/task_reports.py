"""What the tests of ready tasks ask of a trial's reports; makes images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from localhpo.trial import Measurement


def by_name(reported: Iterable[Measurement]) -> dict[str, list[float]]:
    """Return the values of each metric by step."""
    found: dict[str, list[float]] = {}
    for measurement in reported:
        found.setdefault(measurement.name, []).append(measurement.value)
    return found


def check_reports(reported: Iterable[Measurement], metric: str, epochs: int) -> None:
    """Check that each epoch was reported, and the test once, with scores in percent."""
    reports = by_name(reported)
    assert len(reports[f"val_{metric}"]) == epochs
    assert len(reports["train_loss"]) == epochs
    assert len(reports[f"test_{metric}"]) == 1
    assert all(math.isfinite(value) for values in reports.values() for value in values)
    assert all(0 <= value <= 100 for value in reports[f"val_{metric}"])


def write_image(path: Path, seed: int, size: tuple[int, int] = (40, 48)) -> None:
    """Write an image of noise, of height and width `size`; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
