"""Best configurations that others published: answers to questions without a function.

tabdl_tuning: winners of tuning runs of tabular networks, with their spaces. flaml_default:
portfolios of gradient boosting and forests, for which spaces are defined here. Winners of one space
on several data sets become the answers to one question. Held-out data sets are left out
(`held_out`).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localhpo.errors import LocalHPOError
from localhpo.space import Float, Int, Parameter, Space
from localhpo.trial import Config

from . import held_out

_FLAML_RANGES: Mapping[str, tuple[float, float, bool, bool]] = {
    # name: low, high, log, integer
    "n_estimators": (4, 2000, True, True),
    "max_leaves": (4, 2000, True, True),
    "num_leaves": (4, 2000, True, True),
    "max_depth": (1, 12, False, True),
    "min_child_weight": (1e-3, 128, True, False),
    "min_child_samples": (2, 128, True, True),
    "learning_rate": (1e-3, 1.0, True, False),
    "subsample": (0.1, 1.0, False, False),
    "colsample_bylevel": (0.05, 1.0, False, False),
    "colsample_bytree": (0.05, 1.0, False, False),
    "reg_alpha": (1e-3, 1000.0, True, False),
    "reg_lambda": (1e-3, 1000.0, True, False),
    "max_features": (0.05, 1.0, False, False),
}


@dataclass(frozen=True)
class Winners:
    """The winning configurations of one space on several data sets."""

    space: Space
    title: str
    configs: tuple[Config, ...]
    data_sets: tuple[str, ...]
    """Data set of each configuration, by the name in the source."""


def load(data: Path) -> list[Winners]:
    """Return all published winners, grouped by space."""
    return [w for w in [*_load_tabdl(data), *_load_flaml(data)] if len(w.configs) >= 3]


def _load_tabdl(data: Path) -> Iterator[Winners]:
    groups: dict[str, tuple[Space, str, list[tuple[Config, str]]]] = {}
    for path in sorted((data / "tabdl_tuning").glob("*.jsonl.gz")):
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            study = json.loads(line)
            pair = None if held_out.is_held_out(study["dataset"]) else _tabdl_study(study)
            if pair is None:
                continue
            space, config = pair
            key = study["model"] + space.signature()
            group = groups.setdefault(key, (space, study["model"], []))
            group[2].append((config, study["dataset"]))
    for space, model, found in groups.values():
        configs, names = zip(*found, strict=True)
        yield Winners(space, f"{model} on a table", configs, names)


def _tabdl_study(study: Mapping[str, Any]) -> tuple[Space, Config] | None:
    """Return the space of a study and its best configuration; None where one is not supported."""
    parameters: list[Parameter] = []
    config: dict[str, Any] = {}
    for name, rule, value in _iterate_leaves(study["space"], study["best"]):
        parameter = _tabdl_parameter(name, rule)
        if parameter is None or name in config or value is None or isinstance(value, (list, dict)):
            continue
        parameters.append(parameter)
        config[name] = min(max(value, parameter.low), parameter.high)
    if len(parameters) < 2:
        return None
    try:
        space = Space(parameters)
        return space, space.canonical(config)
    except LocalHPOError:
        return None


def _iterate_leaves(space: Any, best: Any) -> Iterator[tuple[str, list[Any], Any]]:
    """Yield (name, rule, winning value) of each tuned parameter."""
    for name, rule in space.items():
        value = best.get(name) if isinstance(best, dict) else None
        if isinstance(rule, dict):
            yield from _iterate_leaves(rule, value or {})
        elif isinstance(rule, list) and rule and isinstance(rule[0], str):
            yield name, rule[1:] if rule[0] == "_tune_" else rule, value


def _tabdl_parameter(name: str, rule: list[Any]) -> Parameter | None:
    kind, *numbers = rule
    if not isinstance(kind, str) or not all(isinstance(n, int | float) for n in numbers):
        return None
    if kind.startswith("?") and len(numbers) == 3 and "log" not in kind:
        numbers = numbers[1:]  # `?` adds a default of 0, which is inside a linear range
    log = kind.endswith("loguniform")
    if len(numbers) < 2 or numbers[0] >= numbers[1] or (log and numbers[0] <= 0):
        return None
    if kind in ("int", "int-loguniform"):
        return Int(name, low=int(numbers[0]), high=int(numbers[1]), log=log)
    if kind in ("uniform", "?uniform", "loguniform"):
        return Float(name, low=float(numbers[0]), high=float(numbers[1]), log=log)
    return None


def _load_flaml(data: Path) -> Iterator[Winners]:
    groups: dict[tuple[str, ...], list[tuple[Mapping[str, Any], str]]] = {}
    for path in sorted((data / "flaml_default").glob("*/*.json")):
        for item, name in _read_portfolio(path):
            values = {k: v for k, v in item["hyperparameters"].items() if k in _FLAML_RANGES}
            if values:
                groups.setdefault((item["class"], *sorted(values)), []).append((values, name))
    for (title, *keys), found in groups.items():
        space = Space(map(_flaml_parameter, keys))
        rows, names = zip(*found, strict=True)
        yield Winners(space, title, tuple(_clip(space, row) for row in rows), names)


def _read_portfolio(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield each entry of a portfolio, and the data set that it is from."""
    table = json.loads(path.read_text())
    for item, name in zip(table["portfolio"], table["configsource"], strict=True):
        if not held_out.is_held_out(name):
            yield item, name


def _flaml_parameter(name: str) -> Parameter:
    low, high, log, integer = _FLAML_RANGES[name]
    if integer:
        return Int(name, low=int(low), high=int(high), log=log)
    return Float(name, low=low, high=high, log=log)


def _clip(space: Space, values: Mapping[str, Any]) -> Config:
    limits = {p.name: (p.low, p.high) for p in space.parameters}
    inside = {n: min(max(values[n], low), high) for n, (low, high) in limits.items()}
    whole = {n: round(v) if isinstance(space[n], Int) else v for n, v in inside.items()}
    return space.canonical(whole)


def pick_winners(winners: Winners, count: int, rng: np.random.Generator) -> list[Config]:
    """Return random winners, without duplicates."""
    order = rng.permutation(len(winners.configs))[:count]
    return [winners.configs[i] for i in order]
