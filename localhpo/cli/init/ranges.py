"""Proposes a range for an option of a script from its name, type and default.

`RANGE_RULES` is the table: the first row with a word of the option's name applies. A rule returns
the table of a parameter as in `[space]` of a task file, and widens the usual range where the
default lies outside.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from localhpo.cli.init.argparse_reader import Option

ParameterTable = dict[str, Any]
"""A parameter as in `[space]` of a task file."""
RangeRule = Callable[[Option], ParameterTable]


@dataclass(frozen=True, slots=True)
class RangeProposal:
    """The proposed parameter for an option, or why there is none."""

    option: Option
    table: ParameterTable | None
    """The parameter; None if the option is not to be tuned."""
    why: str
    """Why the option is not tuned, or a remark on its range."""
    fixable: bool = False
    """Whether an option without a parameter may still be a hyperparameter, for `[fixed]`."""


NOT_TUNED_WORDS = (
    "seed|random_state|data|dataset|path|dir|folder|root|file|output|out|save|load|log|logs|logdir"
    "|checkpoint|ckpt|resume|pretrained|device|devices|gpu|gpus|cuda|workers|jobs|njobs|threads|cpus"
    "|port|host|addr|rank|world_size|verbose|verbosity|debug|project|entity|tag|tags|url|config"
    "|print|freq|frequency|interval|every|version|wandb|tensorboard|cache|download|test|eval|val"
    "|valid|validation|dry_run|profile|precision|fold|folds|n_splits|cv|classes|target|task|metric"
    "|limit|n_trials|timeout"
)
"""Words in the names of options that say where and how to run: they are not tuned."""


MODEL_WORDS = (
    "act|activation|algorithm|arch|architecture|augment|augmentation|backbone|booster|criterion"
    "|decoder|embedding|encoder|init|kernel|loss|method|model|net|network|norm|normalization"
    "|objective|optim|optimizer|penalty|policy|pool|pooling|regularizer|sampler|schedule|scheduler"
    "|solver"
)
"""Words in the names of text options that select a model or a method."""


def propose_range(option: Option) -> RangeProposal:
    """Return the proposed parameter for an option, or why there is none."""
    if option.why_not:
        return RangeProposal(option, None, option.why_not)
    name = _snake(option.name)
    if _has(name, NOT_TUNED_WORDS):
        return RangeProposal(option, None, "sets where or how to run; not a hyperparameter")
    if option.choices:
        return _from_choices(option)
    if option.kind not in ("int", "float"):
        return RangeProposal(option, None, "text without choices", fixable=_has(name, MODEL_WORDS))
    for words, rule in RANGE_RULES[option.kind]:
        if _has(name, words):
            return _with_remark(RangeProposal(option, rule(option), ""))
    return _with_remark(_from_default(option))


def _with_remark(proposed: RangeProposal) -> RangeProposal:
    """Return the proposal with a remark where the script's default is outside of the range."""
    default = proposed.option.default
    if proposed.table is None or default is None or "default" in proposed.table:
        return proposed
    return replace(proposed, why=f"the script's default, {default}, is not in this range")


