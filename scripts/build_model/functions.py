"""Synthetic functions over real hyperparameter names, whose optimum is where it usually is.

A catalog has the usual names and ranges of hyperparameters, and where good values are (center and
spread, on a log scale for log ones), as textbooks say. Each function draws an optimum around that,
weights (most parameters matter little), interactions and noise. Functions over meaningless names
have their optimum anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from localhpo.space import Categorical, Float, Int, Ordinal, Parameter, Space

from .learners import Array

Configs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Range:
    """One numeric hyperparameter of the catalog."""

    names: tuple[str, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    center: float
    spread: float
    """Standard deviation of the optimum: in decades for log ranges, else in units of the value."""
    log: bool = False
    integer: bool = False
    weight: float = 1.0


@dataclass(frozen=True)
class Choice:
    """One categorical or ordinal hyperparameter of the catalog."""

    names: tuple[str, ...]
    values: tuple[Any, ...]
    utilities: tuple[float, ...]
    """Mean utility of each value, 0 to 1."""
    ordered: bool = False


_LR = ("learning_rate", "lr", "learning_rate", "lr0", "base_lr")
_BATCH = Choice(
    ("batch_size", "bs", "train_batch_size"),
    (8, 16, 32, 64, 128, 256), (0.5, 0.8, 1.0, 0.9, 0.7, 0.5), ordered=True,
)  # fmt: skip
_DROPOUT = Range(("dropout", "dropout_rate", "drop"), (0.0,), (0.5, 0.6, 0.8), 0.2, 0.12)
_EPOCHS = Range(
    ("epochs", "num_epochs", "num_train_epochs"), (1, 2, 5), (10, 20, 50, 100),
    1.3, 0.35, log=True, integer=True, weight=0.6,
)  # fmt: skip
_SCHEDULE = Choice(
    ("lr_scheduler", "scheduler", "schedule"),
    ("cosine", "linear", "constant", "step"), (1.0, 0.9, 0.4, 0.6),
)  # fmt: skip
_SMOOTHING = Range(("label_smoothing", "smoothing"), (0.0,), (0.2, 0.3), 0.08, 0.05, weight=0.4)

# No two entries of a theme share a name.
THEMES: Mapping[str, tuple[Range | Choice, ...]] = {
    "Fine-tuning a transformer": (
        Range(_LR, (1e-6, 1e-5, 5e-6), (1e-4, 1e-3, 5e-4), -4.5, 0.3, log=True, weight=2.0),
        _BATCH, Range(_EPOCHS.names, (1,), (5, 8, 10), 0.55, 0.15, log=True, integer=True),
        Range(("weight_decay", "wd"), (0.0,), (0.1, 0.3), 0.03, 0.03, weight=0.4),
        Range(("warmup_ratio", "warmup"), (0.0,), (0.2, 0.3), 0.08, 0.04, weight=0.6),
        Range(("max_grad_norm", "grad_clip"), (0.1, 0.5), (2.0, 5.0), 0.0, 0.25,
              log=True, weight=0.3),
        _DROPOUT, _SCHEDULE,
    ),
    "LoRA fine-tuning": (
        Range(_LR, (1e-5, 5e-5), (1e-3, 5e-3), -3.7, 0.3, log=True, weight=2.0),
        Choice(("lora_r", "rank", "r"), (4, 8, 16, 32, 64), (0.7, 0.9, 1.0, 1.0, 0.8),
               ordered=True),
        Choice(("lora_alpha", "alpha"), (8, 16, 32, 64), (0.7, 1.0, 1.0, 0.8), ordered=True),
        Range(("lora_dropout", "dropout"), (0.0,), (0.2, 0.3), 0.05, 0.04, weight=0.4),
        _EPOCHS, _BATCH,
    ),
    "Image classification with a convolutional network": (
        Range(_LR, (1e-5, 1e-4), (1e-2, 1e-1), -3.1, 0.35, log=True, weight=2.0),
        Range(("weight_decay", "wd"), (1e-6, 1e-5), (1e-2, 1e-1), -3.6, 0.5, log=True),
        Range(("momentum",), (0.5, 0.7, 0.8), (0.99, 0.98), 0.9, 0.04),
        _BATCH, _EPOCHS, _DROPOUT, _SCHEDULE, _SMOOTHING,
        Choice(("optimizer", "opt"), ("sgd", "adam", "adamw", "rmsprop"), (0.7, 0.9, 1.0, 0.6)),
        Range(("mixup", "mixup_alpha"), (0.0,), (0.5, 1.0), 0.2, 0.12, weight=0.4),
        Range(("warmup_epochs",), (0,), (5, 10), 2.5, 1.5, integer=True, weight=0.4),
    ),
    "A convolutional network with SGD": (
        Range(_LR, (1e-4, 1e-3), (0.5, 1.0), -1.3, 0.35, log=True, weight=2.0),
        Range(("momentum", "sgd_momentum"), (0.0, 0.5), (0.99,), 0.9, 0.05),
        Range(("weight_decay", "wd"), (1e-6, 1e-5), (1e-2,), -3.4, 0.4, log=True),
        Choice(("nesterov",), (True, False), (1.0, 0.85)), _BATCH, _SCHEDULE, _EPOCHS,
    ),
    "A multilayer perceptron with Adam": (
        Range(_LR, (1e-5, 1e-4), (1e-2, 1e-1), -3.0, 0.35, log=True, weight=2.0),
        Range(("hidden_size", "hidden_dim", "n_units", "width"), (16, 32), (256, 512, 1024),
              2.2, 0.3, log=True, integer=True),
        Range(("num_layers", "n_layers", "layers"), (1,), (4, 5, 6), 2.4, 0.8, integer=True),
        Range(("weight_decay", "l2"), (1e-7, 1e-6), (1e-2, 1e-1), -4.2, 0.7, log=True, weight=0.6),
        Choice(("activation",), ("relu", "tanh", "gelu", "elu"), (1.0, 0.7, 1.0, 0.85)),
        _BATCH, _EPOCHS, _DROPOUT,
    ),
    "A graph neural network for node classification": (
        Range(_LR, (1e-4, 1e-3), (1e-1,), -2.1, 0.25, log=True, weight=2.0),
        Range(("weight_decay", "wd"), (1e-6, 1e-5), (1e-2, 1e-1), -3.2, 0.35, log=True),
        Range(("hidden_channels", "hidden_dim", "hidden_size"), (8, 16), (128, 256, 512),
              1.7, 0.3, log=True, integer=True),
        Range(("num_layers", "layers"), (1, 2), (4, 6), 2.1, 0.4, integer=True),
        Range(("dropout",), (0.0,), (0.8, 0.9), 0.5, 0.12),
        Range(("epochs",), (50,), (300, 500), 200.0, 60.0, integer=True, weight=0.3),
        Choice(("heads", "num_heads"), (1, 2, 4, 8), (0.7, 0.8, 0.9, 1.0), ordered=True),
    ),
    "Machine translation with a small transformer": (
        Range(_LR, (1e-5, 1e-4), (1e-2,), -3.2, 0.25, log=True, weight=2.0),
        Choice(("d_model", "embed_dim"), (64, 128, 256, 512), (0.6, 0.9, 1.0, 0.9), ordered=True),
        Range(("num_layers", "n_layers"), (1, 2), (6,), 3.0, 1.0, integer=True),
        Choice(("num_heads", "nhead"), (2, 4, 8), (0.8, 1.0, 1.0), ordered=True),
        Range(("warmup_steps", "warmup"), (100, 0), (4000, 2000), 1000.0, 500.0, integer=True),
        _DROPOUT, _SMOOTHING, _BATCH,
    ),
    "LightGBM": (
        Range(_LR, (1e-3, 5e-3, 1e-2), (0.3, 0.5, 1.0), -1.3, 0.3, log=True, weight=1.5),
        Range(("num_leaves", "max_leaves"), (4, 8), (128, 256), 1.5, 0.25, log=True, integer=True),
        Range(("n_estimators", "num_iterations"), (50, 100), (500, 1000), 2.5, 0.2,
              log=True, integer=True),
        Range(("min_child_samples", "min_data_in_leaf"), (1, 5), (50, 100), 20, 10, integer=True),
        Range(("feature_fraction", "colsample_bytree"), (0.3, 0.5), (1.0,), 0.75, 0.12),
        Range(("bagging_fraction", "subsample"), (0.3, 0.5), (1.0,), 0.8, 0.1),
        Range(("lambda_l1", "reg_alpha"), (0.0,), (1.0, 5.0, 10.0), 0.3, 0.3, weight=0.4),
        Range(("lambda_l2", "reg_lambda"), (0.0,), (1.0, 5.0, 10.0), 1.0, 0.6, weight=0.4),
    ),
    "CatBoost": (
        Range(_LR, (1e-3, 1e-2), (0.3, 1.0), -1.2, 0.25, log=True, weight=1.5),
        Range(("depth", "max_depth"), (2, 4), (10, 12), 6.3, 1.0, integer=True),
        Range(("l2_leaf_reg",), (1, 1.5), (10, 30), 0.55, 0.25, log=True, weight=0.6),
        Range(("iterations", "n_estimators"), (100, 200), (1000, 2000), 2.85, 0.2,
              log=True, integer=True),
        Range(("bagging_temperature",), (0.0,), (1.0, 5.0), 0.6, 0.3, weight=0.3),
        Range(("random_strength",), (0.0,), (2.0, 10.0), 1.0, 0.5, weight=0.3),
    ),
    "Proximal policy optimization": (
        Range(_LR, (1e-5, 1e-6), (1e-2, 1e-3), -3.5, 0.3, log=True, weight=2.0),
        Range(("gamma", "discount"), (0.9, 0.8), (0.999, 0.9999), 0.985, 0.008),
        Range(("gae_lambda", "lam"), (0.8, 0.9), (1.0,), 0.95, 0.02, weight=0.6),
        Range(("clip_range", "clip"), (0.05, 0.1), (0.4, 0.5), 0.2, 0.05),
        Range(("ent_coef", "entropy_coef"), (0.0, 0.0), (0.1, 0.05), 0.01, 0.008, weight=0.6),
        Range(("n_epochs", "ppo_epochs"), (1, 3), (20, 30), 9.0, 3.0, integer=True, weight=0.5),
    ),
    "Random forest": (
        Range(("n_estimators", "num_trees"), (10, 50), (300, 500), 2.35, 0.15,
              log=True, integer=True),
        Range(("max_depth",), (2, 3), (20, 30), 15.0, 4.0, integer=True),
        Range(("min_samples_split",), (2,), (10, 20), 3.0, 1.5, integer=True, weight=0.5),
        Range(("min_samples_leaf",), (1,), (10, 20), 1.8, 1.2, integer=True),
        Choice(("max_features",), ("sqrt", "log2", "all"), (1.0, 0.85, 0.8)),
        Choice(("criterion",), ("gini", "entropy"), (1.0, 1.0)),
    ),
}  # fmt: skip


NAMELESS = "A function"
"""Title of functions whose parameters have meaningless names."""


def make(rng: np.random.Generator, data_sets: int) -> tuple[Space, Callable[..., Array], str]:
    """Return a space, its utilities on some data sets (higher is better), and its title."""
    if rng.uniform() < 0.35:
        return _nameless(rng, data_sets)
    title = str(rng.choice(list(THEMES)))
    entries = list(THEMES[title])
    count = int(rng.integers(2, len(entries) + 1)) if rng.uniform() < 0.6 else len(entries)
    chosen = [entries[i] for i in rng.permutation(len(entries))[:count]]
    space = Space([_parameter(entry, rng) for entry in chosen])
    pairs = list(zip(space.parameters, chosen, strict=True))

    def one() -> Callable[[Array, Configs], Array]:
        return _make_utility(space, [_peak(p, e, rng) for p, e in pairs], chosen, rng)

    return space, _each(space, [one() for _ in range(data_sets)]), title


def _each(space: Space, ones: Sequence[Callable[[Array, Configs], Array]]) -> Callable[..., Array]:
    def utilities(configs: Configs) -> Array:
        unit = np.array([[p.to_unit(c[p.name]) for p in space.parameters] for c in configs])
        return np.array([one(unit, configs) for one in ones])

    return utilities


def _parameter(entry: Range | Choice, rng: np.random.Generator) -> Parameter:
    """Return a parameter as a user writes it."""
    name = str(rng.choice(entry.names))
    if isinstance(entry, Choice):
        kind = Ordinal if entry.ordered else Categorical
        return kind(name, values=entry.values)
    low, high = float(rng.choice(entry.lows)), float(rng.choice(entry.highs))
    log = entry.log and bool(low > 0) and not (entry.integer and rng.uniform() < 0.5)
    # Some users shift a log range a little; the optimum does not move.
    if entry.log and not entry.integer and rng.uniform() < 0.3:
        low, high = low * float(rng.choice([0.5, 2.0])), high * float(rng.choice([0.5, 2.0]))
    if entry.integer:
        return Int(name, low=int(low), high=int(high), log=log)
    return Float(name, low=float(f"{low:.2g}"), high=float(f"{high:.2g}"), log=log)


def _peak(
    parameter: Parameter, entry: Range | Choice, rng: np.random.Generator
) -> tuple[float, float]:
    """Return a parameter's optimum in its unit interval, and its weight."""
    if isinstance(entry, Choice) or not isinstance(parameter, Float | Int):
        return 0.0, 1.0
    drawn = rng.normal(entry.center, entry.spread)
    best = 10.0**drawn if entry.log else drawn
    best = min(max(best, parameter.low), parameter.high)
    best = parameter.canonical(round(best) if entry.integer else best)
    return parameter.to_unit(best), entry.weight


