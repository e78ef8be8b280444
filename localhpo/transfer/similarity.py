"""How similar two tasks are, in [0, 1], and why.

The product of four parts, each in [0, 1], symmetric, and 1 for a task and itself:

- spaces: hyperparameters of the same name (without case, punctuation and prefix), or of a name
  that means the same in another library, and how much their ranges or choices overlap. What one
  task tunes and the other fixes counts as a range that hardly overlaps, if it contains the value;
- fixed values: other ones move the optimum; equal ones leave the spaces to decide;
- metrics (of the first objectives): what is good for one metric is often, not always, good for
  another; the same metric in the other direction is the opposite;
- descriptions: words that name and background share, and the size of the data where both tell
  it. They count little: two tasks of one space are similar, whatever their descriptions say.

Names of hyperparameters tell the family of models best (`max_depth`, `subsample`), as in the
meta-learning of auto-sklearn (Feurer et al. 2015), which needs meta-features that a script
does not give.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from localhpo.space import Categorical, Float, Int, Ordinal, Parameter
from localhpo.task import Task
from localhpo.trial import Value

MIN_SIMILARITY = 0.25
"""Nothing is transferred between tasks that are less similar."""

_OTHER_METRIC = 0.8
"""Factor for another metric: a configuration good for AUC is mostly good for accuracy."""

_NAME = 0.5
"""What a hyperparameter of the same name counts whose range hardly overlaps."""

_MAX_LOSS_FIXED = 0.3
"""Largest share that other fixed values can take away."""

_MAX_LOSS_DESCRIPTION = 0.3
"""Largest share that words and data size can take away."""

_SPLIT_PREFIX = re.compile(r"^(?:val|valid|validation|eval|test|dev|cv|mean|final)[ _/.-]+")
_METRIC_SYNONYMS = {
    "acc": "accuracy", "bac": "balancedaccuracy", "rocauc": "auc", "auroc": "auc",
    "f1score": "f1", "macrof1": "f1macro", "r2score": "r2", "crossentropy": "logloss",
    "nll": "logloss", "mmce": "error", "errorrate": "error",
}  # fmt: skip

_SIZE = re.compile(
    r"(\d[\d,_ ]*)\s*(?:rows|samples|examples|instances|images|sentences|nodes|records)\b"
)
_STOP_WORDS = frozenset({"the", "and", "for", "with", "from", "that", "this", "are", "data", "set"})


_SYNONYMS = (
    # boosted trees, and what they share with other models
    ("learning_rate", "lr", "eta", "base_lr", "lr0", "learning_rate_init", "shrinkage"),
    ("n_estimators", "nrounds", "num_boost_round", "n_rounds", "num_trees", "n_trees", "ntree",
     "num_iterations", "iterations", "max_iter"),
    ("max_depth", "tree_depth", "depth"),
    ("min_child_weight", "min_sum_hessian", "min_sum_hessian_in_leaf"),
    ("subsample", "bagging_fraction", "row_sample"),
    ("colsample_bytree", "feature_fraction"),
    ("colsample_bylevel", "colsample_bynode"),
    ("gamma", "min_split_loss", "min_gain_to_split"),
    ("reg_lambda", "lambda", "lambda_l2", "l2_regularization", "l2_leaf_reg", "l2"),
    ("reg_alpha", "alpha", "lambda_l1", "l1"),
    ("scale_pos_weight", "pos_weight"),
    # trees and forests
    ("max_leaf_nodes", "num_leaves", "max_leaves"),
    ("min_samples_leaf", "min_data_in_leaf", "min_child_samples", "min_node_size", "minbucket"),
    ("min_samples_split", "minsplit"),
    ("max_samples", "sample_fraction"),
    ("bootstrap", "replace"),
    ("ccp_alpha", "cp"),
    # networks
    ("batch_size", "bs", "train_batch_size"),
    ("epochs", "n_epochs", "max_epochs", "num_epochs", "num_train_epochs", "max_iter"),
    ("hidden_size", "hidden_dim", "hidden_units", "hidden_channels", "mlp_hidden_size", "n_units",
     "num_units", "width"),
    ("embedding_size", "embedding_dim", "embed_dim"),
    ("num_layers", "n_layers", "n_hidden_layers", "num_hidden_layers", "num_mlp_layers", "depth"),
    ("dropout", "dropout_rate", "dropout_prob", "p_drop"),
    ("weight_decay", "wd", "l2", "alpha", "reg_weight"),
    ("momentum", "sgd_momentum"),
    ("optimizer", "opt"),
    ("beta1", "adam_beta1"),
    ("beta2", "adam_beta2"),
    ("epsilon", "eps", "adam_epsilon"),
    # the rest
    ("n_neighbors", "k"),
)  # fmt: skip
"""Names of hyperparameters that mean the same in different libraries. A name in two groups means
one of two things, depending on the others."""


def _groups_by_name() -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for number, names in enumerate(_SYNONYMS):
        for name in names:
            found.setdefault(name.replace("_", ""), set()).add(number)
    return {name: frozenset(numbers) for name, numbers in found.items()}


_GROUPS_OF = _groups_by_name()
"""Plain name -> indices of the groups that it is in."""


@dataclass(frozen=True, slots=True)
class Similarity:
    """How similar two tasks are."""

    value: float
    """0 to 1."""
    reasons: tuple[str, ...]
    """In words, the most important first."""


def similarity(a: Task, b: Task) -> Similarity:
    """Return how similar two tasks are; the same whichever comes first."""
    space, space_reason = _compare_spaces(a, b)
    fixed, fixed_reasons = _compare_fixed(a, b)
    metric, metric_reason = _compare_metrics(a, b)
    described, description_reasons = _compare_descriptions(a, b)
    value = space * metric * (1.0 - _MAX_LOSS_FIXED * (1.0 - fixed))
    value *= 1.0 - _MAX_LOSS_DESCRIPTION * (1.0 - described)
    reasons = (space_reason, metric_reason, *fixed_reasons, *description_reasons)
    return Similarity(min(1.0, value), reasons)


def plain_name(name: str) -> str:
    """Return the name of a hyperparameter without prefix, case and punctuation.

    `clf__max_depth` and `model.max-depth` are `maxdepth`.
    """
    last = re.split(r"__|[./]", name)[-1]
    return re.sub(r"[^a-z0-9]", "", last.lower()) or name


def metric_name(name: str) -> str:
    """Return the name of a metric on any split: `val_acc` and `test/accuracy` are `accuracy`."""
    plain = re.sub(r"[^a-z0-9]", "", _SPLIT_PREFIX.sub("", name.lower())) or plain_name(name)
    return _METRIC_SYNONYMS.get(plain, plain)


def same_metric(a: str, b: str) -> bool:
    """Return whether two names stand for one metric, on whatever split it is measured."""
    return metric_name(a) == metric_name(b)


def match_parameters(a: Sequence[str], b: Sequence[str]) -> dict[str, str]:
    """Return, for each hyperparameter of `a` that `b` has too, its name in `b`.

    Equal names match first, then plain names, then names that are synonyms in different libraries
    (`_SYNONYMS`); the last two only where exactly one on each side fits.
    """
    matches = {name: name for name in a if name in b}
    _add_matches(matches, a, b, lambda x, y: plain_name(x) == plain_name(y))
    _add_matches(matches, a, b, _are_synonyms)
    return {name: matches[name] for name in a if name in matches}


def _are_synonyms(a: str, b: str) -> bool:
    groups_a, groups_b = (_GROUPS_OF.get(plain_name(name), frozenset()) for name in (a, b))
    return bool(groups_a & groups_b)


def _add_matches(
    matches: dict[str, str], a: Sequence[str], b: Sequence[str], alike: Callable[[str, str], bool]
) -> None:
    """Match the remaining names that are alike, where both have one candidate only."""
    left_a = [name for name in a if name not in matches]
    left_b = [name for name in b if name not in matches.values()]
    for x in left_a:
        candidates = [y for y in left_b if alike(x, y)]
        if len(candidates) == 1 and sum(alike(z, candidates[0]) for z in left_a) == 1:
            matches[x] = candidates[0]


def overlap(a: Parameter, b: Parameter) -> float:
    """Return the share of values that two hyperparameters have in common, in [0, 1]."""
    choices_a, choices_b = _choice_texts(a), _choice_texts(b)
    if choices_a is not None and choices_b is not None:
        return _dice(len(choices_a & choices_b), len(choices_a), len(choices_b))
    range_a, range_b = numeric_bounds(a), numeric_bounds(b)
    if range_a is None or range_b is None:
        return 0.0
    return _range_overlap(range_a, range_b, log=_is_log(a) or _is_log(b))


def _choice_texts(parameter: Parameter) -> frozenset[str] | None:
    """Return the normalized texts of the choices; None for a range."""
    if isinstance(parameter, Categorical | Ordinal):
        return frozenset(normalized_text(value) for value in parameter.values)
    return None


def normalized_text(value: object) -> str:
    """Return a value as it is compared across tasks: `TRUE` is `true`, `1.0` is `1`."""
    text = str(value).strip().lower()
    return text.removesuffix(".0")


def numeric_bounds(parameter: Parameter) -> tuple[float, float] | None:
    """Return the smallest and the largest number; None where the values are no numbers."""
    if isinstance(parameter, Float | Int):
        return float(parameter.low), float(parameter.high)
    numbers = [v for v in parameter.values if isinstance(v, int | float)]
    if not isinstance(parameter, Ordinal) or len(numbers) < len(parameter.values):
        return None
    return float(min(numbers)), float(max(numbers))


def _contains(parameter: Parameter, value: Value) -> bool:
    """Return whether a hyperparameter has a value of another task, grid and type aside."""
    choices, bounds = _choice_texts(parameter), numeric_bounds(parameter)
    if choices is not None:
        return normalized_text(value) in choices
    if bounds is None or isinstance(value, bool | str):
        return False
    return bounds[0] <= value <= bounds[1]


def _is_log(parameter: Parameter) -> bool:
    return isinstance(parameter, Float | Int) and parameter.log


def _range_overlap(a: tuple[float, float], b: tuple[float, float], *, log: bool) -> float:
    if log and min(a[0], b[0]) > 0.0:
        a, b = (math.log(a[0]), math.log(a[1])), (math.log(b[0]), math.log(b[1]))
    if a == b:
        return 1.0
    common = min(a[1], b[1]) - max(a[0], b[0])
    return _dice(max(0.0, common), a[1] - a[0], b[1] - b[0])


def _dice(common: float, a: float, b: float) -> float:
    """Return Dice's coefficient: twice the common size, over the sum of both sizes."""
    return 0.0 if a + b <= 0.0 else min(1.0, 2.0 * common / (a + b))


