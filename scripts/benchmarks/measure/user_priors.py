"""What a user's priors are worth, and what wrong ones cost.

    python -m scripts.benchmarks.measure.user_priors --data DIR [--suite yahpo-settings] [--seeds 2]

Every hyperparameter of a problem gets a prior around one configuration: `good` is the best of 200
random ones, `weak` the best of four, `misleading` the worst of 200. The optimizer works with each
of them and without, and with no other source. The last column is the median over studies of the
trials that a prior costs: how many more it needs to be as good as without after ten trials.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from localhpo.creator.hybrid import HybridCreator
from localhpo.space import Categorical, Ordinal, Parameter, Space
from localhpo.space.base import NumberPrior
from localhpo.trial import Config, Value
from scripts.benchmarks import simulation
from scripts.benchmarks.problems.dims import Array
from scripts.benchmarks.problems.problem import Problem, compute_reference, rng_of
from scripts.benchmarks.problems.registry import DataFolders, open_problem
from scripts.benchmarks.problems.suites import find_suite

TRIALS = 20
SHOWN = (1, 3, 5, 10, 20)
TARGET = 10
"""Trial whose regret without a prior is the one to reach."""
SPREAD = 0.1
"""Spread of each prior, in parts of the range on its scale."""

Pick = Callable[[Array], int]
PRIORS: Mapping[str, Pick | None] = {
    "none": None,
    "good": lambda utilities: int(utilities.argmax()),
    "weak": lambda utilities: int(utilities[:4].argmax()),
    "misleading": lambda utilities: int(utilities.argmin()),
}


def main() -> None:
    """Run all studies and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of public data")
    parser.add_argument("--suite", default="yahpo-settings")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    folders = DataFolders(options.data, Path("trainings"))
    names = find_suite(options.suite).problems
    units = [(name, seed) for name in names for seed in range(options.seeds)]
    with ProcessPoolExecutor(options.jobs) as pool:
        found = list(pool.map(partial(_run_all, folders), units))
    print(f"{len(names)} problems x {options.seeds} seeds, regret at", *SHOWN)
    for kind in PRIORS:
        mean = np.mean([one[kind] for one in found], axis=0)
        shown = "  ".join(f"{mean[trial - 1]:.3f}" for trial in SHOWN)
        cost = statistics.median(_cost(one["none"], one[kind]) for one in found)
        print(f"{kind:12} {shown}  {cost:+.0f}")


def _run_all(folders: DataFolders, unit: tuple[str, int]) -> dict[str, Array]:
    """Return the regret of the best so far by trial, for each prior."""
    name, seed = unit
    problem = open_problem(name, folders)
    reference = compute_reference(problem)
    rng = rng_of("user prior", name, seed)
    configs = [problem.space.sample(rng) for _ in range(200)]
    sign = 1.0 if problem.direction == "maximize" else -1.0
    utilities = np.nan_to_num(sign * problem.evaluate_many(configs), nan=-np.inf)
    found = {}
    for kind, pick in PRIORS.items():
        expected = None if pick is None else configs[pick(utilities)]
        tuned = problem if expected is None else _with_prior(problem, expected)
        trials = simulation.run_study(tuned, HybridCreator(), seed=seed, trials=TRIALS)
        values = np.array([np.nan if t.value is None else t.value for t in trials], dtype=float)
        regrets = (values - reference.best) / (reference.median - reference.best)
        found[kind] = np.fmin.accumulate(np.nan_to_num(np.clip(regrets, 0.0, 3.0), nan=3.0))
    return found


def _cost(without: Array, with_prior: Array) -> float:
    """Return how many trials more the regret at `TARGET` takes; negative where it takes fewer."""
    target = without[TARGET - 1]
    first, needed = (np.nonzero(one <= target + 1e-12)[0] for one in (without, with_prior))
    return (float(needed[0]) if len(needed) else TRIALS) - float(first[0])


def _with_prior(problem: Problem, expected: Config) -> Problem:
    space = Space([_informed(p, expected.get(p.name)) for p in problem.space.parameters])
    return dataclasses.replace(problem, task=dataclasses.replace(problem.task, space=space))


def _informed(parameter: Parameter, value: Value | None) -> Parameter:
    if value is None:  # inactive there
        return parameter
    if isinstance(parameter, Categorical | Ordinal):
        return dataclasses.replace(parameter, likely=(value,))
    low, high = parameter.low, parameter.high
    spread = (high / low) ** SPREAD if parameter.log else SPREAD * (high - low)
    return dataclasses.replace(parameter, prior=NumberPrior(float(value), spread))


if __name__ == "__main__":
    main()