def _nameless(rng: np.random.Generator, data_sets: int) -> tuple[Space, Callable[..., Array], str]:
    """Return a function over parameters with meaningless names."""
    stems = rng.permutation(["x", "p", "theta", "param", "w", "factor", "coef", "a", "b", "scale"])
    letters = "xyzuvw" if rng.uniform() < 0.4 else ""
    parameters: list[Parameter] = []
    for i in range(int(rng.integers(1, 7))):
        name = f"{stems[i % 3]}{i}" if rng.uniform() < 0.7 else f"{stems[i]}_{i}"
        name = letters[i] if letters else name
        size = float(10.0 ** rng.integers(-3, 4))
        low = float(rng.choice([0.0, -size, size / 100, size / 10]))
        if low > 0 and rng.uniform() < 0.6:
            parameters.append(Float(name, low=low, high=size, log=True))
        elif size >= 10 and rng.uniform() < 0.6:
            parameters.append(Int(name, low=int(low), high=int(size)))
        else:
            parameters.append(Float(name, low=low, high=size))
    space = Space(parameters)

    def one() -> Callable[[Array, Configs], Array]:
        peaks = [(float(rng.beta(1.5, 1.5)), 1.0) for _ in parameters]
        return _make_utility(space, peaks, [], rng)

    return space, _each(space, [one() for _ in range(data_sets)]), NAMELESS