def _compare_spaces(a: Task, b: Task) -> tuple[float, str]:
    pairs = match_parameters(a.names, b.names).items()
    overlaps = [overlap(a.space[x], b.space[y]) for x, y in pairs if x in a.space and y in b.space]
    counted = [_NAME + (1.0 - _NAME) * share for share in overlaps if share > 0.0]
    one_fixed = [
        *(_contains(a.space[x], b.fixed[y]) for x, y in pairs if x in a.space and y in b.fixed),
        *(_contains(b.space[y], a.fixed[x]) for x, y in pairs if x in a.fixed and y in b.space),
    ]
    size_a, size_b = len(a.space), len(b.space)
    common = math.fsum(counted) + _NAME * sum(one_fixed)
    value = _dice(common, size_a + len(one_fixed), size_b)
    reason = f"{len(counted)} of {max(size_a, size_b)} hyperparameters in common"
    if counted:
        reason += f", ranges overlap by {100.0 * math.fsum(overlaps) / len(counted):.0f} %"
    if one_fixed:
        reason += f", {len(one_fixed)} tuned in one task and fixed in the other"
    return value, reason


def _compare_fixed(a: Task, b: Task) -> tuple[float, list[str]]:
    """Return the share of common fixed hyperparameters with equal values; 1 if there are none."""
    pairs = [(x, y) for x, y in match_parameters([*a.fixed], [*b.fixed]).items()]
    differing = [x for x, y in pairs if normalized_text(a.fixed[x]) != normalized_text(b.fixed[y])]
    reasons = [f"fixed at different values: {', '.join(differing)}"] if differing else []
    return (1.0 - len(differing) / len(pairs) if pairs else 1.0), reasons


