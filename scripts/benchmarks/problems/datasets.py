"""Data sets of the real trainings: those bundled with scikit-learn, and generated ones.

The bundled ones are for final tables and were never trained on; the generated ones are for choosing
settings. Each is split once, in the same way for all Creators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from scripts.benchmarks.problems.dims import Array

Kind = Literal["binary", "multiclass", "regression"]

VERSION = 1
"""Increased when the content of a data set changes."""

_VALIDATION_SHARE = 0.3
_MOST_TRAINING_ROWS = 600
"""With more rows a training of a few hundred rounds would take many seconds."""


@dataclass(frozen=True)
class DataSet:
    """A data set, split in two; features and the targets of a regression are standardized."""

    name: str
    kind: Kind
    text: str
    """Description, as a user would write it."""
    x: Array
    y: Array
    x_val: Array
    y_val: Array


def names() -> tuple[str, ...]:
    """Return the names of all data sets: first scikit-learn's own, then the generated ones."""
    return (*_BUNDLED, *_GENERATED)


@cache
def load(name: str) -> DataSet:
    """Return a data set; it is generated or read once in this process."""
    x, y, kind = {**_BUNDLED, **_GENERATED}[name]()
    return _split(name, np.asarray(x, dtype=float), np.asarray(y), kind)


def _split(name: str, x: Array, y: Array, kind: Kind) -> DataSet:
    from sklearn.model_selection import train_test_split

    x, x_val, y, y_val = train_test_split(
        x, y, test_size=_VALIDATION_SHARE, random_state=0,
        stratify=None if kind == "regression" else y,
    )  # fmt: skip
    text = _text(x, y, kind, rows=len(x) + len(x_val))
    x, y = x[:_MOST_TRAINING_ROWS], y[:_MOST_TRAINING_ROWS]
    center, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale < 1e-9] = 1.0  # a pixel that is always white among the training rows
    x, x_val = (x - center) / scale, (x_val - center) / scale
    if kind == "regression":
        middle, spread = y.mean(), y.std()
        y, y_val = (y - middle) / spread, (y_val - middle) / spread
    return DataSet(name, kind, text, x, y, x_val, y_val)


def _text(x: Array, y: Array, kind: Kind, rows: int) -> str:
    features = f"{rows:,} rows, {x.shape[1]} numeric features"
    if kind == "regression":
        return f"{features}, a number to predict"
    shares = np.unique(y, return_counts=True)[1] / len(y)
    if kind == "binary":
        return f"{features}, two classes ({100 * shares.max():.0f}/{100 * shares.min():.0f})"
    return f"{features}, {len(shares)} classes"


Made = tuple[Any, Any, Kind]


def _bundled(name: str, kind: Kind) -> Callable[[], Made]:
    def read() -> Made:
        from sklearn import datasets

        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return x, y, kind

    return read


def _generated(maker: str, kind: Kind, **settings: Any) -> Callable[[], Made]:
    def make() -> Made:
        from sklearn import datasets

        x, y = getattr(datasets, f"make_{maker}")(**settings)
        return x, y, kind

    return make


_BUNDLED: Mapping[str, Callable[[], Made]] = {
    "breast-cancer": _bundled("breast_cancer", "binary"),
    "wine": _bundled("wine", "multiclass"),
    "iris": _bundled("iris", "multiclass"),
    "digits": _bundled("digits", "multiclass"),
    "diabetes": _bundled("diabetes", "regression"),
    "digits-value": _bundled("digits", "regression"),  # which digit it is, as a number
}

_GENERATED: Mapping[str, Callable[[], Made]] = {
    "made-binary": _generated(
        "classification", "binary", n_samples=700, n_features=20, n_informative=6, n_redundant=4,
        flip_y=0.1, class_sep=0.8, weights=[0.7], random_state=11,
    ),
    "made-moons": _generated("moons", "binary", n_samples=400, noise=0.35, random_state=12),
    "made-three": _generated(
        "classification", "multiclass", n_samples=300, n_features=12, n_informative=5, n_classes=3,
        flip_y=0.05, random_state=13,
    ),
    "made-blobs": _generated(
        "blobs", "multiclass", n_samples=500, n_features=8, centers=5, cluster_std=6.0,
        random_state=14,
    ),
    "made-friedman": _generated(
        "friedman1", "regression", n_samples=600, n_features=10, noise=2.0, random_state=15,
    ),
    "made-linear": _generated(
        "regression", "regression", n_samples=250, n_features=15, n_informative=6, noise=60.0,
        random_state=16,
    ),
}  # fmt: skip
