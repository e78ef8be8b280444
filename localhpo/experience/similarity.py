"""How similar two tasks are, in [0, 1], and why.

The product of four parts, each in [0, 1], each symmetric and 1 for a task and itself:

- the spaces: hyperparameters of the same name (without case, punctuation and prefix) or of one
  that means the same in another library, and how much their ranges or choices overlap; what one
  task tunes and the other fixes is common as a range that overlaps hardly, if it holds the value;
- what both fix: other values make other optima, equal ones leave the spaces to decide;
- the metric: what is good for one is often, not always, good for another; the same metric in
  the other direction is the opposite;
- the circumstances: words that name and background share, and the size of the data where both
  tell it. They count little: two tasks of one space are alike, whatever is said about them.

Names of hyperparameters tell the family of models best (`max_depth`, `subsample`), as in the
meta-learning of auto-sklearn (Feurer et al. 2015), which needs meta-features that a script
does not give.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from localhpo.experience.synonyms import meanings
from localhpo.space import Categorical, Float, Int, Ordinal, Parameter
from localhpo.task import Task
from localhpo.trial import Value

LEAST_SIMILAR = 0.25
"""Below it a task teaches nothing."""

_OTHER_METRIC = 0.8
"""Of another metric: a configuration good for AUC is mostly good for accuracy."""

_NAME = 0.5
"""What a hyperparameter of the same name counts whose range overlaps hardly."""

_FIXED = 0.3
"""The most that other fixed values can take away."""

_CIRCUMSTANCES = 0.3
"""The most that words and size can take away."""

_TAKEN_ON = re.compile(r"^(?:val|valid|validation|eval|test|dev|cv|mean|final)[ _/.-]+")
_SAME_METRIC = {
    "acc": "accuracy", "bac": "balancedaccuracy", "rocauc": "auc", "auroc": "auc",
    "f1score": "f1", "macrof1": "f1macro", "r2score": "r2", "crossentropy": "logloss",
    "nll": "logloss", "mmce": "error", "errorrate": "error",
}  # fmt: skip

_SIZE = re.compile(
    r"(\d[\d,_ ]*)\s*(?:rows|samples|examples|instances|images|sentences|nodes|records)\b"
)
_SILENT = frozenset({"the", "and", "for", "with", "from", "that", "this", "are", "data", "set"})


@dataclass(frozen=True, slots=True)
class Similarity:
    """How near two tasks are."""

    value: float
    """0 to 1."""
    reasons: tuple[str, ...]
    """In words, the weightiest first."""


def similarity(a: Task, b: Task) -> Similarity:
    """Return how similar two tasks are; the same whichever comes first."""
    space, spaces_said = _spaces(a, b)
    fixed, fixed_said = _fixed(a, b)
    metric, metrics_said = _metrics(a, b)
    around, around_said = _circumstances(a, b)
    value = space * metric * (1.0 - _FIXED * (1.0 - fixed))
    value *= 1.0 - _CIRCUMSTANCES * (1.0 - around)
    return Similarity(min(1.0, value), (spaces_said, metrics_said, *fixed_said, *around_said))


def plain_name(name: str) -> str:
    """Return what a hyperparameter is called, without prefix, case and punctuation.

    `clf__max_depth` and `model.max-depth` are `maxdepth`.
    """
    last = re.split(r"__|[./]", name)[-1]
    return re.sub(r"[^a-z0-9]", "", last.lower()) or name


def metric_name(name: str) -> str:
    """Return what a metric is, wherever it is taken: `val_acc` and `test/accuracy` are one."""
    plain = re.sub(r"[^a-z0-9]", "", _TAKEN_ON.sub("", name.lower())) or plain_name(name)
    return _SAME_METRIC.get(plain, plain)


def partners(a: Sequence[str], b: Sequence[str]) -> dict[str, str]:
    """Return the hyperparameters of `a` that mean the same as one of `b`, with its name.

    Those of the very same name go together first; what is left, by the plain name, and then by
    what names mean in other libraries (`synonyms`), where only one on each side fits.
    """
    found = {name: name for name in a if name in b}
    _pair(found, a, b, lambda x, y: plain_name(x) == plain_name(y))
    _pair(found, a, b, lambda x, y: bool(meanings(plain_name(x)) & meanings(plain_name(y))))
    return {name: found[name] for name in a if name in found}


def _pair(
    found: dict[str, str], a: Sequence[str], b: Sequence[str], alike: Callable[[str, str], bool]
) -> None:
    """Add the pairs that are alike, among what has no partner, and like nothing else there."""
    left_a = [name for name in a if name not in found]
    left_b = [name for name in b if name not in found.values()]
    for x in left_a:
        likes = [y for y in left_b if alike(x, y)]
        if len(likes) == 1 and sum(alike(z, likes[0]) for z in left_a) == 1:
            found[x] = likes[0]


def overlap(a: Parameter, b: Parameter) -> float:
    """Return which share of the values of two hyperparameters is common, in [0, 1]."""
    choices_a, choices_b = choices(a), choices(b)
    if choices_a is not None and choices_b is not None:
        return _share(len(choices_a & choices_b), len(choices_a), len(choices_b))
    range_a, range_b = bounds(a), bounds(b)
    if range_a is None or range_b is None:
        return 0.0
    return _range_overlap(range_a, range_b, log=_is_log(a) or _is_log(b))


def choices(parameter: Parameter) -> frozenset[str] | None:
    """Return the values of a list, spelled alike; None for a range."""
    if isinstance(parameter, Categorical | Ordinal):
        return frozenset(spelling(value) for value in parameter.values)
    return None


def spelling(value: object) -> str:
    """Return a value as it is compared across tasks: `TRUE` is `true`, `1.0` is `1`."""
    text = str(value).strip().lower()
    return text.removesuffix(".0")


def bounds(parameter: Parameter) -> tuple[float, float] | None:
    """Return the least and the largest number; None where the values are no numbers."""
    if isinstance(parameter, Float | Int):
        return float(parameter.low), float(parameter.high)
    numbers = [v for v in parameter.values if isinstance(v, int | float)]
    if not isinstance(parameter, Ordinal) or len(numbers) < len(parameter.values):
        return None
    return float(min(numbers)), float(max(numbers))


def holds(parameter: Parameter, value: Value) -> bool:
    """Return whether a value of another task is one of a hyperparameter's, grid and type aside."""
    known, ends = choices(parameter), bounds(parameter)
    if known is not None:
        return spelling(value) in known
    if ends is None or isinstance(value, bool | str):
        return False
    return ends[0] <= value <= ends[1]


