"""YAHPO Gym's surrogates: they predict the metrics of a real learner on a real data set.

`yahpo/columns.json` in the data folder describes their inputs, under `_note`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scripts.benchmarks.problems.dims import Array, Dim

SPLITS = Path(__file__).with_name("splits.toml")

TITLES: Mapping[str, str] = {
    "lcbench": "A funnel-shaped network on tabular data, SGD with momentum",
    "rbv2_xgboost": "XGBoost", "iaml_xgboost": "XGBoost",
    "rbv2_rpart": "A decision tree", "iaml_rpart": "A decision tree",
    "iaml_glmnet": "An elastic net", "rbv2_glmnet": "An elastic net",
    "rbv2_ranger": "A random forest", "iaml_ranger": "A random forest",
    "fair_ranger": "A random forest under fairness constraints",
    # British, as in the prompts that the built-in model was trained on.
    "rbv2_aknn": "Approximate nearest neighbours",
    "rbv2_svm": "A support vector machine",
    "iaml_super": "A choice of learners",
}  # fmt: skip

METRICS: Mapping[str, tuple[str, ...]] = {
    "lcbench": ("val_accuracy", "val_cross_entropy", "val_balanced_accuracy"),
    "rbv2_xgboost": ("acc", "bac", "auc", "brier", "logloss"),
    "rbv2_rpart": ("acc", "bac", "auc", "brier", "logloss"),
    "rbv2_ranger": ("acc", "bac", "auc", "brier", "logloss"),
    "fair_ranger": ("mmce",),
}
"""Metrics to tune, by family; the others have `_OTHERS`.

f1 is not among them: it is highest for models that always predict the positive class."""

_OTHERS = ("mmce", "auc", "logloss")
_LOWER = frozenset({"mmce", "brier", "logloss", "val_cross_entropy"})


def lower_is_better(target: str) -> bool:
    """Return whether a metric is minimized (`columns.json` is wrong about f1)."""
    return target in _LOWER


@dataclass
class Scenario:
    """One surrogate model with its full space."""

    folder: Path
    columns: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The family, e.g. rbv2_xgboost."""
        return self.folder.name

    @property
    def targets(self) -> tuple[str, ...]:
        """The metrics to tune."""
        return METRICS.get(self.name, _OTHERS)

    @cached_property
    def _space(self) -> Mapping[str, Any]:
        space: Mapping[str, Any] = json.loads((self.folder / "config_space.json").read_text())
        return space

    @cached_property
    def _codes(self) -> Mapping[str, Mapping[str, int]]:
        path = self.folder / "encoding.json"
        codes: Mapping[str, Mapping[str, int]] = json.loads(path.read_text())
        return codes

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(
            self.folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )

    @cached_property
    def dims(self) -> tuple[Dim, ...]:
        """The dimensions of the full space, without instance and fidelity."""
        skip = {self.columns["instance"], *self.columns["fidelity"]}
        when = {
            c["child"]: (c["parent"], tuple(c.get("values") or [c["value"]]))
            for c in self._space["conditions"]
        }
        return tuple(
            _dim(h, when.get(h["name"]))
            for h in self._space["hyperparameters"]
            if h["name"] not in skip
        )

    @property
    def instances(self) -> tuple[str, ...]:
        """The data sets."""
        name = self.columns["instance"]
        choices = next(h["choices"] for h in self._space["hyperparameters"] if h["name"] == name)
        return tuple(choice for choice in choices if choice in self._codes[name])

    def evaluate(self, instance: str, configs: Sequence[Mapping[str, Any]]) -> Array:
        """Return the metrics (configurations, targets); NaN where the model has no answer."""
        return np.asarray(self.evaluate_each((instance,), configs)[0])

    def evaluate_each(
        self, instances: Sequence[str], configs: Sequence[Mapping[str, Any]]
    ) -> Array:
        """Return the metrics (instances, configurations, targets)."""
        cat = np.zeros((len(configs), len(self.columns["x_cat"])), dtype=np.int32)
        cont = np.zeros((len(configs), len(self.columns["x_cont"])), dtype=np.float32)
        full = self._fidelity() | {self.columns["instance"]: instances[0]}
        for row, config in enumerate(configs):
            values = full | dict(config)
            for i, name in enumerate(self.columns["x_cat"]):
                cat[row, i] = self._codes[name][str(values[name])] if name in values else 0
            for i, name in enumerate(self.columns["x_cont"]):
                cont[row, i] = values.get(name, 0.0)
        column = self.columns["x_cat"].index(self.columns["instance"])
        scores = []
        for instance in instances:
            cat[:, column] = self._codes[self.columns["instance"]][instance]
            scores.append(self._run(cat, cont))
        return np.array(scores)

    def _run(self, cat: Array, cont: Array) -> Array:
        names = [node.name for node in self._session.get_inputs()]
        size = len(cat) if self.columns["batch"] else 1
        out = [
            self._session.run(None, dict(zip(names, _feed(names, cat, cont, i, size), strict=True)))
            for i in range(0, len(cat), size)
        ]
        scores = np.concatenate([np.atleast_2d(o[0]) for o in out])
        return scores[:, [self.columns["y"].index(t) for t in self.targets]]

    def _fidelity(self) -> dict[str, Any]:
        full: dict[str, Any] = {"trainsize": 1.0, "epoch": 52, "repl": 10}
        return {name: full[name] for name in self.columns["fidelity"]}


def _feed(names: Sequence[str], cat: Array, cont: Array, i: int, size: int) -> list[Array]:
    parts = {"x_cat": cat[i : i + size], "x_cont": cont[i : i + size]}
    if size == 1:
        # A model exported for one row takes it with or without the leading axis.
        parts = {name: part.reshape(1, -1) for name, part in parts.items()}
    return [parts["x_cat" if "cat" in name else "x_cont"] for name in names]


def _dim(h: Mapping[str, Any], when: tuple[str, tuple[str, ...]] | None) -> Dim:
    if h["type"] == "categorical":
        return Dim(h["name"], values=tuple(h["choices"]), when=when)
    return Dim(
        h["name"], h["lower"], h["upper"], log=h["log"],
        integer=h["type"] == "uniform_int", when=when,
    )  # fmt: skip


def open_all(data: Path) -> dict[str, Scenario]:
    """Return every scenario by its family's name."""
    columns = json.loads((data / "yahpo" / "columns.json").read_text())
    columns.pop("_note")
    found = {key: Scenario(data / "yahpo" / key, value) for key, value in columns.items()}
    return {scenario.name: scenario for scenario in found.values()}


def splits() -> Mapping[str, Any]:
    """Return the table of `splits.toml`: which data may be trained on."""
    return tomllib.loads(SPLITS.read_text())


def training(data: Path) -> list[tuple[Scenario, str]]:
    """Return (scenario, instance) of everything that may be trained on."""
    scenarios, families = open_all(data), splits()["yahpo"]["families"]
    return [(scenarios[f], i) for f, parts in families.items() for i in parts["train"]]


def held_out(data: Path) -> list[tuple[Scenario, str]]:
    """Return (scenario, instance) of seen families on data sets that are never trained on."""
    scenarios, families = open_all(data), splits()["yahpo"]["families"]
    return [(scenarios[f], i) for f, parts in families.items() for i in parts["held_out"]]
