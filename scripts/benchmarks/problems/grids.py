"""Tables in which every configuration of a space was trained: FCNet's and NAS-Bench-201's.

Nothing may be trained on them, and no meta-data holds them: they show what a Creator does on
unknown spaces. The values of FCNet are losses over several orders of magnitude, so their logarithm
is tuned. Regret is measured by the worst configuration of the table: 0 is the best, 1 the worst.
All tables of a family have one task, so that a language model is asked the same of all.

FCNet's hyperparameters exist in three spellings: as the table has them, as a script for Keras would
name them, and as nested configuration files do.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from localhpo.objective import Objective
from localhpo.space import Categorical, Ordinal, Parameter, Space, Value
from localhpo.task import Task
from localhpo.trial import Config
from scripts.benchmarks.problems.dims import Array
from scripts.benchmarks.problems.problem import Problem

FOLDER = "tables"

SPELLINGS: Mapping[str, Mapping[str, str]] = {
    "table": {},
    "keras": {
        "init_lr": "learning_rate", "n_units_1": "units_1", "n_units_2": "units_2",
        "dropout_1": "dropout_rate_1", "dropout_2": "dropout_rate_2",
        "activation_fn_1": "activation_1", "activation_fn_2": "activation_2",
        "lr_schedule": "lr_scheduler",
    },
    "nested": {
        "init_lr": "optim.lr", "lr_schedule": "optim.scheduler", "batch_size": "data.batchSize",
        "n_units_1": "model.layer1.hidden_dim", "n_units_2": "model.layer2.hidden_dim",
        "dropout_1": "model.layer1.dropout", "dropout_2": "model.layer2.dropout",
        "activation_fn_1": "model.layer1.activation", "activation_fn_2": "model.layer2.activation",
    },
}  # fmt: skip
"""Other names of FCNet's hyperparameters."""

_BACKGROUNDS = {
    "fcnet": "A fully connected network with two hidden layers for regression on a table.",
    "nb201": "The operations on the six edges of a cell of a convolutional network for images.",
}


def names(data: Path) -> list[str]:
    """Return the names of the tables in the data folder."""
    return sorted(path.name.removesuffix(".csv.gz") for path in (data / FOLDER).glob("*.csv.gz"))


def make(data: Path, table: str, spelling: str) -> Problem:
    """Return the problem of one table, in one of `SPELLINGS`."""
    path = data / FOLDER / f"{table}.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    *columns, metric = rows[0]
    family = table.partition("_")[0]
    is_loss = family == "fcnet"
    new_names = SPELLINGS[spelling]
    values = {name: _values([row[name] for row in rows]) for name in columns}
    space = Space([_parameter(new_names.get(name, name), values[name]) for name in columns])
    scores: dict[str, float] = {}
    for row in rows:
        config = {new_names.get(name, name): values[name][row[name]] for name in columns}
        score = float(row[metric])
        scores[space.key(config)] = math.log(score) if is_loss else score
    best, worst = min(scores.values()), max(scores.values())

    objective = Objective(f"log_{metric}", "minimize") if is_loss else Objective(metric, "maximize")

    def evaluate_many(configs: Sequence[Config]) -> Array:
        return np.array([scores[space.key(config)] for config in configs])

    return Problem(
        name=f"grid/{table}/{spelling}",
        task=Task(
            name=family, command=(),
            objectives=(objective,),
            space=space, background=_BACKGROUNDS[family],
        ),
        evaluate_many=evaluate_many,
        definition={"table": hashlib.sha256(path.read_bytes()).hexdigest()},
        optimum=best if is_loss else worst,
        worst=worst if is_loss else best,
    )  # fmt: skip


def _values(cells: Sequence[str]) -> dict[str, Value]:
    """Return the values of a column by their text: numbers in order, words as they come."""
    distinct = list(dict.fromkeys(cells))
    try:
        return {cell: _number(cell) for cell in sorted(distinct, key=float)}
    except ValueError:
        return {cell: cell for cell in distinct}


def _number(cell: str) -> float | int:
    return int(cell) if cell.isdigit() else float(cell)


def _parameter(name: str, values: Mapping[str, Value]) -> Parameter:
    choices = tuple(values.values())
    if isinstance(choices[0], str):
        return Categorical(name, values=choices)
    return Ordinal(name, values=choices)
