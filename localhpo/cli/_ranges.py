"""Proposes a range for an option from its name, type and default, by the field's habits.

`HABITS` is the table: the first row with a word that is in the name decides. A habit sees
the option and returns the table of a parameter, as `[space]` of a task file has it; each
widens its range where the default lies outside.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from localhpo.cli._argparse_reader import Option

Table = dict[str, Any]
Habit = Callable[[Option], Table]


@dataclass(frozen=True, slots=True)
class Proposed:
    """What is proposed for one option."""

    option: Option
    table: Table | None
    """The parameter; None where the option is not to be tuned."""
    why: str
    """Why it is not tuned, or what a reader of the range should know."""
    fixable: bool = False
    """Whether it looks like a hyperparameter all the same."""


NOT_TUNED = (
    "seed|random_state|data|dataset|path|dir|folder|root|file|output|out|save|load|log|logs|logdir"
    "|checkpoint|ckpt|resume|pretrained|device|devices|gpu|gpus|cuda|workers|jobs|njobs|threads|cpus"
    "|port|host|addr|rank|world_size|verbose|verbosity|debug|project|entity|tag|tags|url|config"
    "|print|freq|frequency|interval|every|version|wandb|tensorboard|cache|download|test|eval|val"
    "|valid|validation|dry_run|profile|precision|fold|folds|n_splits|cv|classes|target|task|metric"
    "|limit|n_trials|timeout"
)
"""Words in the name of an option that says where and how to run, not what to learn."""


LEARNS = (
    "act|activation|algorithm|arch|architecture|augment|augmentation|backbone|booster|criterion"
    "|decoder|embedding|encoder|init|kernel|loss|method|model|net|network|norm|normalization"
    "|objective|optim|optimizer|penalty|policy|pool|pooling|regularizer|sampler|schedule|scheduler"
    "|solver"
)
"""Words in the name of a text that says what to learn, and how."""


def propose(option: Option) -> Proposed:
    """Return the parameter proposed for an option, or why there is none."""
    if option.why_not:
        return Proposed(option, None, option.why_not)
    name = _snake(option.name)
    if _has(name, NOT_TUNED):
        return Proposed(option, None, "says where or how to run, not what to learn")
    if option.choices:
        return _from_choices(option)
    if option.kind not in ("int", "float"):
        return Proposed(option, None, "text without choices", fixable=_has(name, LEARNS))
    for words, habit in HABITS[option.kind]:
        if _has(name, words):
            return _noted(Proposed(option, habit(option), ""))
    return _noted(_from_default(option))


def _noted(proposed: Proposed) -> Proposed:
    """Say so where the script's own default cannot be in the range."""
    default = proposed.option.default
    if proposed.table is None or default is None or "default" in proposed.table:
        return proposed
    return replace(proposed, why=f"the script's default, {default}, lies outside")