def _compare_metrics(a: Task, b: Task) -> tuple[float, str]:
    if not same_metric(a.metric, b.metric):
        first, second = sorted((a.metric, b.metric))
        return _OTHER_METRIC, f"different metrics ({first}, {second})"
    if a.direction != b.direction:
        return 0.0, f"{a.metric} is minimized in one task and maximized in the other"
    return 1.0, f"the same metric, {min(a.metric, b.metric)}"


def _compare_descriptions(a: Task, b: Task) -> tuple[float, list[str]]:
    """Return the mean of what both descriptions tell; 1 where there is nothing to compare."""
    parts: list[float] = []
    reasons: list[str] = []
    words_a, words_b = _description_words(a), _description_words(b)
    if words_a or words_b:
        common = words_a & words_b
        parts.append(_dice(len(common), len(words_a), len(words_b)))
        reasons.append(
            f"words in common: {', '.join(sorted(common)[:5])}" if common else "no words in common"
        )
    size_a, size_b = data_size(a.background), data_size(b.background)
    if size_a and size_b:
        small, large = sorted((size_a, size_b))
        parts.append(1.0 / (1.0 + math.log10(large / small)))
        reasons.append(f"data of {small:,} and {large:,} rows")
    return (math.fsum(parts) / len(parts) if parts else 1.0), reasons


def _description_words(task: Task) -> frozenset[str]:
    found = re.findall(r"[a-z]{3,}", f"{task.name} {task.background}".lower())
    return frozenset(found) - _STOP_WORDS


def data_size(background: str) -> int | None:
    """Return the first number of rows, images, ... in a description; None without one."""
    found = _SIZE.search(background.lower())
    digits = re.sub(r"\D", "", found[1]) if found else ""
    return int(digits) or None if digits else None
