"""Problems: a space as a user writes it, its description, and the utility of configurations.

A problem has several data sets, its own and peers of the same kind. Before any trial, the best
configuration is the one that is good on all of them, not the one that is best on one.

Four sources: YAHPO's surrogates, surrogates of real trainings (`trainings`, `designs`), tables of
TaskSet, and functions made up over known names (`functions.py`). The best known configurations
that others published have no function behind them: `published.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localhpo.objective import Direction
from localhpo.space import Space
from scripts.benchmarks.problems import yahpo

from . import functions, spaces, trainings
from .learners import LEARNERS, Array, Dim, Learner
from .networks import NETWORKS

Utilities = Callable[[Sequence[Mapping[str, Any]]], Array]
"""Configurations -> (data sets, configurations): higher is better, NaN where unknown.

The first data set is the problem's own, the others are its peers."""

PEERS = 9
"""Largest number of peers."""

METRIC_NAMES: Mapping[str, tuple[str, ...]] = {
    "accuracy": ("accuracy", "val_accuracy", "acc", "val_acc", "valid_accuracy", "test_acc"),
    "balanced_accuracy": ("balanced_accuracy", "val_bac", "bac", "val_balanced_accuracy"),
    "f1": ("f1", "val_f1", "f1_score"),
    "f1_macro": ("f1_macro", "val_f1_macro", "macro_f1"),
    "auc": ("auc", "val_auc", "roc_auc"),
    "logloss": ("logloss", "val_logloss", "val_loss", "loss", "cross_entropy", "val_cross_entropy"),
    "error": ("error", "val_error", "error_rate", "mmce"),
    "brier": ("brier", "brier_score"),
    "rmse": ("rmse", "val_rmse", "test_rmse", "loss", "val_loss"),
    "mae": ("mae", "val_mae"),
    "r2": ("r2", "val_r2", "r2_score"),
    "ndcg10": ("ndcg10", "val_ndcg10", "ndcg", "val_ndcg", "ndcg_at_10"),
    "recall10": ("recall10", "val_recall10", "recall", "val_recall", "recall_at_10"),
    "loss": ("loss", "val_loss", "valid_loss", "objective", "score"),
}
_YAHPO_NAMES = {
    "acc": "accuracy", "bac": "balanced_accuracy", "mmce": "error", "val_accuracy": "accuracy",
    "val_cross_entropy": "logloss", "val_balanced_accuracy": "balanced_accuracy",
}  # fmt: skip


@dataclass(frozen=True)
class SampledProblem:
    """A problem that questions are made of."""

    space: Space
    utilities: Utilities
    name: str
    background: str
    metric: str
    direction: Direction
    fixed: Mapping[str, Any]
    """Fixed values that the user mentions."""
    source: str
    """Family and data set, for the record."""


class ForestSurrogate:
    """A forest of random trees over the evaluated configurations of one full space."""

    def __init__(self, dims: Sequence[Dim], configs: Sequence[Mapping[str, Any]], y: Array) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        # Bounded, so that one diverged training does not hide all other differences.
        low, high = np.quantile(y, [0.1, 1.0])
        y = np.maximum(y, low - (high - low))
        self._model = ExtraTreesRegressor(
            60, min_samples_leaf=2, max_features=0.7, n_jobs=1, random_state=0
        )
        self._model.fit(encode(dims, configs), y)

    def predict(self, x: Array) -> Array:
        """Return the predicted utilities of encoded configurations."""
        return np.asarray(self._model.predict(x))


def encode(dims: Sequence[Dim], configs: Sequence[Mapping[str, Any]]) -> Array:
    """Return the inputs of a surrogate: (configurations, columns)."""
    columns = []
    for dim in dims:
        if dim.values:
            columns += [[float(c.get(dim.name) == v) for c in configs] for v in dim.values]
            continue
        raw = np.array([c.get(dim.name, dim.low) for c in configs], dtype=float)
        columns.append(np.log(np.maximum(raw, dim.low)) if dim.log else raw)
    return np.array(columns).T


