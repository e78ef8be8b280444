"""Runs ready tasks of images and text as trials are run; makes images."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from localhpo import tasks
from localhpo.executor import Job, Outcome, ProcessExecutor
from localhpo.task import load
from localhpo.trial import Value

REAL = Path(os.environ.get("LOCALHPO_DATA") or Path(__file__).parents[1].parent / "shared/data")
"""Where the real files are, if they are on this machine."""

Reports = dict[str, list[float]]
"""Metric -> its values by step."""


def run_small(
    name: str, config: Mapping[str, Value], data: Path, folder: Path, *words: str, **env: str
) -> tuple[Outcome, Reports]:
    """Run one trial of a task with --small and `words` added to its command."""
    return run_full(name, config, data, folder, "--small", *words, **env)


def run_full(
    name: str, config: Mapping[str, Value], data: Path, folder: Path, *words: str, **env: str
) -> tuple[Outcome, Reports]:
    """Run one trial of a task with `words` added to its command."""
    task = load(tasks.find(name))
    task = dataclasses.replace(task, command=(*task.command, *words))
    environment = {"OMP_NUM_THREADS": "1", "LOCALHPO_DATA": str(data), **env}
    executor = ProcessExecutor()
    started = executor.start(Job(task, 0, config, seed=3, folder=folder, env=environment))
    give_up = time.monotonic() + 300
    while (outcome := started.outcome) is None:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    executor.close()
    reports: Reports = {}
    for measurement in started.poll():
        reports.setdefault(measurement.name, []).append(measurement.value)
    return outcome, reports


def check_reports(reports: Reports, metric: str, epochs: int) -> None:
    """Check that each epoch was reported, and the test once, with scores in percent."""
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
