"""Real trainings on generated data sets.

Random configurations of a learner's full space are trained on each data set, and all metrics are
kept. A surrogate fitted to them (`problems.ForestSurrogate`) then predicts for any part of the full
space. No published data set is used, so none can leak into a comparison.
"""

from __future__ import annotations

import json
import multiprocessing
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from .learners import LEARNERS, Array, Learner, Split
from .networks import NETWORKS

FOLDS = 3
"""Folds of the trainings of a design: one split of a small table hides small differences."""

LOWER_IS_BETTER = frozenset({"logloss", "error", "rmse", "mae"})


def make_data(kind: str, rng: np.random.Generator) -> tuple[Split, str]:
    """Return a random data set of a kind (binary, multiclass, regression), and its description."""
    rows, features = round(float(np.exp(rng.uniform(5.0, 7.6)))), int(rng.integers(5, 30))
    grown = rng.uniform() < 0.6
    classes = {"regression": 0, "binary": 2, "multiclass": int(rng.integers(3, 7))}[kind]
    if not classes:
        x, y = _grown(rows, features, rng) if grown else _regression(rows, features, rng)
        text = f"regression, {rows} rows, {x.shape[1]} numeric features"
    else:
        if grown:
            x, value = _grown(rows, features, rng)
            y = _labels(value, classes, rng)
        else:
            x, y = _classification(rows, features, classes, rng)
        if classes == 2 and np.mean(y) > 0.5:
            y = 1 - y  # F1 is that of class 1, which should be the rarer one
        shares = "/".join(str(round(100 * float(np.mean(y == c)))) for c in range(classes))
        text = f"{rows} rows, {x.shape[1]} numeric features, {classes} classes ({shares})"
    rows_train = int(0.7 * len(y))
    order = rng.permutation(len(y))
    x, y = x[order], y[order]
    mean, spread = x[:rows_train].mean(0), x[:rows_train].std(0) + 1e-9
    x = (x - mean) / spread
    if not classes:
        y = (y - y[:rows_train].mean()) / (y[:rows_train].std() + 1e-9)
    return Split(x[:rows_train], y[:rows_train], x[rows_train:], y[rows_train:], classes), text


