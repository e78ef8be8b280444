"""Measure what past studies are worth: the same Creator with and without them, paired.

    python scripts/measure_experience.py --data DIR [--creator hybrid-no-model] [--seeds 8]

For each family of YAHPO, past studies are run on data sets of the training side of
`localhpo/bench/splits.toml`; then both arms run on its data sets for choosing settings. What
makes final tables is not touched. Prints regret (0 is the best known, 1 the median of random
configurations) at trials 1, 3, 5 and 10, and how often each was better, with Wilcoxon's test.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localhpo.bench import creators, pasts, simulation
from localhpo.bench.creators import Backends
from localhpo.bench.problems.opening import Places, open_problem
from localhpo.bench.problems.problem import Problem
from localhpo.bench.problems.yahpo import SPLITS
from localhpo.bench.references import Reference, reference
from localhpo.bench.splits import data_set
from localhpo.experience import Past

FAMILIES = ("rbv2_ranger", "rbv2_glmnet", "rbv2_aknn")
AT = (1, 3, 5, 10)
"""Trials after which regret is taken."""

_PAST_BY = "hybrid-no-model"


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    places: Places
    families: tuple[str, ...]
    metric: str
    creator: str
    instances: int
    """Data sets of a family with a past study each."""
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


def _plan() -> Plan:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds yahpo/")
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--metric", default="auc")
    parser.add_argument("--creator", default=_PAST_BY)
    parser.add_argument("--instances", type=int, default=8)
    parser.add_argument("--past-trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=8)
    given = parser.parse_args()
    return Plan(
        places=Places(given.data, Path("trainings")),
        families=tuple(given.families),
        metric=given.metric,
        creator=given.creator,
        instances=given.instances,
        past_trials=given.past_trials,
        seeds=given.seeds,
    )


def _family(plan: Plan, family: str, backends: Backends) -> list[list[list[float]]]:
    """Return (units, arms, AT): the regret of both arms on each problem and seed."""
    known = _past_studies(plan, family)
    rows = [
        [_regret(problem, best, arm, seed, known, backends) for arm in _arms(plan)]
        for problem, best in _problems(plan, family)
        for seed in range(plan.seeds)
    ]
    _print_row(family, np.array(rows))
    return rows


def _arms(plan: Plan) -> tuple[str, str]:
    return plan.creator, f"{plan.creator}:{creators.RETRIEVE}"


def _splits() -> Mapping[str, Any]:
    return tomllib.loads(SPLITS.read_text(encoding="utf-8"))


def _past_studies(plan: Plan, family: str) -> list[Past]:
    """Return studies of data sets spread evenly over the training side of a family."""
    train = _splits()["yahpo"]["families"][family]["train"]
    chosen = [train[i * len(train) // plan.instances] for i in range(plan.instances)]
    made = []
    for instance in chosen:
        problem = open_problem(f"yahpo/{family}/{instance}/{plan.metric}/full", plan.places)
        creator = creators.make(creators.parse(_PAST_BY), problem.task, None)
        made.append(pasts.past_of(problem, creator, seed=0, trials=plan.past_trials))
    return made


def _problems(plan: Plan, family: str) -> Iterator[tuple[Problem, Reference]]:
    """Yield the problems on data sets for choosing settings, but those where all is equal."""
    splits = _splits()
    for instance in splits["yahpo"]["families"][family]["held_out"]:
        if data_set(family, instance) in splits["bench"]["settings_data_sets"]:
            problem = open_problem(f"yahpo/{family}/{instance}/{plan.metric}/full", plan.places)
            scale = reference(problem)
            if scale.best != scale.median:
                yield problem, scale


def _regret(
    problem: Problem,
    scale: Reference,
    arm: str,
    seed: int,
    known: list[Past],
    backends: Backends,
) -> list[float]:
    """Return (AT,): the regret of the best trial so far."""
    choice = creators.parse(arm)
    creator = creators.make(choice, problem.task, backends.of(choice), known)
    rows = simulation.run(problem, creator, seed=seed, trials=max(AT))
    gap = scale.best - scale.median
    regrets = [1.0 if row.score is None else (scale.best - row.score) / gap for row in rows]
    return [max(0.0, min(regrets[:trials])) for trials in AT]


def _print_row(what: str, regrets: np.ndarray[Any, Any]) -> None:
    """Print both arms and their difference; (units, arms, AT)."""
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
