"""The results of the AgentHPO paper: its Tables 3 and 4, as printed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

RANDOM, GPT_3, GPT_4 = "random", "GPT-3.5", "GPT-4"
METHODS = (GPT_4, GPT_3, RANDOM)
"""Methods that the paper compares, the best first."""

_FILE = Path(__file__).with_name("paper.toml")


@dataclass(frozen=True, slots=True)
class PaperResult:
    """The paper's results on one task, in percent (BLEU: in points)."""

    title: str
    """Name of its row in Table 3."""
    scale: float
    """Factor from values of the ready task to the paper's unit."""
    human: float
    """Best of 100 random trials, the baseline for a human."""
    best: Mapping[str, Mapping[int, tuple[float, float]]]
    """Mean and standard deviation of the best value so far, by method and number of trials."""


@dataclass(frozen=True, slots=True)
class TokenCost:
    """Thousands of tokens of a run of ten trials, and its price."""

    prompt: float
    completion: float
    total: float
    dollars: float


@cache
def tasks() -> Mapping[str, PaperResult]:
    """Return the results by name of the ready task."""
    table = _table()
    return {name: _reported(row, table["columns"]) for name, row in table["tasks"].items()}


@cache
def costs() -> Mapping[str, TokenCost]:
    """Return the cost of a run by name of the language model."""
    return {name: TokenCost(**row) for name, row in _table()["cost"].items()}


def run_counts() -> Mapping[str, int]:
    """Return the number of runs of each method."""
    return {name: int(count) for name, count in _table()["runs"].items()}


def _reported(row: Mapping[str, Any], columns: list[int]) -> PaperResult:
    best = {
        method: {
            trial: (mean, deviation)
            for trial, (mean, deviation) in zip(columns, row[method], strict=True)
        }
        for method in METHODS
    }
    return PaperResult(row["title"], row["scale"], row["human"], best)


@cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))
