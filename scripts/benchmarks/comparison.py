"""Compares Creators by stored results: selects the results, computes regrets and statistics."""

from __future__ import annotations

import dataclasses
import statistics as plain
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from localhpo.errors import InputError
from scripts.benchmarks import statistics
from scripts.benchmarks.creators import DEFAULT
from scripts.benchmarks.problems.suites import Suite
from scripts.benchmarks.results import ProblemRow, Results, UnitKey, UnitRow, rename_creator
from scripts.benchmarks.simulation import FALLBACK_NOTE
from scripts.benchmarks.statistics import Array, Column


@dataclass(frozen=True, slots=True)
class ProposalStatistics:
    """Statistics of the proposals of a Creator, over all its trials."""

    trials: int
    invalid: float
    """Share of trials whose configuration is not in the space."""
    repeated: float
    """Share of trials that ran a configuration of an earlier trial again."""
    redrawn: float
    """Share of drawn configurations that were refused, because they were not new."""
    failed: float
    """Share of trials that failed."""
    fallbacks: float
    """Share of proposals that an engine made because the model failed."""
    origins: Mapping[str, int]
    """Number of trials by origin."""
    seconds: float
    """Median time of a proposal."""
    seconds_mean: float
    tokens: float
    """Mean number of tokens of prompt and answer together, per proposal."""
    wall_s: float
    """Mean wall-clock time of a study."""
    model_digest: str


@dataclass(frozen=True, slots=True)
class CreatorComparison:
    """A comparison of Creators on a suite."""

    suite: Suite
    creators: tuple[str, ...]
    problems: tuple[str, ...]
    seeds: tuple[int, ...]
    trials: int
    regrets: Array
    """Shape (C, P, S, T); see `statistics`."""
    raw: Array
    """Best value so far, of the same shape; NaN before there is one."""
    columns: tuple[Column, ...]
    proposals: tuple[ProposalStatistics, ...]
    """One for each Creator."""


@dataclass(frozen=True)
class ResultSelection:
    """The stored results that a comparison is made of."""

    suite: Suite
    creators: tuple[str, ...]
    trials: int
    problems: Mapping[str, ProblemRow]
    """One definition of each problem, by name, in the order of the suite."""
    keys: Mapping[tuple[str, str, int], UnitKey]
    """Key of each study, by Creator, problem and seed."""


def select_latest(
    suite: Suite, results: Results, *, creators: Sequence[str] | None, trials: int | None
) -> ResultSelection:
    """Return the results of the latest version of each problem and Creator of a suite.

    Args:
        suite: the problems.
        results: the stored results.
        creators: the Creators, of which the first is compared with the others; None for all.
        trials: budget of the studies; None for the budget with most results.

    Raises:
        InputError: there are no such results.
    """
    rows = {
        row.problem: row for row in results.problems(suite.problems)
    }  # the last definition wins
    keys = [
        key
        for key in results.keys(suite.problems)
        if key.problem in rows and key.problem_digest == rows[key.problem].problem_digest
    ]
    names = list(map(rename_creator, creators or ())) or sorted(
        {key.creator for key in keys}, key=_sort_key
    )
    digests = {key.creator: key.creator_digest for key in keys}
    keys = [k for k in keys if k.creator in names and k.creator_digest == digests[k.creator]]
    if not keys:
        raise InputError(
            f"there are no results on {suite.name} yet",
            hint=f"`python -m scripts.benchmarks run {suite.name}` makes some",
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
    return select_keys(suite, names, budget, rows, [key for key in keys if key.budget == budget])


def _sort_key(name: str) -> tuple[int, str]:
    """Return the sort key of a Creator in a table: the default ones first."""
    return (DEFAULT.index(name) if name in DEFAULT else len(DEFAULT), name)


def select_keys(
    suite: Suite,
    creators: Sequence[str],
    trials: int,
    problems: Mapping[str, ProblemRow],
    keys: Iterable[UnitKey],
) -> ResultSelection:
    """Return the selection that consists of these keys."""
    return ResultSelection(
        suite=suite,
        creators=tuple(creators),
        trials=trials,
        problems={name: problems[name] for name in suite.problems if name in problems},
        keys={(key.creator, key.problem, key.seed): key for key in keys},
    )


def compare(selection: ResultSelection, results: Results) -> CreatorComparison:
    """Return the comparison on the problems and seeds that all Creators have results on.

    Raises:
        InputError: no problem has results of all Creators.
    """
    problems, seeds = _find_complete(selection)
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
                    [trial.value for trial in unit.trials],
                    "maximize" if known.direction == "maximize" else "minimize",
                    selection.trials,
                )
        regrets[:, p] = statistics.regret(raw[:, p], _find_best(known, raw[:, p]), known.median)
    return CreatorComparison(
        suite=selection.suite,
        creators=selection.creators,
        problems=problems,
        seeds=seeds,
        trials=selection.trials,
        regrets=regrets,
        raw=raw,
        columns=tuple(
            statistics.summarize_column(regrets, trial)
            for trial in statistics.report_trials(selection.trials)
        ),
        proposals=tuple(
            summarize_proposals([row for key, row in rows.items() if key.creator == creator])
            for creator in selection.creators
        ),
    )


