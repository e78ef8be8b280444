"""Search spaces as users write them, cut out of a full space.

A cut keeps some dimensions and fixes the others, renames them, narrows ranges to round bounds, may
turn a log range into a linear one (from 0, where 0 means "off") or into a list, and shuffles the
order. It can map a configuration of the user's space to the full space, where it is evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from localhpo.space import Categorical, Float, Int, Ordinal, Parameter, Space

from .learners import Dim

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    # gradient boosting
    "learning_rate": ("learning_rate", "lr", "learning_rate", "eta"),
    "eta": ("learning_rate", "eta", "lr"),
    "nrounds": ("n_estimators", "nrounds", "num_boost_round", "n_rounds", "num_trees"),
    "n_estimators": ("n_estimators", "n_estimators", "num_boost_round", "nrounds", "num_trees"),
    "max_iter": ("max_iter", "n_estimators", "num_iterations"),
    "max_depth": ("max_depth", "max_depth", "depth", "tree_depth"),
    "maxdepth": ("max_depth", "maxdepth", "depth"),
    "min_child_weight": ("min_child_weight", "min_child_weight", "min_sum_hessian"),
    "subsample": ("subsample", "subsample", "bagging_fraction", "row_sample"),
    "colsample_bytree": ("colsample_bytree", "colsample_bytree", "feature_fraction"),
    "colsample_bylevel": ("colsample_bylevel", "colsample_bylevel", "colsample_bynode"),
    "gamma": ("gamma", "gamma", "min_split_loss"),
    "lambda": ("reg_lambda", "lambda", "l2", "lambda_l2"),
    "reg_lambda": ("reg_lambda", "reg_lambda", "lambda", "lambda_l2"),
    "reg_alpha": ("reg_alpha", "reg_alpha", "alpha", "lambda_l1"),
    "scale_pos_weight": ("scale_pos_weight", "scale_pos_weight", "pos_weight"),
    "l2_regularization": ("l2_regularization", "reg_lambda", "l2"),
    "max_leaf_nodes": ("max_leaf_nodes", "num_leaves", "max_leaves"),
    # trees and forests
    "num.trees": ("n_estimators", "num_trees", "ntree"),
    "min.node.size": ("min_samples_leaf", "min_node_size", "min_samples_leaf"),
    "min_samples_leaf": ("min_samples_leaf", "min_samples_leaf", "min_data_in_leaf"),
    "minbucket": ("min_samples_leaf", "minbucket"),
    "minsplit": ("min_samples_split", "minsplit"),
    "mtry.ratio": ("max_features", "mtry_ratio", "feature_fraction"),
    "mtry.power": ("mtry_power", "max_features_power"),
    "sample.fraction": ("max_samples", "sample_fraction"),
    "replace": ("bootstrap", "replace"),
    "respect.unordered.factors": ("respect_unordered_factors", "unordered_factors"),
    "num.random.splits": ("num_random_splits", "n_random_splits"),
    "cp": ("ccp_alpha", "cp", "complexity"),
    "num.impute.selected.cpo": ("imputer", "impute", "imputation"),
    # networks
    "batch_size": ("batch_size", "batch_size", "bs"),
    "max_dropout": ("dropout", "max_dropout", "dropout_rate"),
    "dropout": ("dropout", "dropout", "dropout_rate", "p_drop"),
    "max_units": ("hidden_size", "max_units", "hidden_dim", "n_units"),
    "hidden_size": ("hidden_size", "hidden_dim", "hidden_units", "hidden_channels", "width"),
    "num_layers": ("num_layers", "n_layers", "depth"),
    "epochs": ("epochs", "n_epochs", "max_epochs"),
    "weight_decay": ("weight_decay", "weight_decay", "wd", "l2"),
    "momentum": ("momentum", "momentum", "sgd_momentum"),
    "optimizer": ("optimizer", "optimizer", "opt"),
    "embedding_size": ("embedding_size", "embedding_dim", "embed_dim"),
    "reg_weight": ("reg_weight", "weight_decay", "l2"),
    "dropout_prob": ("dropout_prob", "dropout", "dropout_rate"),
    "mlp_hidden_size": ("mlp_hidden_size", "hidden_size", "hidden_dim"),
    "num_mlp_layers": ("num_mlp_layers", "num_layers", "n_layers"),
    "d_model": ("d_model", "hidden_size", "embed_dim"),
    "warmup_ratio": ("warmup_ratio", "warmup"),
    "beta1": ("beta1", "adam_beta1", "beta_1"),
    "beta2": ("beta2", "adam_beta2", "beta_2"),
    "epsilon": ("epsilon", "eps", "adam_epsilon"),
    # the rest
    "alpha": ("alpha", "alpha", "reg_alpha"),
    "s": ("lambda", "reg_lambda", "s"),
    "l1_ratio": ("l1_ratio", "l1_ratio", "alpha_mix"),
    "k": ("n_neighbors", "k"),
    "n_neighbors": ("n_neighbors", "n_neighbors", "k"),
    "M": ("M", "hnsw_m"),
    "ef": ("ef", "ef_search"),
    "distance": ("metric", "distance"),
}
"""Names that users give a dimension; the first ones are the most common."""

SPELLINGS: Mapping[str, str] = {
    "impute.mean": "mean", "impute.median": "median", "impute.hist": "hist",
    "true": "true", "false": "false", "TRUE": "true", "FALSE": "false",
}  # fmt: skip

OWN_WORDS = 0.5
"""Share of cuts that keep the names and spellings of the source."""

WHOLE = 0.4
"""Share of these that keep its bounds as well."""

MADE_UP = 0.1
"""Share of cuts whose names are made up."""

ALL_DESCRIBED, NONE_DESCRIBED = 0.65, 0.2
"""Shares of cuts whose user mentions all fixed values, and none."""

IDLE: Sequence[Parameter] = (
    Int("num_workers", 0, 8), Int("seed", 0, 99), Int("log_every", 10, 200), Int("n_jobs", 1, 8),
    Int("eval_every", 1, 20), Int("prefetch", 1, 8), Categorical("pin_memory", (True, False)),
    Categorical("verbose", (0, 1, 2)),
)  # fmt: skip
"""Parameters without effect that users put into spaces."""

WITH_IDLE = 0.08
"""Share of cuts, of those that do not keep the bounds of the source, that have one of these."""

CAN_BE_OFF = frozenset(
    {"lambda", "alpha", "reg_alpha", "reg_lambda", "gamma", "l2_regularization", "cp",
     "weight_decay", "reg_weight", "s", "l1", "l2"}
)  # fmt: skip
"""Dimensions where a log range is often written as a linear one from 0."""


@dataclass(frozen=True)
class UserSpace:
    """A user's space, and its mapping to the full space."""

    space: Space
    sources: Mapping[str, str]
    """User's name -> name of the dimension; parameters without effect are left out."""
    fixed: Mapping[str, Any]
    """Values of the dimensions that the user does not tune."""
    spellings: Mapping[str, Mapping[Any, str]]
    """User's name -> user's value of a choice -> value in the full space."""
    floors: Mapping[str, float]
    """Dimension -> smallest value that the full space allows."""
    described: Mapping[str, Any]
    """The fixed values that the user mentions, by the user's names."""
    has_made_up_names: bool = False
    """Whether the names are made up, and have no meaning."""

    def full(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration in the full space, without inactive parameters."""
        out = dict(self.fixed)
        for name, value in config.items():
            source = self.sources.get(name)
            if source is None:
                continue  # a parameter without effect
            value = self.spellings.get(name, {}).get(value, value)
            floor = self.floors.get(source)
            out[source] = value if floor is None else max(floor, value)
        return out


def cut(
    dims: Sequence[Dim], fixed: Mapping[str, Any], rng: np.random.Generator
) -> UserSpace | None:
    """Return a random space, as users write them; None where nothing is left to tune.

    Args:
        dims: the full space.
        fixed: a value for every dimension, taken where it is not tuned.
        rng: the source of every choice.
    """
    manner = rng.uniform()
    own_words, made_up = manner < OWN_WORDS, manner > 1.0 - MADE_UP
    whole = manner < OWN_WORDS * WHOLE
    kept = _choose(dims, rng)
    every = [*kept, *(dim for dim in dims if dim not in kept)]
    if own_words:
        every_name = {dim.name: dim.name for dim in dims}
    else:
        every_name = _make_up_names(every, rng) if made_up else _names(every, rng)
    names = {dim.name: every_name[dim.name] for dim in kept}
    parameters: list[Parameter] = []
    spellings: dict[str, dict[Any, str]] = {}
    for dim in kept:
        when = _when(dim, names, parameters, spellings, fixed)
        if when is None:
            continue
        if whole or (own_words and dim.values):
            parameter, spelling = dim.parameter(when), {}
        else:
            parameter, spelling = _parameter(dim, names[dim.name], when, rng)
        parameters.append(parameter)
        if spelling:
            spellings[parameter.name] = spelling
    tuned = {names[dim.name]: dim.name for dim in kept}
    tuned = {p.name: tuned[p.name] for p in parameters}
    rest = {k: v for k, v in fixed.items() if k not in tuned.values()}
    floors = {dim.name: dim.low for dim in dims if not dim.values}
    if not parameters:
        return None
    if not whole and rng.uniform() < WITH_IDLE:
        idle = IDLE[rng.integers(len(IDLE))]
        if all(p.name != idle.name for p in parameters):
            parameters.append(idle)
    described = {
        every_name[name]: value if own_words else _usual(value) for name, value in rest.items()
        if any(dim.name == name and _can_matter(dim, tuned.values(), rest) for dim in dims)
    }  # fmt: skip
    return UserSpace(
        Space(parameters),
        tuned,
        rest,
        spellings,
        floors,
        _choose_described(described, rng),
        made_up,
    )


def _when(
    dim: Dim, names: Mapping[str, str], parameters: Sequence[Parameter],
    spellings: Mapping[str, Mapping[Any, str]], fixed: Mapping[str, Any],
) -> dict[str, tuple[Any, ...]] | None:  # fmt: skip
    """Return the condition of a dimension in the user's space; None where it never holds."""
    if dim.when is None:
        return {}
    if dim.when[0] not in names:
        return {} if fixed.get(dim.when[0]) in dim.when[1] else None
    parent = names[dim.when[0]]
    back = {v: k for k, v in spellings.get(parent, {}).items()}
    values = next(p for p in parameters if p.name == parent).values
    active = tuple(back.get(v, v) for v in dim.when[1] if back.get(v, v) in values)
    if not active:
        return None
    return {parent: active} if len(active) < len(values) else {}


def _usual(value: Any) -> Any:
    """Return a value of a full space as a user would write it."""
    word = SPELLINGS.get(value, value) if isinstance(value, str) else value
    return word == "true" if word in ("true", "false") else word


def _can_matter(dim: Dim, tuned: Collection[str], fixed: Mapping[str, Any]) -> bool:
    """Return whether a dimension's condition holds, or may hold."""
    if dim.when is None or dim.when[0] in tuned:
        return True
    return fixed.get(dim.when[0]) in dim.when[1]


def _choose_described(fixed: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return the fixed values that a user mentions: mostly all, sometimes a part, or none."""
    manner = rng.uniform()
    share = (
        1.0 if manner > 1.0 - ALL_DESCRIBED else 0.0 if manner < NONE_DESCRIBED else rng.uniform()
    )
    return {name: value for name, value in fixed.items() if rng.uniform() < share}


def _choose(dims: Sequence[Dim], rng: np.random.Generator) -> list[Dim]:
    """Return the dimensions that are tuned, shuffled, parents before their children."""
    count = len(dims)
    if count > 2 and rng.uniform() < 0.6:
        count = int(rng.integers(2, min(count, 12) + 1))
    order = [dims[i] for i in rng.permutation(len(dims))[:count]]
    if rng.uniform() < 0.4:
        order.sort(key=list(dims).index)
    parents = [dim for dim in order if any(o.when and o.when[0] == dim.name for o in order)]
    return parents + [dim for dim in order if dim not in parents]


def _names(dims: Sequence[Dim], rng: np.random.Generator) -> dict[str, str]:
    """Return a name for each dimension; no name twice."""
    out: dict[str, str] = {}
    for dim in dims:
        options = SYNONYMS.get(dim.name, (dim.name.replace(".", "_"),))
        # Half of all users take the common name.
        name = options[0] if rng.uniform() < 0.5 else str(rng.choice(options))
        out[dim.name] = dim.name.replace(".", "_") if name in out.values() else name
    if len(set(out.values())) < len(out):
        return {dim.name: dim.name.replace(".", "_") for dim in dims}
    return out


def make_up_name(rng: np.random.Generator) -> str:
    """Return a made-up word."""
    letters = ["bcdfghjklmnpqrstvwxz", "aeiou"] * int(rng.integers(1, 4))
    return "".join(str(rng.choice(list(kind))) for kind in letters)


def _make_up_names(dims: Sequence[Dim], rng: np.random.Generator) -> dict[str, str]:
    """Return made-up names, so that the model learns what to do with unknown ones."""
    made = dict.fromkeys(make_up_name(rng) + rng.choice(["", "_x", "2"]) for _ in range(99))
    return dict(zip((dim.name for dim in dims), made, strict=False))


def _parameter(
    dim: Dim, name: str, when: Mapping[str, tuple[Any, ...]], rng: np.random.Generator
) -> tuple[Parameter, dict[Any, str]]:
    """Return one parameter as a user writes it, and how its choices are spelled in full."""
    if dim.values:
        return _categorical(dim, name, when, rng)
    log = dim.log
    points = round_points(dim, log=log, rng=rng)
    if log and rng.uniform() < (0.5 if dim.name in CAN_BE_OFF else 0.15):
        log, points = False, _linear_points(dim, points, rng)
    low, high = _bounds(points, rng, log=log)
    if rng.uniform() < 0.1:
        inside = [p for p in points if low <= p <= high]
        count = min(len(inside), int(rng.integers(3, 7)))
        values = [inside[i] for i in np.linspace(0, len(inside) - 1, count).astype(int)]
        if len(set(values)) >= 2:
            return Ordinal(name, values=tuple(dict.fromkeys(values)), when=when), {}
    default = _inside(points, low, high, rng) if rng.uniform() < 0.12 else None
    if not dim.integer:
        return Float(name, low=low, high=high, log=log, default=default, when=when), {}
    steps = [s for s in (5, 10, 50, 100) if (high - low) % s == 0 and high - low >= 4 * s]
    if steps and not log and rng.uniform() < 0.15:
        return Int(name, low=low, high=high, step=int(rng.choice(steps)), when=when), {}
    return Int(name, low=low, high=high, log=log, default=default, when=when), {}


def _inside(points: Sequence[float], low: float, high: float, rng: np.random.Generator) -> Any:
    """Return one of the points between the bounds."""
    return rng.choice([p for p in points if low <= p <= high]).item()


def _categorical(
    dim: Dim, name: str, when: Mapping[str, tuple[Any, ...]], rng: np.random.Generator
) -> tuple[Parameter, dict[Any, str]]:
    count = len(dim.values)
    if count > 2 and rng.uniform() < 0.3:
        count = int(rng.integers(2, count))
    chosen = [dim.values[i] for i in rng.permutation(len(dim.values))[:count]]
    spelling: dict[Any, str] = {SPELLINGS.get(v, v): v for v in chosen}
    if set(spelling) == {"true", "false"}:
        spelling = {key == "true": value for key, value in spelling.items()}
    return Categorical(name, values=tuple(spelling), when=when), spelling


def round_points(dim: Dim, *, log: bool, rng: np.random.Generator) -> list[float]:
    """Return the round values of a range, in order: what a user would write as a bound."""
    if log:
        exponents = range(math.floor(math.log10(dim.low)), math.ceil(math.log10(dim.high)) + 1)
        digits = (1, 2, 3, 5) if rng.uniform() < 0.6 else range(1, 10)
        points = [float(f"{m}e{e}") for e in exponents for m in digits]
        if dim.integer and rng.uniform() < 0.5:
            points = [float(2**e) for e in range(12)]
    else:
        step = 10.0 ** math.floor(math.log10((dim.high - dim.low) / 8))
        if dim.integer:
            step = max(1.0, step)
        first, last = math.ceil(dim.low / step - 1e-9), math.floor(dim.high / step + 1e-9)
        points = [round(i * step, 10) for i in range(first, last + 1)]
    inside = [p for p in points if dim.low * (1 - 1e-9) <= p <= dim.high * (1 + 1e-9)]
    return [int(p) for p in inside if p == int(p)] if dim.integer else inside


def _linear_points(dim: Dim, points: list[float], rng: np.random.Generator) -> list[float]:
    """Return round values of a linear range over the upper part of a log one."""
    if dim.name in CAN_BE_OFF:
        usual = [p for p in points if 0.05 <= p <= 10] or points
        high = float(rng.choice(usual))
        return [0.0, *[round(high * share, 10) for share in (0.2, 0.4, 0.5, 0.6, 0.8, 1.0)]]
    high = max(float(rng.choice(points)), points[min(3, len(points) - 1)])
    span = [round(high * share, 10) for share in (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)]
    inside = [p for p in span if p >= dim.low]
    whole = [int(p) for p in inside if p == int(p)]
    usable = whole if dim.integer else inside
    return usable if len(usable) >= 2 else points


def _bounds(points: Sequence[float], rng: np.random.Generator, *, log: bool) -> tuple[Any, Any]:
    """Return two of the points that are not too close together."""
    if rng.uniform() < 0.35:
        return points[0], points[-1]
    low, high = 0, len(points) - 1
    for _ in range(20):
        first, second = sorted(rng.choice(len(points), 2, replace=False))
        if (not log and points[0] == 0.0 and first) or second - first < 0.3 * len(points):
            continue
        low, high = int(first), int(second)
        break
    return points[low], points[high]
