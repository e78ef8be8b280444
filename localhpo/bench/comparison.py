"""From stored results to a comparison: which results count, regrets, and how Creators behaved."""

from __future__ import annotations

import dataclasses
import statistics as plain
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from localhpo.bench import statistics
from localhpo.bench.creators import DEFAULT
from localhpo.bench.simulation import STANDS_IN
from localhpo.bench.statistics import Array, Column
from localhpo.bench.suites import Suite
from localhpo.errors import InputError
from localhpo.store.results import ProblemRow, Results, UnitKey, UnitRow


@dataclass(frozen=True, slots=True)
class Conduct:
    """How a Creator behaved, over all its trials."""

    trials: int
    invalid: float
    """Share of trials that were not in the space."""
    repeated: float
    """Share of trials that ran what an earlier one had run."""
    redrawn: float
    """Share of all draws that were refused, because they were known."""
    failed: float
    """Share of trials that failed."""
    stand_ins: float
    """Share of proposals made in place of one that could not be had."""
    origins: Mapping[str, int]
    """Trials by who proposed them."""
    seconds: float
    """That a proposal took at the median."""
    seconds_mean: float
    tokens: float
    """Prompt and answer together, per proposal."""
    wall_s: float
    """A study, at the mean."""
    model_digest: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Creators on a suite."""

    suite: Suite
    creators: tuple[str, ...]
    problems: tuple[str, ...]
    seeds: tuple[int, ...]
    trials: int
    regrets: Array
    """Shape (C, P, S, T); see `statistics`."""
    raw: Array
    """Best score so far, of the same shape; NaN before there is one."""
    columns: tuple[Column, ...]
    conduct: tuple[Conduct, ...]
    """By Creator."""


@dataclass(frozen=True)
class Selection:
    """The results that a comparison is made of."""

    suite: Suite
    creators: tuple[str, ...]
    trials: int
    problems: Mapping[str, ProblemRow]
    """By name, in the order of the suite; of one definition each."""
    keys: Mapping[tuple[str, str, int], UnitKey]
    """By Creator, problem and seed."""


def latest(
    suite: Suite, results: Results, *, creators: Sequence[str] | None, trials: int | None
) -> Selection:
    """Return the latest results on a suite: of each problem and Creator the last definition.

    Args:
        suite: which problems.
        results: where they are kept.
        creators: which Creators, the first being compared with the others; None for all.
        trials: of the studies; None for the budget with most results.

    Raises:
        InputError: there are none.
    """
    rows = {row.problem: row for row in results.problems(suite.problems)}  # the last one stays
    keys = [
        key
        for key in results.keys(suite.problems)
        if key.problem in rows and key.problem_digest == rows[key.problem].problem_digest
    ]
    names = creators or sorted({key.creator for key in keys}, key=_place)
    digests = {key.creator: key.creator_digest for key in keys}
    keys = [k for k in keys if k.creator in names and k.creator_digest == digests[k.creator]]
    if not keys:
        raise InputError(
            f"there are no results on {suite.name} yet",
            hint=f"`localhpo bench run {suite.name}` makes some",
        )
    budgets = Counter(key.budget for key in keys)
    budget = trials or max(budgets, key=lambda b: (budgets[b], b))
    if budget not in budgets:
        known = ", ".join(map(str, sorted(budgets)))
        raise InputError(
            f"there are results on {suite.name} with {known} trials, none with {budget}"
        )
    if creators is None:
        names = [
            name for name in names if any(k.creator == name and k.budget == budget for k in keys)
        ]
    return select(suite, names, budget, rows, [key for key in keys if key.budget == budget])


def _place(name: str) -> tuple[int, str]:
    """Return where a Creator stands in a table that nobody ordered: the default ones first."""
    return (DEFAULT.index(name) if name in DEFAULT else len(DEFAULT), name)


def select(
    suite: Suite,
    creators: Sequence[str],
    trials: int,
    problems: Mapping[str, ProblemRow],
    keys: Iterable[UnitKey],
) -> Selection:
    """Return the selection of these keys."""
    return Selection(
        suite=suite,
        creators=tuple(creators),
        trials=trials,
        problems={name: problems[name] for name in suite.problems if name in problems},
        keys={(key.creator, key.problem, key.seed): key for key in keys},
    )


def compare(selection: Selection, results: Results) -> Comparison:
    """Return the comparison of the results that are complete: everybody on the same studies.

    Raises:
        InputError: no problem has results of all Creators.
    """
    problems, seeds = _complete(selection)
    rows = {
        row.key: row
        for row in results.units(
            selection.keys[c, p, s] for c in selection.creators for p in problems for s in seeds
        )
    }
    shape = (len(selection.creators), len(problems), len(seeds), selection.trials)
    raw, regrets = np.empty(shape), np.empty(shape)
    for p, problem in enumerate(problems):
        known = selection.problems[problem]
        for c, creator in enumerate(selection.creators):
            for s, seed in enumerate(seeds):
                unit = rows[selection.keys[creator, problem, seed]]
                raw[c, p, s] = statistics.best_so_far(
                    [trial.score for trial in unit.trials],
                    "maximize" if known.direction == "maximize" else "minimize",
                    selection.trials,
                )
        regrets[:, p] = statistics.regret(raw[:, p], _best(known, raw[:, p]), known.median)
    return Comparison(
        suite=selection.suite,
        creators=selection.creators,
        problems=problems,
        seeds=seeds,
        trials=selection.trials,
        regrets=regrets,
        raw=raw,
        columns=tuple(
            statistics.column(regrets, trial) for trial in statistics.columns_of(selection.trials)
        ),
        conduct=tuple(
            conduct_of([row for key, row in rows.items() if key.creator == creator])
            for creator in selection.creators
        ),
    )


def _best(known: ProblemRow, found: Array) -> float:
    """Return the best score known of a problem, the scores of those that are compared among them.

    Of theirs alone: the same comparison gives the same figures, whatever else was run.
    """
    best = np.nanmax if known.direction == "maximize" else np.nanmin
    return float(best([known.best, *found.flat]))


def _complete(selection: Selection) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return problems and seeds on which all Creators have results.

    All problems, and the seeds that are complete on them; where there is no such seed yet, the
    problems that one seed, the one with most of them, is complete on.

    Raises:
        InputError: there are none.
    """
    seeds = sorted({seed for _, _, seed in selection.keys})
    done = {
        seed: tuple(
            problem
            for problem in selection.problems
            if all((c, problem, seed) in selection.keys for c in selection.creators)
        )
        for seed in seeds
    }
    most = max(done.values(), key=len, default=())
    if not most:
        raise InputError(
            f"no problem of {selection.suite.name} has results of all of "
            f"{', '.join(selection.creators)} with {selection.trials} trials",
            hint=f"`localhpo bench run {selection.suite.name} --creators "
            f"{','.join(selection.creators)} --trials {selection.trials}` makes them",
        )
    full = tuple(seed for seed in seeds if done[seed] == most)
    return most, full


