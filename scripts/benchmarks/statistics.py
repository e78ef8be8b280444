"""Statistics of a comparison: pure functions on arrays.

Notation: C Creators, P problems, S seeds, T trials. Regret (C, P, S, T) is

    (best - y) / (best - median), clipped to [0, 1]

where y is the best value so far: 0 is the best known value of a problem and 1 the median of
random configurations; before there is a value it is 1. Tests and ranks take each problem as one
observation, its mean over the seeds (Demsar, "Statistical Comparisons of
Classifiers over Multiple Data Sets", JMLR 7, 2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localhpo.objective import Direction

Array = NDArray[np.float64]

COLUMNS = (1, 3, 5, 10, 30, 100)
"""Numbers of trials at which Creators are compared, within the budget."""

ALPHA = 0.05

_SAME = 1e-9
"""Regrets closer than this are a tie: they differ by rounding alone."""


@dataclass(frozen=True, slots=True)
class RegretSummary:
    """Regret and rank of one Creator after some number of trials."""

    mean: float
    """Mean regret over problems and seeds."""
    error_seeds: float | None
    """Standard error of the mean over seeds, the problems given; None with one seed."""
    error_problems: float | None
    """Standard error over problems, as a sample of all problems; None with one problem."""
    rank: float
    """Mean rank over problems; 1 is best."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The first Creator compared with another, problem by problem."""

    p_value: float | None
    """Wilcoxon signed-rank test, two-sided; None where they tie on every problem."""
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, slots=True)
class Column:
    """A comparison after some number of trials: one column of the table."""

    trial: int
    entries: tuple[RegretSummary, ...]
    """One for each Creator."""
    paired_tests: tuple[PairedTest, ...]
    """One for each Creator but the first, which it is compared with."""
    critical_difference: float | None
    """Mean ranks closer than this do not differ (Nemenyi, 5 %); None for a single Creator."""


def best_so_far(values: Sequence[float | None], direction: Direction, trials: int) -> Array:
    """Return the best value after each trial, shape (T,); NaN before there is one.

    A study that ended early, because the whole space was tried, keeps its best value.
    """
    sign = 1.0 if direction == "maximize" else -1.0
    utilities = np.full(trials, -np.inf)
    for index, value in enumerate(values[:trials]):
        if value is not None and np.isfinite(value):
            utilities[index] = sign * value
    best = np.maximum.accumulate(utilities)
    return np.where(np.isfinite(best), sign * best, np.nan)


def regret(best_values: Array, best: float, median: float) -> Array:
    """Return normalized regret of the best values so far, of any shape and either direction.

    Where best and median are equal, regret is 0 for that value and 1 for any other.
    """
    scale = best - median
    level = np.where(best_values == best, 0.0, 1.0)
    gap = level if scale == 0.0 else (best - best_values) / scale
    return np.asarray(np.clip(np.nan_to_num(gap, nan=1.0), 0.0, 1.0))


def report_trials(trials: int) -> tuple[int, ...]:
    """Return the numbers of trials to compare at: those of `COLUMNS`, and the last one."""
    return tuple(dict.fromkeys([*(t for t in COLUMNS if t < trials), trials]))


def summarize_column(regrets: Array, trial: int) -> Column:
    """Return the comparison after trial number `trial` (from 1); regrets: (C, P, S, T)."""
    then = regrets[..., trial - 1]
    by_problem = then.mean(axis=2)  # (C, P)
    by_seed = then.mean(axis=1)  # (C, S)
    ranks = mean_ranks(by_problem)
    entries = tuple(
        RegretSummary(
            mean=float(by_problem[c].mean()),
            error_seeds=standard_error(by_seed[c]),
            error_problems=standard_error(by_problem[c]),
            rank=float(ranks[c]),
        )
        for c in range(len(then))
    )
    paired_tests = tuple(compare_pair(by_problem[0], other) for other in by_problem[1:])
    return Column(trial, entries, paired_tests, critical_difference(*by_problem.shape))


def standard_error(values: Array) -> float | None:
    """Return the standard error of the mean; None of a single value."""
    if len(values) < 2:
        return None
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def mean_ranks(by_problem: Array) -> Array:
    """Return the mean rank of each Creator over the problems; (C, P) -> (C,), ties share."""
    from scipy.stats import rankdata

    rounded = np.round(by_problem / _SAME)
    return np.asarray(rankdata(rounded, axis=0).mean(axis=1))


def compare_pair(first: Array, other: Array) -> PairedTest:
    """Compare two Creators by their regret on each problem, shape (P,)."""
    from scipy.stats import wilcoxon

    difference: NDArray[Any] = first - other
    ties = np.abs(difference) < _SAME
    difference = np.where(ties, 0.0, difference)
    # The test leaves ties out; SciPy takes the exact distribution for small samples.
    left = difference[~ties]
    return PairedTest(
        p_value=float(wilcoxon(left).pvalue) if len(left) else None,
        wins=int((difference < 0).sum()),
        ties=int(ties.sum()),
        losses=int((difference > 0).sum()),
    )


def critical_difference(creators: int, problems: int) -> float | None:
    """Return Nemenyi's critical difference of mean ranks at 5 %; None for a single Creator."""
    from scipy.stats import studentized_range

    if creators < 2:
        return None
    q = studentized_range.ppf(1.0 - ALPHA, creators, np.inf) / np.sqrt(2.0)
    return float(q * np.sqrt(creators * (creators + 1) / (6.0 * problems)))
