"""What the paper reports: its Tables 3 and 4, as printed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

RANDOM, GPT_3, GPT_4 = "random", "GPT-3.5", "GPT-4"
METHODS = (GPT_4, GPT_3, RANDOM)
"""What the paper compares, the best first."""

_FILE = Path(__file__).with_name("paper.toml")


@dataclass(frozen=True, slots=True)
class Reported:
    """What the paper reports of one task, in per cent (BLEU: in points)."""

    title: str
    """Its row in Table 3."""
    scale: float
    """A score of our ready task times this is in the paper's unit."""
    human: float
    """Best of 100 random trials."""
    best: Mapping[str, Mapping[int, tuple[float, float]]]
    """By method and number of trials: mean and standard deviation of the best so far."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Thousands of tokens that a run of ten trials took."""

    prompt: float
    completion: float
    total: float
    dollars: float


@cache
def tasks() -> Mapping[str, Reported]:
    """Return what is reported, by the name of our ready task."""
    table = _table()
    return {name: _reported(row, table["columns"]) for name, row in table["tasks"].items()}


@cache
def costs() -> Mapping[str, Cost]:
    """Return what the two models cost, by their names."""
    return {name: Cost(**row) for name, row in _table()["cost"].items()}


def runs() -> Mapping[str, int]:
    """Return over how many runs each method was measured."""
    return {name: int(count) for name, count in _table()["runs"].items()}


def _reported(row: Mapping[str, Any], columns: list[int]) -> Reported:
    best = {
        method: {
            trial: (mean, deviation)
            for trial, (mean, deviation) in zip(columns, row[method], strict=True)
        }
        for method in METHODS
    }
    return Reported(row["title"], row["scale"], row["human"], best)


@cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))
