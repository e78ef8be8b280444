"""YAHPO's surrogates as problems, on the full space or on a part of it, as a user might write it.

`full` and `crop` keep the original names of hyperparameters. A crop is random, but fixed by the
name of the problem: each range is reduced to at least half of it, with round bounds, and up to half
of the hyperparameters are fixed at a good value. `ordinal` is the full space of lcbench as lists of
ten values each, with the names of scikit-learn.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from localhpo.errors import InputError
from localhpo.objective import Objective
from localhpo.space import Ordinal, Space, Value
from localhpo.task import Task
from localhpo.trial import Config
from scripts.benchmarks.problems import yahpo
from scripts.benchmarks.problems.dims import Array, Dim
from scripts.benchmarks.problems.problem import Problem, rng_of

Variant = Literal["full", "crop", "ordinal"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

VERSION = 1
"""Increased when the crops change."""

_GOOD_OF = 64
"""Random configurations, the best of which gives the fixed values."""

_SKLEARN_NAMES: Mapping[str, str] = {
    "batch_size": "batch_size", "learning_rate": "learning_rate_init", "max_dropout": "dropout",
    "max_units": "hidden_layer_size", "momentum": "momentum", "num_layers": "n_layers",
    "weight_decay": "alpha",
}  # fmt: skip
"""Names of lcbench's hyperparameters in scikit-learn, or in its style."""

_LIST_LENGTH = 10

_SMALLEST_PART = 0.5
"""Smallest share of a range, on its own scale, that a crop keeps."""

_ONE_TO_100 = frozenset({"val_accuracy", "val_balanced_accuracy"})
"""Metrics in percent; other metrics to maximize are between 0 and 1."""


@dataclass(frozen=True)
class CroppedSpace:
    """A part of a full space."""

    space: Space
    held: Mapping[str, Any]
    """Fixed values, where they are active."""


def make(data: Path, family: str, instance: str, target: str, variant: Variant) -> Problem:
    """Return a problem on one data set of a family."""
    scenario = scenarios(data)[family]
    name = f"yahpo/{family}/{instance}/{target}/{variant}"
    column = scenario.targets.index(target)

    def evaluate(configs: Sequence[Mapping[str, Any]]) -> Array:
        return _within_range(target, scenario.evaluate(instance, configs)[:, column])

    cropped = CroppedSpace(full_space(scenario.dims), {})
    if variant == "crop":
        sign = -1.0 if yahpo.lower_is_better(target) else 1.0
        rng = rng_of("crop", name, VERSION)
        configs = [cropped.space.sample(rng) for _ in range(_GOOD_OF)]
        utilities = np.nan_to_num(sign * evaluate(configs), nan=-np.inf)
        cropped = crop(scenario.dims, configs[int(np.argmax(utilities))], rng)
    if variant == "ordinal":
        return _make_ordinal(name, scenario, instance, target, evaluate)
    held, dims = dict(cropped.held), scenario.dims

    def evaluate_many(configs: Sequence[Config]) -> Array:
        return evaluate([_active(dims, held | dict(config)) for config in configs])

    definition = {
        "model": _sha256(scenario.folder / "model.onnx"),
        "instance": instance,
        "target": target,
        "held": held,
    }
    task = _make_task(scenario, instance, target, cropped)
    return Problem(name, task, evaluate_many, definition)


def _make_ordinal(
    name: str,
    scenario: yahpo.Scenario,
    instance: str,
    target: str,
    evaluate: Callable[[Sequence[Mapping[str, Any]]], Array],
) -> Problem:
    if scenario.name != "lcbench":
        raise InputError(f"the variant ordinal exists for lcbench alone; got {name!r}")
    old_names = {new: old for old, new in _SKLEARN_NAMES.items()}
    space = Space([Ordinal(_SKLEARN_NAMES[d.name], values=_ten_values(d)) for d in scenario.dims])

    def evaluate_many(configs: Sequence[Config]) -> Array:
        return evaluate([{old_names[k]: v for k, v in config.items()} for config in configs])

    definition = {
        "model": _sha256(scenario.folder / "model.onnx"), "instance": instance, "target": target,
    }  # fmt: skip
    task = _make_task(scenario, instance, target, CroppedSpace(space, {}))
    return Problem(name, task, evaluate_many, definition)


