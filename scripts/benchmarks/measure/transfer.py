"""Measure the effect of past studies: the same Creator with and without them, paired.

    python -m scripts.benchmarks.measure.transfer --data DIR [--creator hybrid-no-model] [--seeds 8]

For each family of YAHPO, past studies are run on data sets of the training side of
`problems/splits.toml`; then both arms run on its data sets for choosing settings. Data sets for
final tables are not used. Prints regret (0 is the best known, 1 the median of random
configurations) at trials 1, 3, 5 and 10, and how often each was better, with Wilcoxon's test.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localhpo.transfer import PastStudy
from scripts.benchmarks import creators, simulation
from scripts.benchmarks.creators import Backends
from scripts.benchmarks.problems.problem import Problem, Reference, compute_reference
from scripts.benchmarks.problems.registry import DataFolders, open_problem
from scripts.benchmarks.problems.splits import data_set_id
from scripts.benchmarks.problems.yahpo import splits

FAMILIES = ("rbv2_ranger", "rbv2_glmnet", "rbv2_aknn")
AT = (1, 3, 5, 10)
"""Numbers of trials at which regret is taken."""

Regrets = np.ndarray[Any, Any]

_PAST_BY = "hybrid-no-model"


@dataclass(frozen=True)
class TransferPlan:
    """What to measure."""

    folders: DataFolders
    families: tuple[str, ...]
    metric: str
    creator: str
    instances: int
    """Number of past studies, each on a data set of the family."""
    past_trials: int
    seeds: int


def main() -> None:
    """Measure and print."""
    plan = _plan()
    backends = Backends()
    try:
        regrets = [row for family in plan.families for row in _family(plan, family, backends)]
    finally:
        backends.close()
    _print_row("all", np.array(regrets))


def _plan() -> TransferPlan:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds yahpo/")
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--metric", default="auc")
    parser.add_argument("--creator", default=_PAST_BY)
    parser.add_argument("--instances", type=int, default=8)
    parser.add_argument("--past-trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=8)
    given = parser.parse_args()
    return TransferPlan(
        folders=DataFolders(given.data, Path("trainings")),
        families=tuple(given.families),
        metric=given.metric,
        creator=given.creator,
        instances=given.instances,
        past_trials=given.past_trials,
        seeds=given.seeds,
    )


def _family(plan: TransferPlan, family: str, backends: Backends) -> list[Regrets]:
    """Return for each problem (arms, AT): the regret of both arms, averaged over the seeds.

    Seeds of one problem are no independent evidence: the past studies are the same for all.
    """
    known = _past_studies(plan, family)
    rows = [
        np.mean(
            [
                [_regret(problem, scale, arm, seed, known, backends) for arm in _arms(plan)]
                for seed in range(plan.seeds)
            ],
            axis=0,
        )
        for problem, scale in _problems(plan, family)
    ]
    _print_row(family, np.array(rows))
    return rows


def _arms(plan: TransferPlan) -> tuple[str, str]:
    return plan.creator, f"{plan.creator}:{creators.RETRIEVE}"


def _past_studies(plan: TransferPlan, family: str) -> list[PastStudy]:
    """Return studies of data sets spread evenly over the training side of a family."""
    train = splits()["yahpo"]["families"][family]["train"]
    chosen = [train[i * len(train) // plan.instances] for i in range(plan.instances)]
    made = []
    for instance in chosen:
        problem = open_problem(f"yahpo/{family}/{instance}/{plan.metric}/full", plan.folders)
        creator = creators.make_creator(creators.parse_name(_PAST_BY), problem.task, None)
        made.append(simulation.run_past_study(problem, creator, seed=0, trials=plan.past_trials))
    return made


def _problems(plan: TransferPlan, family: str) -> Iterator[tuple[Problem, Reference]]:
    """Yield the problems on data sets for choosing settings, except those with equal values."""
    sides = splits()
    for instance in sides["yahpo"]["families"][family]["held_out"]:
        if data_set_id(family, instance) in sides["bench"]["settings_data_sets"]:
            problem = open_problem(f"yahpo/{family}/{instance}/{plan.metric}/full", plan.folders)
            scale = compute_reference(problem)
            if scale.best != scale.median:
                yield problem, scale


def _regret(
    problem: Problem,
    scale: Reference,
    arm: str,
    seed: int,
    known: list[PastStudy],
    backends: Backends,
) -> list[float]:
    """Return (AT,): the regret of the best trial so far."""
    choice = creators.parse_name(arm)
    creator = creators.make_creator(choice, problem.task, backends.get(choice), known)
    rows = simulation.run_study(problem, creator, seed=seed, trials=max(AT))
    gap = scale.best - scale.median
    regrets = [1.0 if row.value is None else (scale.best - row.value) / gap for row in rows]
    return [max(0.0, min(regrets[:trials])) for trials in AT]


def _print_row(what: str, regrets: Regrets) -> None:
    """Print both arms and their difference; regrets: (problems, arms, AT)."""
    from scipy.stats import wilcoxon

    for place, trials in enumerate(AT):
        off, on = regrets[:, 0, place], regrets[:, 1, place]
        p = wilcoxon(off, on).pvalue if np.any(off != on) else 1.0
        print(
            f"{what:14s} @{trials:<3d} off {off.mean():.3f}  retrieve {on.mean():.3f}  "
            f"better {np.mean(on < off):.0%}, worse {np.mean(on > off):.0%}  "
            f"p {p:.1e}  n {len(off)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