def _find_best(known: ProblemRow, found: Array) -> float:
    """Return the best known value of a problem, with those of the compared Creators.

    Results of other Creators do not count: the same comparison always gives the same figures.
    """
    best = np.nanmax if known.direction == "maximize" else np.nanmin
    return float(best([known.best, *found.flat]))


def _find_complete(selection: ResultSelection) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return problems and seeds on which all Creators have results.

    The seed with most problems decides which problems count; all seeds that have results on
    exactly these problems are taken.

    Raises:
        InputError: there are no such problems.
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
            hint=f"`python -m scripts.benchmarks run {selection.suite.name} --creators "
            f"{','.join(selection.creators)} --trials {selection.trials}` makes them",
        )
    full = tuple(seed for seed in seeds if done[seed] == most)
    return most, full


def summarize_proposals(units: Sequence[UnitRow]) -> ProposalStatistics:
    """Return the statistics of a Creator's proposals in these studies."""
    trials = [trial for unit in units for trial in unit.trials]
    count, draws = max(1, len(trials)), max(1, sum(trial.tries for trial in trials))
    seconds = [trial.seconds for trial in trials]
    return ProposalStatistics(
        trials=len(trials),
        invalid=sum(trial.invalid for trial in trials) / count,
        repeated=sum(trial.repeated for trial in trials) / count,
        redrawn=sum(trial.tries - 1 for trial in trials) / draws,
        failed=sum(trial.state == "failed" for trial in trials) / count,
        fallbacks=sum(FALLBACK_NOTE in trial.note for trial in trials) / count,
        origins=dict(Counter(trial.origin for trial in trials).most_common()),
        seconds=plain.median(seconds) if seconds else 0.0,
        seconds_mean=sum(seconds) / count,
        tokens=sum(t.prompt_tokens + t.completion_tokens for t in trials) / count,
        wall_s=sum(unit.wall_s for unit in units) / max(1, len(units)),
        model_digest=units[-1].model_digest if units else "",
    )


def to_record(comparison: CreatorComparison) -> dict[str, Any]:
    """Return a comparison as JSON, with the mean regret of every Creator on every problem."""
    creators = comparison.creators
    proposals = {
        name: proposals_record(one)
        for name, one in zip(creators, comparison.proposals, strict=True)
    }
    columns = [
        {
            "trial": column.trial,
            "critical_difference": column.critical_difference,
            "creators": {
                name: dataclasses.asdict(entry)
                for name, entry in zip(creators, column.entries, strict=True)
            },
            f"{creators[0]} against": {
                name: dataclasses.asdict(test)
                for name, test in zip(creators[1:], column.paired_tests, strict=True)
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
        "best_value": best_values(comparison),
        "best_score": best_values(comparison),  # the name in version 0.1.0
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
        "proposals": proposals,
        "conduct": proposals,  # the name in version 0.1.0
    }


def proposals_record(proposals: ProposalStatistics) -> dict[str, Any]:
    """Return statistics of proposals as JSON."""
    # The second one is the name in version 0.1.0.
    return {**dataclasses.asdict(proposals), "stand_ins": proposals.fallbacks}


def best_values(comparison: CreatorComparison) -> dict[str, dict[str, float | None]]:
    """Return the mean best value (not regret) by Creator and trial; empty for most suites.

    Only the two quadratics have values on one scale (`Suite.raw_values`).
    """
    if not comparison.suite.raw_values:
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