def _ten_values(dim: Dim) -> tuple[Value, ...]:
    """Return ten values of a range (fewer of a short range of integers), as a user would list them.

    They are evenly spaced on the scale of the dimension, and have two digits.
    """
    low, high = (float(f"{bound:.4g}") for bound in (dim.low, dim.high))
    spaced = (np.geomspace if dim.log else np.linspace)(low, high, _LIST_LENGTH)
    values = [min(max(float(f"{value:.2g}"), low), high) for value in spaced]
    return tuple(dict.fromkeys(round(v) for v in values) if dim.integer else dict.fromkeys(values))


@cache
def scenarios(data: Path) -> dict[str, yahpo.Scenario]:
    """Return every scenario by family; they are opened once in this process."""
    return yahpo.open_all(data)


def full_space(dims: Sequence[Dim]) -> Space:
    """Return the full space, with its conditions."""
    return Space([dim.parameter(_when(dim)) for dim in dims])


def crop(dims: Sequence[Dim], good: Mapping[str, Any], rng: np.random.Generator) -> CroppedSpace:
    """Return a part of a full space around a good configuration."""
    holdable = [dim.name for dim in dims if dim.name in good]
    most = min(len(dims) // 2, len(dims) - 2)
    count = min(int(rng.integers(0, most + 1)), len(holdable)) if most > 0 else 0
    order = rng.permutation(holdable).tolist()
    held = {name: good[name] for name in order[:count]}
    while len(tuned := _tuned(dims, held)) < 2:  # fixed values may make most others inactive
        held.popitem()
    parameters = []
    for dim in tuned:
        when = {} if dim.when is None or dim.when[0] in held else _when(dim)
        low, high = _part(dim, rng)
        parameters.append(dataclasses.replace(dim, low=low, high=high).parameter(when))
    return CroppedSpace(Space(parameters), held)


def _tuned(dims: Sequence[Dim], held: Mapping[str, Any]) -> list[Dim]:
    """Return the dimensions that are not fixed and can be active with the fixed values."""
    return [
        dim
        for dim in dims
        if dim.name not in held
        and (dim.when is None or dim.when[0] not in held or held[dim.when[0]] in dim.when[1])
    ]


def _active(dims: Sequence[Dim], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without those whose condition does not hold."""
    return {
        dim.name: values[dim.name]
        for dim in dims
        if dim.name in values and (dim.when is None or values.get(dim.when[0]) in dim.when[1])
    }


def _when(dim: Dim) -> dict[str, tuple[Any, ...]]:
    return {} if dim.when is None else {dim.when[0]: dim.when[1]}


def _part(dim: Dim, rng: np.random.Generator) -> tuple[float, float]:
    """Return the bounds of a random part of a range, rounded outwards."""
    share = rng.uniform(_SMALLEST_PART, 1.0)
    start = rng.uniform(0.0, 1.0 - share)
    if dim.values:
        return 0.0, 1.0
    line = (math.log(dim.low), math.log(dim.high)) if dim.log else (dim.low, dim.high)
    length = line[1] - line[0]
    low, high = line[0] + start * length, line[0] + (start + share) * length
    if dim.log:
        low, high = math.exp(low), math.exp(high)
    units = [_unit(dim, value, length) for value in (low, high)]
    low = max(dim.low, float(f"{math.floor(low / units[0] + 1e-9) * units[0]:.12g}"))
    high = min(dim.high, float(f"{math.ceil(high / units[1] - 1e-9) * units[1]:.12g}"))
    return low, high


def _unit(dim: Dim, value: float, length: float) -> float:
    """Return the power of ten that a bound is a multiple of: one digit, or quarters of a range."""
    unit = 10.0 ** math.floor(math.log10(value if dim.log else length / 4))
    return max(1.0, unit) if dim.integer else unit


def _within_range(target: str, values: Array) -> Array:
    """Clip predictions slightly outside of the metric's range."""
    if yahpo.lower_is_better(target):
        return np.maximum(values, 0.0)
    return np.minimum(values, 100.0 if target in _ONE_TO_100 else 1.0)


def _make_task(scenario: yahpo.Scenario, instance: str, target: str, cropped: CroppedSpace) -> Task:
    title = yahpo.TITLES[scenario.name]
    learner = scenario.name.removeprefix("rbv2_").removeprefix("iaml_")
    return Task(
        name=f"{learner}-{instance}",
        command=(),
        objectives=(
            Objective(target, "minimize" if yahpo.lower_is_better(target) else "maximize"),
        ),
        space=cropped.space,
        fixed=cropped.held,
        background=f"{title}." if "tabular" in title else f"{title} on a table.",
    )


@cache
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