def _is_log(parameter: Parameter) -> bool:
    return isinstance(parameter, Float | Int) and parameter.log


def _range_overlap(a: tuple[float, float], b: tuple[float, float], *, log: bool) -> float:
    if log and min(a[0], b[0]) > 0.0:
        a, b = (math.log(a[0]), math.log(a[1])), (math.log(b[0]), math.log(b[1]))
    if a == b:
        return 1.0
    common = min(a[1], b[1]) - max(a[0], b[0])
    return _share(max(0.0, common), a[1] - a[0], b[1] - b[0])


def _share(common: float, a: float, b: float) -> float:
    """Return Dice's coefficient: twice what is common, over the sizes of both."""
    return 0.0 if a + b <= 0.0 else min(1.0, 2.0 * common / (a + b))


def _spaces(a: Task, b: Task) -> tuple[float, str]:
    pairs = partners(a.names, b.names).items()
    shares = [overlap(a.space[x], b.space[y]) for x, y in pairs if x in a.space and y in b.space]
    counted = [_NAME + (1.0 - _NAME) * share for share in shares if share > 0.0]
    held = [holds(a.space[x], b.fixed[y]) for x, y in pairs if x in a.space and y in b.fixed]
    held += [holds(b.space[y], a.fixed[x]) for x, y in pairs if x in a.fixed and y in b.space]
    size_a, size_b = len(a.space), len(b.space)
    value = _share(math.fsum(counted) + _NAME * sum(held), size_a + len(held), size_b)
    said = f"{len(counted)} of {max(size_a, size_b)} hyperparameters in common"
    if counted:
        said += f", their ranges by {100.0 * math.fsum(shares) / len(counted):.0f} %"
    if held:
        said += f", {len(held)} tuned in one and fixed in the other"
    return value, said


def _fixed(a: Task, b: Task) -> tuple[float, list[str]]:
    """Return the share of what both fix that has one value; 1 where there is nothing to compare."""
    pairs = [(x, y) for x, y in partners([*a.fixed], [*b.fixed]).items()]
    others = [x for x, y in pairs if spelling(a.fixed[x]) != spelling(b.fixed[y])]
    said = [f"fixed at other values: {', '.join(others)}"] if others else []
    return (1.0 - len(others) / len(pairs) if pairs else 1.0), said


def _metrics(a: Task, b: Task) -> tuple[float, str]:
    if metric_name(a.metric) != metric_name(b.metric):
        first, second = sorted((a.metric, b.metric))
        return _OTHER_METRIC, f"another metric ({first}, {second})"
    if a.direction != b.direction:
        return 0.0, f"{a.metric} the other way round"
    return 1.0, f"the same metric, {min(a.metric, b.metric)}"


def _circumstances(a: Task, b: Task) -> tuple[float, list[str]]:
    """Return the mean of what both tell; 1 where there is nothing to compare."""
    parts: list[float] = []
    said: list[str] = []
    words_a, words_b = _words(a), _words(b)
    if words_a or words_b:
        common = words_a & words_b
        parts.append(_share(len(common), len(words_a), len(words_b)))
        said.append(
            f"words in common: {', '.join(sorted(common)[:5])}" if common else "no word in common"
        )
    size_a, size_b = data_size(a.background), data_size(b.background)
    if size_a and size_b:
        small, large = sorted((size_a, size_b))
        parts.append(1.0 / (1.0 + math.log10(large / small)))
        said.append(f"data of {small:,} and {large:,} rows")
    return (math.fsum(parts) / len(parts) if parts else 1.0), said


def _words(task: Task) -> frozenset[str]:
    found = re.findall(r"[a-z]{3,}", f"{task.name} {task.background}".lower())
    return frozenset(found) - _SILENT


def data_size(background: str) -> int | None:
    """Return how many rows, images, ... a background speaks of first; None where it does not."""
    found = _SIZE.search(background.lower())
    digits = re.sub(r"\D", "", found[1]) if found else ""
    return int(digits) or None if digits else None