_SURROGATES: dict[str, ForestSurrogate] = {}


def _fitted(key: str, fit: Callable[[], ForestSurrogate]) -> ForestSurrogate:
    """Return a surrogate, fitted once in this process."""
    if key not in _SURROGATES:
        _SURROGATES[key] = fit()
    return _SURROGATES[key]


def active(dims: Sequence[Dim], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without those whose condition is not met."""
    return {
        dim.name: values[dim.name]
        for dim in dims
        if dim.when is None or values.get(dim.when[0]) in dim.when[1]
    }


def make_user_problem(
    dims: Sequence[Dim], utilities: Utilities, rng: np.random.Generator, **words: Any
) -> SampledProblem | None:
    """Return a problem over a random cut of a full space; None where too little is tuned."""
    drawn = [{dim.name: dim.draw(rng) for dim in dims} for _ in range(24)]
    own = utilities([active(dims, c) for c in drawn])[0]
    order = np.argsort(np.nan_to_num(own, nan=-np.inf))
    piece = spaces.cut(dims, drawn[order[-1 - int(rng.integers(4))]], rng)
    if piece is None:
        return None
    matters = Space([p for p in piece.space.parameters if p.name in piece.sources])
    if matters.cardinality < 8:
        return None

    if piece.has_made_up_names:
        name = spaces.make_up_name(rng)
        words |= {"name": name, "background": str(rng.choice(["", f"Tune {name}."]))}

    def of_user(configs: Sequence[Mapping[str, Any]]) -> Array:
        return utilities([active(dims, piece.full(c)) for c in configs])

    return SampledProblem(space=piece.space, utilities=of_user, fixed=piece.described, **words)


def choose_peers(others: Sequence[Any], own: Any, rng: np.random.Generator) -> list[Any]:
    """Return `own` and up to `PEERS` of the others."""
    rest = [other for other in others if other != own]
    return [own, *[rest[i] for i in rng.permutation(len(rest))[:PEERS]]]


def describe(
    target: str, lower: bool, title: str, text: str, family: str, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the description that a user gives: name, background, metric and direction."""
    target = _YAHPO_NAMES.get(target, target)
    pieces = [title, f"{title} on {text}." if text else f"{title}.", ""]
    if text:
        pieces.append(f"Tune {family} on {text}.")
    return {
        "name": str(rng.choice([family, f"{family}-{int(rng.integers(100))}", "study", "tune"])),
        "background": str(rng.choice(pieces)),
        "metric": str(rng.choice(METRIC_NAMES[target])),
        "direction": "minimize" if lower else "maximize",
    }


def from_yahpo(
    scenario: yahpo.Scenario, instances: Sequence[str], rng: np.random.Generator
) -> SampledProblem | None:
    """Return a problem on one of the data sets of one family; the others are its peers."""
    target = str(rng.choice(scenario.targets))
    column, lower = scenario.targets.index(target), yahpo.lower_is_better(target)
    chosen = choose_peers(instances, instances[int(rng.integers(len(instances)))], rng)

    def utilities(configs: Sequence[Mapping[str, Any]]) -> Array:
        y = scenario.evaluate_each(chosen, configs)[:, :, column]
        return -y if lower else y

    title = yahpo.TITLES[scenario.name]
    description = describe(target, lower, title, "a table", title.split()[-1].lower(), rng)
    return make_user_problem(
        scenario.dims, utilities, rng, source=f"{scenario.name}/{chosen[0]}/{target}", **description
    )


def from_training(
    records: Sequence[Mapping[str, Any]], number: int, rng: np.random.Generator
) -> SampledProblem | None:
    """Return a problem on one of the generated data sets; its peers are those of its kind."""
    own = records[number]
    learner = next(item for item in (*LEARNERS, *NETWORKS) if item.name == own["learner"])
    target = str(rng.choice(list(next(s for s in own["scores"] if s))))
    lower = target in trainings.LOWER_IS_BETTER
    dims = dims_of(learner, own)
    alike = [
        r
        for r in records
        if (r["learner"], r["kind"]) == (own["learner"], own["kind"])
        and any(target in scores for scores in r["scores"])  # F1 is of two classes alone
    ]
    fitted = [surrogate(record, dims, target, lower) for record in choose_peers(alike, own, rng)]

    def utilities(configs: Sequence[Mapping[str, Any]]) -> Array:
        x = encode(dims, configs)
        return np.array([one.predict(x) for one in fitted])

    description = describe(
        target, lower, learner.title, own["text"], learner.name.replace("_", "-"), rng
    )
    return make_user_problem(
        dims, utilities, rng, source=f"{learner.name}/{own['seed']}/{target}", **description
    )


def dims_of(learner: Learner, record: Mapping[str, Any]) -> tuple[Dim, ...]:
    """Return the dimensions of a learner on one kind of data; only two classes have weights."""
    two = record["kind"] == "binary"
    return tuple(dim for dim in learner.dims if two or dim.name != "scale_pos_weight")


def surrogate(
    record: Mapping[str, Any], dims: Sequence[Dim], target: str, lower: bool
) -> ForestSurrogate:
    """Return a surrogate of a metric on one data set, fitted on real trainings."""

    def fit() -> ForestSurrogate:
        good = [(c, s) for c, s in zip(record["configs"], record["scores"], strict=True) if s]
        y = np.array([s.get(target, np.nan) for _, s in good])
        y = np.nan_to_num(-y if lower else y, nan=np.nanmin(-y if lower else y))
        return ForestSurrogate(dims, [active(dims, c) for c, _ in good], y)

    return _fitted(f"{record['learner']}/{record['seed']}/{target}", fit)


TASKSET_DIMS = (
    Dim("learning_rate", 1e-8, 10.0, log=True),
    Dim("beta1", 1e-3, 0.9999),
    Dim("beta2", 1e-3, 0.999999),
    Dim("epsilon", 1e-10, 1e3, log=True),
    Dim("l1", 1e-8, 10.0, log=True),
    Dim("l2", 1e-8, 10.0, log=True),
    Dim("linear_decay", 1e-7, 1e-4, log=True),
    Dim("exponential_decay", 1e-6, 1e-3, log=True),
)


def from_taskset(
    paths: Sequence[Path], number: int, rng: np.random.Generator
) -> SampledProblem | None:
    """Return a problem on one table of TaskSet: Adam with eight hyperparameters."""

    def fit(path: Path) -> ForestSurrogate:
        table = np.load(path)
        names = [dim.name for dim in TASKSET_DIMS]
        configs = [dict(zip(names, map(float, row), strict=True)) for row in table["hp"]]
        loss = np.nan_to_num(table["valid_loss"][:, -1], nan=1e9)
        return ForestSurrogate(TASKSET_DIMS, configs, -np.minimum(loss, np.quantile(loss, 0.7)))

    own = paths[number]
    fitted = [_fitted(p.stem, lambda p=p: fit(p)) for p in choose_peers(paths, own, rng)]

    def utilities(configs: Sequence[Mapping[str, Any]]) -> Array:
        x = encode(TASKSET_DIMS, configs)
        return np.array([surrogate.predict(x) for surrogate in fitted])

    description = describe("loss", True, "A recurrent network on text, Adam", "IMDB", "rnn", rng)
    return make_user_problem(
        TASKSET_DIMS, utilities, rng, source=f"taskset/{own.stem}", **description
    )


def from_function(rng: np.random.Generator) -> SampledProblem:
    """Return a synthetic function over real hyperparameter names."""
    space, utilities, title = functions.make(rng, 1 + PEERS)
    lower = bool(rng.uniform() < 0.5)
    target = "loss" if lower else "accuracy"
    description = describe(target, lower, title, "", title.split()[-1].lower(), rng)
    return SampledProblem(
        space=space, utilities=utilities, fixed={}, source=f"function/{title}", **description
    )