def _snake(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[-.]", "_", spaced).lower()


def _has(name: str, words: str) -> bool:
    return re.search(rf"(?:^|_)(?:{words})(?:_|$|\d)", name) is not None


def _from_choices(option: Option) -> RangeProposal:
    values = list(dict.fromkeys(option.choices))
    if len(values) < 2:
        return RangeProposal(option, None, "it has only one choice", fixable=True)
    if not all(isinstance(value, bool | int | float | str) for value in values):
        return RangeProposal(option, None, "its choices are not plain values")
    if all(type(value) is int for value in values) and _is_consecutive(values):
        return RangeProposal(option, _table(option, "int", low=min(values), high=max(values)), "")
    if all(type(value) in (int, float) for value in values):
        return RangeProposal(option, _table(option, "ordinal", values=sorted(values)), "")
    return RangeProposal(option, _table(option, "categorical", values=values), "")


def _is_consecutive(values: list[int]) -> bool:
    return len(values) > 2 and sorted(values) == list(range(min(values), max(values) + 1))


def _from_default(option: Option) -> RangeProposal:
    """Return a proposal from the size of the default, for a name that no rule knows."""
    default = option.default
    if not isinstance(default, int | float) or default <= 0:
        why = "no range can be derived from its name and default"
        return RangeProposal(option, None, why, fixable=True)
    if option.kind == "int":
        rule = int_log(factor=4) if default >= 64 else int_around(usual=4)
    else:
        rule = linear(0.0, 1.0) if 0.05 <= default <= 1.0 else log_around(usual=1.0, factor=10)
    return RangeProposal(option, rule(option), "guessed from the default: check it")


def _table(option: Option, kind: str, **bounds: Any) -> ParameterTable:
    table: ParameterTable = {"type": kind, **bounds}
    if option.default is not None and _holds(table, option.default):
        table["default"] = option.default
    return table


def _holds(table: ParameterTable, default: Any) -> bool:
    if "values" in table:
        return default in table["values"]
    return bool(table["low"] <= default <= table["high"])


def linear(low: float, high: float) -> RangeRule:
    """Return a rule for a linear range of floats."""

    def rule(option: Option) -> ParameterTable:
        default = _number(option, low)
        return _table(option, "float", low=min(low, default), high=max(high, default))

    return rule


def log_around(usual: float, factor: float = 30, highest: float = math.inf) -> RangeRule:
    """Return a rule for a log range around the default; its ends are 1 or 3 times a power of 10."""

    def rule(option: Option) -> ParameterTable:
        center = _positive(option, usual)
        high = max(center, min(_rounded_up(center * factor), highest))
        low = _rounded_down(center / factor)
        return _table(option, "float", low=low, high=high, log=True)

    return rule


def int_range(low: int, high: int) -> RangeRule:
    """Return a rule for a range of integers."""

    def rule(option: Option) -> ParameterTable:
        default = int(_number(option, low))
        return _table(option, "int", low=min(low, default), high=max(high, default))

    return rule


def int_around(usual: int) -> RangeRule:
    """Return a rule for integers from half the default to twice the default."""

    def rule(option: Option) -> ParameterTable:
        center = int(_positive(option, usual))
        return _table(option, "int", low=max(1, center // 2), high=center * 2)

    return rule


def int_log(factor: int, usual: int = 100) -> RangeRule:
    """Return a rule for a log range of integers around the default."""

    def rule(option: Option) -> ParameterTable:
        center = int(_positive(option, usual))
        low = max(1, center // factor)
        return _table(option, "int", low=low, high=center * factor, log=True)

    return rule


def doubling(usual: int) -> RangeRule:
    """Return a rule for the default with its halves and doubles, as is usual for sizes."""

    def rule(option: Option) -> ParameterTable:
        center = int(_positive(option, usual))
        halves = [center // 2**k for k in (2, 1) if center % 2**k == 0]
        values = [*halves, center, center * 2, center * 4]
        return _table(option, "ordinal", values=values)

    return rule


def _discount_or_penalty(option: Option) -> ParameterTable:
    """Return a range for `gamma`: a discount factor near 1, or XGBoost's split penalty near 0."""
    rule = linear(0.8, 0.999) if _number(option, 0.0) >= 0.8 else linear(0.0, 0.5)
    return rule(option)


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
    """Return the value rounded to three digits."""
    return float(f"{value:.3g}")


RANGE_RULES: Mapping[str, tuple[tuple[str, RangeRule], ...]] = {
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
        ("min_child_weight|pos_weight", int_range(1, 10)),
        ("max_depth", int_range(3, 11)),
        ("layers|n_layer|depth|blocks", int_around(3)),
        ("epochs|epoch", int_around(10)),
        ("n_estimators|rounds|boost_round|trees", int_log(4)),
        ("warmup", int_log(10)),
        ("patience|neighbors|k|degree", int_around(4)),
        ("min_samples", int_range(2, 20)),
        ("leaves", int_log(4, usual=31)),
    ),
}
