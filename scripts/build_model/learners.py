"""Learners of the real trainings: a full search space and a function that trains.

Full spaces are wider than a user's, which `spaces.cut` takes a part of. There are no support vector
machines: they are the family that the model must not see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scripts.benchmarks.problems.dims import Array, Dim

from .optimizers import make_optimizer


@dataclass(frozen=True)
class Split:
    """A data set in two parts, standardized."""

    x: Array
    y: Array
    x_valid: Array
    y_valid: Array
    classes: int
    """0 for a regression."""


Fit = Callable[[Mapping[str, Any], Any, int], Array]
"""Configuration, data, seed -> class probabilities (n, classes) or values (n,)."""

Make = Callable[[str, np.random.Generator], tuple[Any, str]]
"""Kind of data and generator -> random data set and its description."""

Measure = Callable[[Array, Any], dict[str, float]]
"""Predictions and data -> all metrics."""


@dataclass(frozen=True)
class Learner:
    """A kind of model with its full space."""

    name: str
    title: str
    dims: tuple[Dim, ...]
    fit: Fit
    tasks: tuple[str, ...] = ("binary", "multiclass", "regression")
    share: float = 1.0
    """Relative number of data sets."""
    make: Make | None = None
    """Generates data; by default a table (`trainings.make_data`)."""
    measure: Measure | None = None
    """Computes metrics; by default those of a table (`trainings.measure`)."""
    first_seed: int = 10_000
    """First seed of its data sets: each network has its own, learners on tables share one."""


def _xgboost(config: Mapping[str, Any], data: Split, seed: int) -> Array:
    import xgboost

    kind = xgboost.XGBClassifier if data.classes else xgboost.XGBRegressor
    settings = dict(config)
    if data.classes != 2:
        settings.pop("scale_pos_weight", None)
    model = kind(n_jobs=1, max_bin=64, random_state=seed, verbosity=0, **settings)
    model.fit(data.x, data.y)
    return model.predict_proba(data.x_valid) if data.classes else model.predict(data.x_valid)


def _sklearn(estimators: tuple[Any, Any], data: Split) -> Array:
    model = estimators[0 if data.classes else 1]
    model.fit(data.x, data.y)
    return model.predict_proba(data.x_valid) if data.classes else model.predict(data.x_valid)


def _forest(config: Mapping[str, Any], data: Split, seed: int) -> Array:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    settings = dict(config, random_state=seed, n_jobs=1)
    settings["bootstrap"] = config["bootstrap"] == "true"
    return _sklearn((RandomForestClassifier(**settings), RandomForestRegressor(**settings)), data)


def _boosting(config: Mapping[str, Any], data: Split, seed: int) -> Array:
    from sklearn.ensemble import (
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
    )

    settings = dict(config, random_state=seed, early_stopping=False, max_bins=63)
    return _sklearn(
        (HistGradientBoostingClassifier(**settings), HistGradientBoostingRegressor(**settings)),
        data,
    )


def _linear(config: Mapping[str, Any], data: Split, seed: int) -> Array:
    from sklearn.linear_model import ElasticNet, LogisticRegression

    alpha, ratio = config["alpha"], config["l1_ratio"]
    logistic = LogisticRegression(
        C=1.0 / (alpha * len(data.y)), l1_ratio=ratio, solver="saga", max_iter=200,
        random_state=seed,
    )  # fmt: skip
    return _sklearn((logistic, ElasticNet(alpha=alpha, l1_ratio=ratio, max_iter=500)), data)


def _neighbors(config: Mapping[str, Any], data: Split, seed: int) -> Array:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    del seed
    return _sklearn((KNeighborsClassifier(**config), KNeighborsRegressor(**config)), data)


def _network(config: Mapping[str, Any], data: Split, seed: int) -> Array:
    import torch

    torch.manual_seed(seed)
    width, activation = config["hidden_size"], config["activation"]
    kinds = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "gelu": torch.nn.GELU}
    layers: list[torch.nn.Module] = []
    inputs = data.x.shape[1]
    for _ in range(config["num_layers"]):
        layers += [torch.nn.Linear(inputs, width), kinds[activation]()]
        layers += [torch.nn.Dropout(config["dropout"])]
        inputs = width
    model = torch.nn.Sequential(*layers, torch.nn.Linear(inputs, data.classes or 1))
    x = torch.as_tensor(data.x, dtype=torch.float32)
    y = torch.as_tensor(data.y, dtype=torch.long if data.classes else torch.float32)
    loss_of = torch.nn.CrossEntropyLoss() if data.classes else torch.nn.MSELoss()
    steps = make_optimizer(config, model)
    for _ in range(config["epochs"]):
        order = torch.randperm(len(x))
        for batch in order.split(config["batch_size"]):
            steps.zero_grad()
            out = model(x[batch])
            loss_of(out if data.classes else out[:, 0], y[batch]).backward()
            steps.step()
    model.eval()
    with torch.no_grad():
        out = model(torch.as_tensor(data.x_valid, dtype=torch.float32))
    return np.asarray(out.softmax(-1) if data.classes else out[:, 0])


LEARNERS = (
    Learner(
        "xgboost",
        "XGBoost",
        (
            Dim("learning_rate", 1e-3, 1.0, log=True),
            Dim("max_depth", 1, 15, integer=True),
            Dim("min_child_weight", 1, 20, log=True),
            Dim("subsample", 0.3, 1.0),
            Dim("colsample_bytree", 0.3, 1.0),
            Dim("n_estimators", 20, 600, log=True, integer=True),
            Dim("gamma", 0.0, 5.0),
            Dim("reg_alpha", 0.0, 10.0),
            Dim("reg_lambda", 0.0, 10.0),
            Dim("scale_pos_weight", 0.5, 20.0, log=True),
        ),
        _xgboost,
        share=3.5,
    ),
    Learner(
        "random_forest",
        "Random forest",
        (
            Dim("n_estimators", 5, 200, log=True, integer=True),
            Dim("max_depth", 1, 30, integer=True),
            Dim("min_samples_split", 2, 40, log=True, integer=True),
            Dim("min_samples_leaf", 1, 40, log=True, integer=True),
            Dim("max_features", 0.05, 1.0),
            Dim("bootstrap", values=("true", "false")),
        ),
        _forest,
    ),
    Learner(
        "boosting",
        "Histogram gradient boosting",
        (
            Dim("learning_rate", 1e-3, 1.0, log=True),
            Dim("max_iter", 10, 200, log=True, integer=True),
            Dim("max_leaf_nodes", 3, 128, log=True, integer=True),
            Dim("min_samples_leaf", 1, 100, log=True, integer=True),
            Dim("l2_regularization", 1e-8, 100.0, log=True),
        ),
        _boosting,
    ),
    Learner(
        "network",
        "A small neural network",
        (
            Dim("learning_rate", 1e-5, 1.0, log=True),
            Dim("batch_size", 8, 256, log=True, integer=True),
            Dim("epochs", 3, 40, log=True, integer=True),
            Dim("hidden_size", 8, 256, log=True, integer=True),
            Dim("num_layers", 1, 4, integer=True),
            Dim("dropout", 0.0, 0.8),
            Dim("weight_decay", 1e-7, 1e-1, log=True),
            Dim("activation", values=("relu", "tanh", "gelu")),
            Dim("optimizer", values=("sgd", "adam", "adamw")),
            Dim("momentum", 0.0, 0.99, when=("optimizer", ("sgd",))),
        ),
        _network,
        share=1.3,
    ),
    Learner(
        "linear",
        "An elastic net",
        (Dim("alpha", 1e-6, 100.0, log=True), Dim("l1_ratio", 0.0, 1.0)),
        _linear,
        share=0.5,
    ),
    Learner(
        "neighbors",
        # British, as in the prompts that the built-in model was trained on.
        "Nearest neighbours",
        (
            Dim("n_neighbors", 1, 60, log=True, integer=True),
            Dim("weights", values=("uniform", "distance")),
            Dim("p", 1.0, 4.0),
        ),
        _neighbors,
        share=0.5,
    ),
)