def conduct_of(units: Sequence[UnitRow]) -> Conduct:
    """Return how a Creator behaved in these studies of it."""
    trials = [trial for unit in units for trial in unit.trials]
    count, draws = max(1, len(trials)), max(1, sum(trial.tries for trial in trials))
    seconds = [trial.seconds for trial in trials]
    return Conduct(
        trials=len(trials),
        invalid=sum(trial.invalid for trial in trials) / count,
        repeated=sum(trial.repeated for trial in trials) / count,
        redrawn=sum(trial.tries - 1 for trial in trials) / draws,
        failed=sum(trial.state == "failed" for trial in trials) / count,
        stand_ins=sum(STANDS_IN in trial.note for trial in trials) / count,
        origins=dict(Counter(trial.origin for trial in trials).most_common()),
        seconds=plain.median(seconds) if seconds else 0.0,
        seconds_mean=sum(seconds) / count,
        tokens=sum(t.prompt_tokens + t.completion_tokens for t in trials) / count,
        wall_s=sum(unit.wall_s for unit in units) / max(1, len(units)),
        model_digest=units[-1].model_digest if units else "",
    )


def record(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON, the mean regret of every Creator on every problem included."""
    creators = comparison.creators
    columns = [
        {
            "trial": column.trial,
            "critical_difference": column.critical_difference,
            "creators": {
                name: dataclasses.asdict(entry)
                for name, entry in zip(creators, column.entries, strict=True)
            },
            f"{creators[0]} against": {
                name: dataclasses.asdict(duel)
                for name, duel in zip(creators[1:], column.duels, strict=True)
            },
        }
        for column in comparison.columns
    ]
    return {
        "suite": comparison.suite.name,
        "use": comparison.suite.use,
        "problems": len(comparison.problems),
        "problems_in_suite": len(comparison.suite.problems),
        "seeds": list(comparison.seeds),
        "trials": comparison.trials,
        "creators": list(creators),
        "columns": columns,
        "best_score": best_scores(comparison),
        "curves": {
            name: np.round(comparison.regrets[c].mean(axis=(0, 1)), 6).tolist()
            for c, name in enumerate(creators)
        },
        "by_problem": {
            problem: {
                name: np.round(comparison.regrets[c, p].mean(axis=0), 6).tolist()
                for c, name in enumerate(creators)
            }
            for p, problem in enumerate(comparison.problems)
        },
        "conduct": {
            name: dataclasses.asdict(conduct)
            for name, conduct in zip(creators, comparison.conduct, strict=True)
        },
    }


def best_scores(comparison: Comparison) -> dict[str, dict[str, float | None]]:
    """Return the mean best score (not regret) by Creator and trial, where scores compare.

    Only of functions with one scale: the two quadratics, whose best value is 0.
    """
    if not comparison.suite.raw_scores:
        return {}
    means = comparison.raw.mean(axis=(1, 2))
    return {
        name: {
            str(column.trial): _finite(means[c, column.trial - 1]) for column in comparison.columns
        }
        for c, name in enumerate(comparison.creators)
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
