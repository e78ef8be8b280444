"""Measures the first trials of networks on graphs, ratings, pictures and sequences.

    python -m scripts.benchmarks.measure.networks --work .data/networks

Each is really trained (scripts/build_model/networks.py), on generated data sets that
are not in the meta-data, in the space of a ready task or one that a user might write. Trainings are
kept in `--work`, so a run continues where it was stopped. Needs the extras `bench` and
`local`, and torch-geometric; one to two seconds a training, 40 minutes with the defaults.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from localhpo import tasks
from localhpo.objective import Objective
from localhpo.space import Categorical, Float, Int, Ordinal, Space
from localhpo.task import Task, load_task
from localhpo.trial import Config
from scripts.benchmarks import creators, simulation
from scripts.benchmarks.problems.problem import Problem, compute_reference
from scripts.benchmarks.problems.trainings import Cache
from scripts.build_model import networks, trainings
from scripts.build_model.learners import Learner

COLUMNS = (1, 3, 5, 10)

BEYOND = 900
"""Offset of the seeds of these data sets from those of the meta-data."""

DRAWS = 40
"""Number of random configurations, whose median has regret 1."""


@dataclass(frozen=True)
class Case:
    """One kind of network as it is tuned."""

    space: Space
    metric: str
    background: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """Name in the user's space -> name in the full space."""


def _of_task(name: str, metric: str, background: str) -> Case:
    return Case(load_task(tasks.find(name)).space, metric, background)


_PICTURES = Space(
    [
        Categorical("optimizer", ("adam", "sgd")),
        Float("lr", 1e-4, 1e-1, log=True),
        Float("momentum", 0.5, 0.99, when={"optimizer": ("sgd",)}),
        Float("weight_decay", 1e-6, 1e-2, log=True),
        Float("dropout_rate", 0.0, 0.5),
        Ordinal("batch_size", (32, 64, 128, 256)),
        Int("epochs", 5, 30),
    ]
)
_SEQUENCES = Space(
    [
        Float("lr", 1e-5, 1e-2, log=True),
        Int("n_layers", 1, 3),
        Ordinal("d_model", (16, 32, 64)),
        Float("dropout", 0.0, 0.5),
        Ordinal("batch_size", (16, 32, 64, 128)),
        Int("epochs", 3, 20),
        Float("weight_decay", 1e-6, 1e-1, log=True),
    ]
)


def cases() -> dict[str, Case]:
    """Return the cases by name of the network."""
    return {
        "gcn": _of_task("cora-gcn", "accuracy", "A GCN that classifies the nodes of a graph."),
        "deepfm": _of_task("movielens-deepfm", "auc", "DeepFM that predicts clicks."),
        "lightgcn": Case(
            Space(
                [
                    Int("embedding_size", 16, 128), Float("learning_rate", 1e-5, 1e-1, log=True),
                    Categorical("optimizer", ("adam", "sgd")),
                    Float("reg_weight", 1e-6, 1e-1, log=True),
                    Ordinal("batch_size", (512, 1024, 2048)), Int("epochs", 20, 100),
                    Int("num_layers", 1, 4),
                ]
            ),
            "ndcg10", "LightGCN that recommends things.",
        ),
        "cnn": Case(
            _PICTURES, "accuracy", "A small convolutional network, pictures.",
            names={"lr": "learning_rate", "dropout_rate": "dropout"},
        ),
        "transformer": Case(
            _SEQUENCES, "accuracy", "A small transformer from scratch, sequences.",
            fixed={"warmup_ratio": 0.1, "activation": "gelu"},
            names={"lr": "learning_rate", "n_layers": "num_layers"},
        ),
    }  # fmt: skip


def problem(learner: Learner, case: Case, number: int, work: Path) -> Problem:
    """Return a problem: a network on a generated data set, with values cached in `work`."""
    seed = learner.first_seed + BEYOND + number
    data, text = trainings.data_set(learner, learner.tasks[0], seed)
    task = Task(
        name=learner.name, command=(), objectives=(Objective(f"val_{case.metric}", "maximize"),),
        space=case.space, background=f"{case.background} Data: {text}.", fixed=case.fixed,
    )  # fmt: skip
    cache = Cache(work / f"{learner.name}-{number}.jsonl")

    def one(config: Config) -> float:
        whole = {case.names.get(name, name): value for name, value in config.items()}

        def train() -> float:
            measured = trainings.evaluate(learner, {**case.fixed, **whole}, data, seed)
            return measured.get(case.metric, math.nan)

        return cache.fetch(case.space.key(config), train)

    def evaluate_many(configs: Sequence[Config]) -> Any:
        return np.array([one(config) for config in configs])

    return Problem(f"{learner.name}/{number}", task, evaluate_many, {}, draws=DRAWS, crosses=0)


def regrets(problem: Problem, names: Sequence[str], seeds: int) -> dict[str, Any]:
    """Return (seeds, columns) by Creator; the best is the best that any of them found."""
    scale = compute_reference(problem)
    scores = {
        name: np.array([_best_values(problem, name, seed, scale.median) for seed in range(seeds)])
        for name in names
    }
    best = max(scale.best, *(float(one.max()) for one in scores.values()))
    span = max(best - scale.median, 1e-9)
    return {name: (best - one)[:, np.array(COLUMNS) - 1] / span for name, one in scores.items()}


def _best_values(problem: Problem, name: str, seed: int, failed: float) -> Any:
    """Return the best value after each trial; a failed trial counts as the median."""
    choice = creators.parse_name(name)
    creator = creators.make_creator(choice, problem.task, creators.process_backends().get(choice))
    rows = simulation.run_study(problem, creator, seed=seed, trials=max(COLUMNS))
    return np.maximum.accumulate([failed if r.value is None else r.value for r in rows])


def main() -> None:
    """Measure and print, network by network and over all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".data/networks"))
    parser.add_argument("--networks", default=",".join(cases()))
    parser.add_argument("--creators", default="hybrid,center+gp,tpe,random")
    parser.add_argument("--data-sets", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    chosen = options.networks.split(",")
    if unknown := [name for name in chosen if name not in cases()]:
        parser.error(f"networks are {', '.join(cases())}; got {', '.join(unknown)}")
    options.work.mkdir(parents=True, exist_ok=True)
    names = options.creators.split(",")
    found: dict[str, list[Any]] = {name: [] for name in names}
    print(f"{'':22}" + "".join(f"{'@' + str(column):>8}" for column in COLUMNS))
    for wanted in chosen:
        learner = next(one for one in networks.NETWORKS if one.name == wanted)
        own: dict[str, list[Any]] = {name: [] for name in names}
        for number in range(options.data_sets):
            made = problem(learner, cases()[wanted], number, options.work)
            for name, rows in regrets(made, names, options.seeds).items():
                own[name].append(rows)
                found[name].append(rows.mean(axis=0))
        for name in names:
            _print(wanted, name, np.concatenate(own[name]))
    for name in names:
        _print("all", name, np.array(found[name]))


def _print(title: str, name: str, rows: Any) -> None:
    means = "".join(f"{mean:8.3f}" for mean in rows.mean(axis=0))
    error = rows.std(axis=0, ddof=1) / math.sqrt(len(rows)) if len(rows) > 1 else rows[0] * 0
    errors = " ".join(f"{one:.3f}" for one in error)
    print(f"{title:12}{name:10}{means}   ± {errors}", flush=True)


if __name__ == "__main__":
    main()
