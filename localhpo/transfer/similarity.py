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
from dataclasses import dataclass

from localhpo.space import Categorical, Float, Int, Ordinal, Parameter
from localhpo.task import Task
from localhpo.transfer.names import match_groups, plain_name
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


def metric_name(name: str) -> str:
    """Return the name of a metric on any split: `val_acc` and `test/accuracy` are `accuracy`."""
    plain = re.sub(r"[^a-z0-9]", "", _SPLIT_PREFIX.sub("", name.lower())) or plain_name(name)
    return _METRIC_SYNONYMS.get(plain, plain)


def same_metric(a: str, b: str) -> bool:
    """Return whether two names stand for one metric, on whatever split it is measured."""
    return metric_name(a) == metric_name(b)


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
    groups = match_groups(a.names, b.names)
    overlaps, one_fixed = [], []
    for group in groups:
        x, y = group.first, group.second
        if x in a.space and y in b.space:
            overlaps.append(overlap(a.space[x], b.space[y]))
        elif x in a.space and y in b.fixed:
            one_fixed.append(_contains(a.space[x], b.fixed[y]))
        elif x in a.fixed and y in b.space:
            one_fixed.append(_contains(b.space[y], a.fixed[x]))
    counted = [_NAME + (1.0 - _NAME) * share for share in overlaps if share > 0.0]
    # Parameters of one group, e.g. one for each layer, count as one.
    size_a = len(a.space) - sum(group.extra_in_first(a.space) for group in groups)
    size_b = len(b.space) - sum(group.extra_in_second(b.space) for group in groups)
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
    pairs = [(group.first, group.second) for group in match_groups([*a.fixed], [*b.fixed])]
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