def _grown(rows: int, features: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return correlated features, some coarse or skewed, and a value with a known share of noise.

    The value mixes a linear part, steps (a few random trees) and a smooth part (a random network)
    over a few of the features, like real tables. Between 15 and 99 percent of its variance can be
    explained; where little can be, strong regularization is best.
    """
    mixing = rng.normal(size=(features, features)) * rng.uniform(0.0, 0.8) + np.eye(features)
    x = rng.normal(size=(rows, features)) @ mixing
    for i in range(features):
        form = rng.uniform()
        if form < 0.25:
            x[:, i] = np.round(x[:, i] * rng.uniform(0.5, 3.0))
        elif form < 0.4:
            x[:, i] = np.exp(x[:, i] / (x[:, i].std() + 1e-9))
    z = (x - x.mean(0)) / (x.std(0) + 1e-9)
    useful = rng.permutation(features)[: int(rng.integers(2, max(3, features // 2) + 1))]
    parts = [z[:, useful] @ rng.normal(size=len(useful)), _steps(z, useful, rng),
             np.tanh(z[:, useful] @ rng.normal(size=(len(useful), 8)) + rng.normal(size=8))
             @ rng.normal(size=8)]  # fmt: skip
    shares = rng.dirichlet([0.5, 0.7, 0.7])
    value = sum(s * (p - p.mean()) / (p.std() + 1e-9) for s, p in zip(shares, parts, strict=True))
    value = value / (value.std() + 1e-9)
    explained = float(rng.uniform(0.15, 0.99))
    noise = rng.normal(size=rows) if rng.uniform() < 0.7 else rng.standard_t(4, rows)
    return x, np.sqrt(explained) * value + np.sqrt(1.0 - explained) * noise / noise.std()


def _steps(z: Array, useful: Array, rng: np.random.Generator) -> Array:
    """Return the sum of a few random trees of depth 3."""
    out = np.zeros(len(z))
    for _ in range(6):
        leaf = np.zeros(len(z), dtype=int)
        for _ in range(3):
            leaf = 2 * leaf + (z[:, rng.choice(useful)] > rng.normal(0.0, 0.7))
        out += rng.normal(size=8)[leaf]
    return out


def _labels(value: Array, classes: int, rng: np.random.Generator) -> Array:
    """Return classes: bands of the value, balanced or not; each holds a few rows at least."""
    shares = rng.dirichlet([float(rng.choice([2.0, 20.0]))] * classes) * 0.9 + 0.1 / classes
    return np.searchsorted(np.quantile(value, np.cumsum(shares)[:-1]), value)


def _regression(rows: int, features: int, rng: np.random.Generator) -> tuple[Array, Array]:
    from sklearn import datasets

    seed = int(rng.integers(2**31))
    noise = float(rng.choice([0.0, 0.5, 2.0, 5.0]))
    form = int(rng.integers(5))
    if form == 0:
        return datasets.make_friedman1(rows, max(features, 5), noise=noise, random_state=seed)
    if form == 1:
        return datasets.make_friedman2(rows, noise=50 * noise, random_state=seed)
    if form == 2:
        return datasets.make_friedman3(rows, noise=0.1 * noise, random_state=seed)
    if form == 3:
        return datasets.make_sparse_uncorrelated(rows, max(features, 5), random_state=seed)
    x, y = datasets.make_regression(
        rows, features, n_informative=max(2, features // 3), noise=20 * noise, random_state=seed
    )
    # Nonlinear with an interaction, so that trees and networks have an advantage.
    return x, np.sinh(y / y.std()) + x[:, 0] * np.abs(x[:, 1])


def _classification(
    rows: int, features: int, classes: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    from sklearn import datasets

    informative = max(4, int(features * rng.uniform(0.2, 0.8)))
    minority = float(rng.choice([0.5, 0.4, 0.25, 0.1]))
    return datasets.make_classification(
        rows, features, n_informative=informative, n_redundant=(features - informative) // 2,
        n_classes=classes, n_clusters_per_class=1 + int(rng.integers(2)),
        weights=[1.0 - minority] if classes == 2 else None,
        flip_y=float(rng.choice([0.0, 0.02, 0.1, 0.25])),
        class_sep=float(rng.uniform(0.5, 1.8)), random_state=int(rng.integers(2**31)),
    )  # fmt: skip


def measure(predicted: Array, data: Split) -> dict[str, float]:
    """Return every metric of one training."""
    from sklearn import metrics

    y = data.y_valid
    if not data.classes:
        error = np.clip(predicted, -1e3, 1e3) - y
        mse = float(np.mean(error**2))
        return {
            "rmse": mse**0.5,
            "mae": float(np.mean(np.abs(error))),
            "r2": 1.0 - mse / float(np.var(y)),
        }
    shares = np.clip(predicted, 1e-6, 1.0)
    shares = shares / shares.sum(1, keepdims=True)
    label = shares.argmax(1)
    # F1 of two classes and macro F1 have other optima, so they have other names.
    f1, average = ("f1", "binary") if data.classes == 2 else ("f1_macro", "macro")
    out = {
        "accuracy": float(np.mean(label == y)),
        "balanced_accuracy": float(metrics.balanced_accuracy_score(y, label)),
        f1: float(metrics.f1_score(y, label, average=average)),
        "logloss": float(-np.mean(np.log(shares[np.arange(len(y)), y]))),
        "error": float(np.mean(label != y)),
    }
    if data.classes == 2 and len(set(y)) == 2:
        out["auc"] = float(metrics.roc_auc_score(y, shares[:, 1]))
    return out


def draw(learner: Learner, rng: np.random.Generator) -> dict[str, Any]:
    """Return a random configuration of the full space; inactive values are drawn too."""
    return {dim.name: dim.draw(rng) for dim in learner.dims}


def evaluate(learner: Learner, config: dict[str, Any], data: Split, seed: int) -> dict[str, float]:
    """Train once and return its metrics; empty where the training failed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            predicted = learner.fit(config, data, seed)
        except ValueError:
            return {}
        measured = learner.measure or measure
        return measured(predicted, data) if np.all(np.isfinite(predicted)) else {}


def run(learner: Learner, kind: str, seed: int, evaluations: int, limit_s: float) -> dict[str, Any]:
    """Train random configurations on one new data set, for at most `limit_s` seconds."""
    rng = np.random.default_rng(seed)
    data, text = make_data(kind, rng)
    configs, scores = [], []
    end = time.monotonic() + limit_s
    while len(configs) < evaluations and time.monotonic() < end:
        configs.append(draw(learner, rng))
        scores.append(evaluate(learner, configs[-1], data, seed))
    return {
        "learner": learner.name, "kind": kind, "seed": seed, "text": text,
        "configs": configs, "scores": scores,
    }  # fmt: skip


def run_design(
    learner: Learner, kind: str, seed: int, configs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Train configurations on the data set of a seed; metrics are means over its splits.

    A table is split into `FOLDS` folds; other data have one split.
    """
    data, _ = data_set(learner, kind, seed)
    parts = [data] if learner.make else _folds(data, seed)
    scores = []
    for config in configs:
        rows = [evaluate(learner, dict(config), part, seed) for part in parts]
        scores.append({m: fmean(row[m] for row in rows) for m in rows[0]} if all(rows) else {})
    return {"learner": learner.name, "kind": kind, "seed": seed, "scores": scores}


def data_set(learner: Learner, kind: str, seed: int) -> tuple[Any, str]:
    """Return the data set of a seed, and its description."""
    return (learner.make or make_data)(kind, np.random.default_rng(seed))


def design_path(folder: Path, learner: Learner, kind: str) -> Path:
    """Return the file of the trainings of a design (`designs.Design`)."""
    return folder / f"design-{learner.name}-{kind}.json"


def read_network_records(folder: Path) -> list[dict[str, Any]]:
    """Return the trainings of the designs of networks, in the format of `run`."""
    records = []
    for learner in NETWORKS:
        (kind,) = learner.tasks
        path = design_path(folder, learner, kind)
        kept = json.loads(path.read_text()) if path.exists() else {"scores": {}}
        for seed, scores in kept["scores"].items():
            _, text = data_set(learner, kind, int(seed))
            records.append({
                "learner": learner.name, "kind": kind, "seed": int(seed), "text": text,
                "configs": kept["configs"][: len(scores)], "scores": scores,
            })  # fmt: skip
    return records


def _folds(whole: Split, seed: int) -> list[Split]:
    x = np.concatenate([whole.x, whole.x_valid])
    y = np.concatenate([whole.y, whole.y_valid])
    fold = np.random.default_rng(seed).permutation(len(y)) % FOLDS
    return [
        Split(x[fold != k], y[fold != k], x[fold == k], y[fold == k], whole.classes)
        for k in range(FOLDS)
    ]


def plan(data_sets: int) -> Iterator[tuple[Learner, str, int]]:
    """Yield (learner, kind of data, seed): the learners in turn, by their shares."""
    due = {learner.name: 0.0 for learner in LEARNERS}
    count = 0
    while count < data_sets:
        for learner in LEARNERS:
            due[learner.name] += learner.share
            while due[learner.name] >= 1.0 and count < data_sets:
                due[learner.name] -= 1.0
                kind = learner.tasks[count % len(learner.tasks)]
                yield learner, kind, learner.first_seed + count
                count += 1


def main(
    target: Path, data_sets: int, evaluations: int, *, jobs: int = 1, limit_s: float = 60.0
) -> None:
    """Write one JSON line per data set to `target`; continue where an earlier run stopped."""
    target.parent.mkdir(parents=True, exist_ok=True)
    done = {record["seed"] for record in load(target)} if target.exists() else set()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = [
            pool.submit(run, learner, kind, seed, evaluations, limit_s)
            for learner, kind, seed in plan(data_sets)
            if seed not in done
        ]
        for ended in as_completed(runs):
            record = ended.result()
            with target.open("a") as out:
                # Starts with a line break, in case a kill left an incomplete line.
                out.write(f"\n{json.dumps(record)}\n")
            print(record["seed"], record["learner"], record["kind"], len(record["configs"]),
                  flush=True)  # fmt: skip


def load(path: Path) -> list[dict[str, Any]]:
    """Return the records of `path`; incomplete lines, which a kill may leave, are ignored."""
    records = []
    for line in path.read_text().split("\n"):
        try:
            records.append(json.loads(line))
        except ValueError:
            continue  # empty or incomplete
    return records
