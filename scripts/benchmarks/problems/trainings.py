"""Short real trainings as problems: XGBoost in the space of the AgentHPO paper, and a network.

Each configuration is trained once on a machine; its value is kept in a file (`Cache`).
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from localhpo import tasks
from localhpo.errors import StoreError
from localhpo.objective import Objective
from localhpo.space import Categorical, Float, Int, Ordinal, Space
from localhpo.task import Task, load_task
from localhpo.trial import Config
from scripts.benchmarks.problems import datasets
from scripts.benchmarks.problems.datasets import DataSet
from scripts.benchmarks.problems.dims import Array
from scripts.benchmarks.problems.problem import Problem

LEARNERS = ("xgboost", "mlp")

VERSION = 1
"""Increased when the way of training changes."""

_DRAWS = 200
"""Random configurations for the reference values; each of them is trained."""

_BATCHES = (16, 32, 64, 128, 256)

_MLP_SPACE = Space(
    [
        Float("learning_rate_init", 1e-4, 1e-1, log=True),
        Int("hidden_size", 8, 256, log=True),
        Int("n_layers", 1, 3),
        Categorical("activation", ("relu", "tanh")),
        Float("alpha", 1e-6, 1.0, log=True, help="L2 penalty"),
        Ordinal("batch_size", _BATCHES),
        Int("max_iter", 5, 100, log=True, help="epochs"),
        Float("beta_1", 0.5, 0.99, help="decay of Adam's first moment"),
    ]
)

_TITLES = {"xgboost": "XGBoost", "mlp": "A multilayer perceptron (scikit-learn), Adam,"}


def make(learner: str, name: str, cache: Path) -> Problem:
    """Return a problem: a learner on a data set, whose values are kept in the folder `cache`."""
    data = datasets.load(name)
    classifies = data.kind != "regression"
    task = Task(
        name=f"{name}-{learner}",
        command=(),
        objectives=(
            Objective(
                "val_logloss" if classifies else "val_r2", "minimize" if classifies else "maximize"
            ),
        ),
        space=_space(learner, data),
        background=f"{_TITLES[learner]} on {data.text}.",
    )
    definition = {
        "data": [name, datasets.VERSION],
        "training": [learner, VERSION],
        "packages": {p: metadata.version(p) for p in ("scikit-learn", "xgboost")},
    }
    train = _TRAIN[learner]

    def evaluate_many(configs: Sequence[Config]) -> Array:
        return np.array([evaluate(config) for config in configs])

    def evaluate(config: Config) -> float:
        return values.fetch(task.space.key(config), lambda: _train_and_measure(train, data, config))

    problem = Problem(f"{learner}/{name}", task, evaluate_many, definition, draws=_DRAWS, crosses=0)
    values = Cache(cache / f"{learner}-{name}-{problem.digest[:12]}.jsonl")
    return problem


class Cache:
    """The values in one file, by key; NaN for a training that failed.

    The file has JSON lines, one `{"key": ..., "score": ...}` per training, and is only appended to:
    Creators, seeds and processes share it. An incomplete line, which a kill may leave, is ignored.
    Two processes that train the same configuration at the same time write the same line twice.

    Raises (in every method):
        StoreError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; it need not exist."""
        self._path = path
        self._known: dict[str, float] = {}
        self._read_bytes = 0

    def fetch(self, key: str, measure: Callable[[], float]) -> float:
        """Return a value; it is measured and stored where it is not known."""
        value = self.get(key)
        if value is None:
            value = measure()
            self.put(key, value)
        return value

    def get(self, key: str) -> float | None:
        """Return a value that this process or another has stored; None where there is none."""
        if key not in self._known:
            self._read_new_lines()
        return self._known.get(key)

    def put(self, key: str, value: float) -> None:
        """Store a value."""
        self._known[key] = value
        line = json.dumps({"key": key, "score": value if math.isfinite(value) else None})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                # Starts with a line break, in case a kill left an incomplete line.
                os.write(fd, f"\n{line}\n".encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error

    def _read_new_lines(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                new = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error.strerror}") from error
        lines = new[: new.rfind(b"\n") + 1]
        self._read_bytes += len(lines)
        for line in lines.splitlines():
            try:
                row = json.loads(line)
                value = row["score"]
                self._known[row["key"]] = math.nan if value is None else float(value)
            except (ValueError, KeyError, TypeError):
                continue  # empty or incomplete


def _space(learner: str, data: DataSet) -> Space:
    if learner == "mlp":
        return _MLP_SPACE
    space = load_task(tasks.find("breast-cancer-xgboost")).space
    # `scale_pos_weight` weighs one class against the other, so there must be two.
    return Space([p for p in space if data.kind == "binary" or p.name != "scale_pos_weight"])


def _train_and_measure(
    train: Callable[[DataSet, Mapping[str, Any]], Array], data: DataSet, config: Config
) -> float:
    """Return the value of one training; NaN where it fails or diverges."""
    from sklearn.metrics import log_loss, r2_score

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # an optimizer that has not converged warns
        try:
            predicted = train(data, config)
        except ValueError:  # raised by scikit-learn where weights are not finite
            return math.nan
        if not np.isfinite(predicted).all():
            return math.nan
        measure = r2_score if data.kind == "regression" else log_loss
        return float(measure(data.y_val, predicted))


def _xgboost(data: DataSet, config: Mapping[str, Any]) -> Array:
    import xgboost

    settings = {**config, "n_jobs": 1, "verbosity": 0, "tree_method": "hist", "random_state": 0}
    if data.kind == "regression":
        model = xgboost.XGBRegressor(**settings).fit(data.x, data.y)
        return np.asarray(model.predict(data.x_val))
    classifier = xgboost.XGBClassifier(**settings).fit(data.x, data.y)
    return np.asarray(classifier.predict_proba(data.x_val), dtype=float)


def _mlp(data: DataSet, config: Mapping[str, Any]) -> Array:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    settings = dict(config)
    size, layers = settings.pop("hidden_size"), settings.pop("n_layers")
    settings |= {"hidden_layer_sizes": (size,) * layers, "random_state": 0}
    settings["batch_size"] = min(settings["batch_size"], len(data.x))
    if data.kind == "regression":
        return np.asarray(MLPRegressor(**settings).fit(data.x, data.y).predict(data.x_val))
    return np.asarray(MLPClassifier(**settings).fit(data.x, data.y).predict_proba(data.x_val))


_TRAIN = {"xgboost": _xgboost, "mlp": _mlp}