def _snake(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[-.]", "_", spaced).lower()


def _has(name: str, words: str) -> bool:
    return re.search(rf"(?:^|_)(?:{words})(?:_|$|\d)", name) is not None


def _from_choices(option: Option) -> Proposed:
    values = list(dict.fromkeys(option.choices))
    if len(values) < 2:
        return Proposed(option, None, "one choice", fixable=True)
    if not all(isinstance(value, bool | int | float | str) for value in values):
        return Proposed(option, None, "its choices are not plain values")
    if all(type(value) is int for value in values) and _is_run(values):
        return Proposed(option, _table(option, "int", low=min(values), high=max(values)), "")
    if all(type(value) in (int, float) for value in values):
        return Proposed(option, _table(option, "ordinal", values=sorted(values)), "")
    return Proposed(option, _table(option, "categorical", values=values), "")


def _is_run(values: list[int]) -> bool:
    return len(values) > 2 and sorted(values) == list(range(min(values), max(values) + 1))


def _from_default(option: Option) -> Proposed:
    """No habit knows the name: go by the size of the default."""
    default = option.default
    if not isinstance(default, int | float) or default <= 0:
        why = "neither name nor default says what range makes sense"
        return Proposed(option, None, why, fixable=True)
    if option.kind == "int":
        habit = whole_log(factor=4) if default >= 64 else whole_around(usual=4)
    else:
        habit = linear(0.0, 1.0) if 0.05 <= default <= 1.0 else log_around(usual=1.0, factor=10)
    return Proposed(option, habit(option), "guessed from the default alone")


def _table(option: Option, kind: str, **bounds: Any) -> Table:
    table: Table = {"type": kind, **bounds}
    if option.default is not None and _holds(table, option.default):
        table["default"] = option.default
    return table


def _holds(table: Table, default: Any) -> bool:
    if "values" in table:
        return default in table["values"]
    return bool(table["low"] <= default <= table["high"])


def linear(low: float, high: float) -> Habit:
    """A plain range."""

    def habit(option: Option) -> Table:
        default = _number(option, low)
        return _table(option, "float", low=min(low, default), high=max(high, default))

    return habit


def log_around(usual: float, factor: float = 30, highest: float = math.inf) -> Habit:
    """Orders of magnitude around the default; the ends are 1 or 3 times a power of ten."""

    def habit(option: Option) -> Table:
        center = _positive(option, usual)
        high = max(center, min(_rounded_up(center * factor), highest))
        low = _rounded_down(center / factor)
        return _table(option, "float", low=low, high=high, log=True)

    return habit


def whole(low: int, high: int) -> Habit:
    """A plain range of whole numbers."""

    def habit(option: Option) -> Table:
        default = int(_number(option, low))
        return _table(option, "int", low=min(low, default), high=max(high, default))

    return habit


def whole_around(usual: int) -> Habit:
    """From half the default to twice the default."""

    def habit(option: Option) -> Table:
        center = int(_positive(option, usual))
        return _table(option, "int", low=max(1, center // 2), high=center * 2)

    return habit


def whole_log(factor: int, usual: int = 100) -> Habit:
    """Whole numbers by orders of magnitude around the default."""

    def habit(option: Option) -> Table:
        center = int(_positive(option, usual))
        low = max(1, center // factor)
        return _table(option, "int", low=low, high=center * factor, log=True)

    return habit


def doubling(usual: int) -> Habit:
    """The default, halved and doubled: sizes that hardware and people like."""

    def habit(option: Option) -> Table:
        center = int(_positive(option, usual))
        halves = [center // 2**k for k in (2, 1) if center % 2**k == 0]
        values = [*halves, center, center * 2, center * 4]
        return _table(option, "ordinal", values=values)

    return habit


def _discount_or_penalty(option: Option) -> Table:
    """`gamma` discounts rewards where it is near 1, and is XGBoost's penalty of a split near 0."""
    habit = linear(0.8, 0.999) if _number(option, 0.0) >= 0.8 else linear(0.0, 0.5)
    return habit(option)


def _number(option: Option, otherwise: float) -> float:
    return option.default if isinstance(option.default, int | float) else otherwise


def _positive(option: Option, otherwise: float) -> float:
    default = _number(option, otherwise)
    return default if default > 0 else otherwise


def _rounded_down(value: float) -> float:
    """Return the largest 1 or 3 times a power of ten that is not above the value."""
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return _short(3 * power if value >= 3 * power * (1 - 1e-9) else power)


def _rounded_up(value: float) -> float:
    """Return the smallest 1 or 3 times a power of ten that is not below the value."""
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    ends = (_short(multiple * power) for multiple in (1, 3, 10))
    return next(end for end in ends if end >= value * (1 - 1e-9))


def _short(value: float) -> float:
    """Return the value without the noise of its last digits."""
    return float(f"{value:.3g}")


HABITS: Mapping[str, tuple[tuple[str, Habit], ...]] = {
    "float": (
        ("lr_decay|decay_rate|decay_factor|lr_gamma", linear(0.5, 0.999)),
        ("lr|learning_rate|eta|step_size", log_around(1e-3, highest=1.0)),
        ("weight_decay|wd|decay|l1|l2|ridge", log_around(1e-4, factor=100, highest=1.0)),
        ("dropout|drop|dropedge", linear(0.0, 0.5)),
        ("subsample|colsample|fraction|max_features|max_samples", linear(0.5, 1.0)),
        ("smoothing|warmup", linear(0.0, 0.3)),
        ("mixup|cutmix", linear(0.0, 1.0)),
        ("momentum", linear(0.5, 0.99)),
        ("beta|ema", linear(0.8, 0.999)),
        ("gamma", _discount_or_penalty),
        ("alpha|lambda", linear(0.0, 1.0)),
        ("min_child_weight|pos_weight", linear(1.0, 10.0)),
        ("eps|epsilon|tol|temperature|tau|c|clip|norm", log_around(1.0)),
    ),
    "int": (
        ("batch_size|batch|bs|minibatch", doubling(64)),
        ("heads|n_head", doubling(4)),
        (
            "hidden|width|dim|channels|units|embed|embedding|emb|n_embd|filters|neurons|d_model|ffn"
            "|features",
            doubling(128),
        ),
        ("min_child_weight|pos_weight", whole(1, 10)),
        ("max_depth", whole(3, 11)),
        ("layers|n_layer|depth|blocks", whole_around(3)),
        ("epochs|epoch", whole_around(10)),
        ("n_estimators|rounds|boost_round|trees", whole_log(4)),
        ("warmup", whole_log(10)),
        ("patience|neighbors|k|degree", whole_around(4)),
        ("min_samples", whole(2, 20)),
        ("leaves", whole_log(4, usual=31)),
    ),
}