def _make_utility(
    space: Space,
    peaks: Sequence[tuple[float, float]],
    entries: Sequence[Range | Choice],
    rng: np.random.Generator,
) -> Callable[[Array, Configs], Array]:
    """Return a function with its maximum at the peaks, interactions and noise."""
    best = np.array([peak for peak, _ in peaks])
    weight = np.array([w for _, w in peaks]) * rng.gamma(0.7, 1.0, len(peaks))
    power = float(rng.choice([1.0, 1.5, 2.0]))
    cross = rng.normal(0.0, 0.5, (len(peaks), len(peaks))) * (
        rng.uniform(size=(len(peaks),) * 2) < 0.2
    )
    tables: dict[str, dict[Any, float]] = {}
    for parameter, entry in zip(space.parameters, entries, strict=False):
        if isinstance(entry, Choice):
            utilities = np.array(entry.utilities) + rng.normal(0.0, 0.12, len(entry.values))
            tables[parameter.name] = dict(zip(entry.values, utilities, strict=True))
    noise = float(rng.choice([0.0, 0.01, 0.05]))
    plain = [parameter.name not in tables for parameter in space.parameters]

    def utility(unit: Array, configs: Configs) -> Array:
        away = np.where(plain, unit - best, 0.0)
        out = (
            -(np.abs(away) ** power) @ weight
            - np.einsum("ni,ij,nj->n", away, np.abs(cross), away) * 0.3
        )
        for name, table in tables.items():
            out = out + 0.3 * np.array([table[c[name]] for c in configs])
        return np.asarray(out + noise * rng.normal(size=len(configs)))

    return utility
