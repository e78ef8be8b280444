"""Makes the meta-data that come with a model: results of configurations on its training data sets.

For each kind of model, configurations are chosen that are best on some data set, and random ones.
Each is evaluated on each data set of the training side: by a surrogate, or by real trainings
(`REAL`, `designs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from localhpo.errors import InputError
from localhpo.finetune.relabeling import quantize_config
from localhpo.objective import Objective
from localhpo.space import Space
from localhpo.task import Task
from localhpo.transfer import source_tasks
from localhpo.transfer.source_tasks import SourceTask
from localhpo.trial import Config
from scripts.benchmarks.problems import yahpo
from scripts.benchmarks.problems.surrogates import full_space

from . import corpus, designs, problems, regret_models, trainings
from .learners import LEARNERS, Array
from .networks import NETWORKS

DATA_SETS = 24
"""Largest number of data sets of a family, spread evenly over those that may be trained on."""

LEAST_DATA_SETS = 3
"""Smallest number of data sets: with fewer, a configuration that is good on all is not known."""

DRAWS, CHILDREN = 500, 150
"""Number of random configurations to choose from, and of children of the best, added twice."""

BEST, ORDINARY = 100, 60
"""Number of configurations that are best on some data set, and of random ones."""

APART = 0.05
"""Smallest distance of two of the best in the unit cube."""

REAL: Mapping[tuple[str, str], Sequence[str]] = {
    ("xgboost", "binary"): ("f1",),
    ("xgboost", "regression"): ("rmse", "mae", "r2"),
}
"""Learner and kind of data -> metrics with real trainings, because surrogates are wrong there.
None of the other metrics that were tried gained significantly (`models/sprout/README.md`)."""

META_DATA_NETWORKS = frozenset({"gcn", "deepfm", "lightgcn"})
"""Networks with meta-data. The others only have questions: small convolutional networks and
transformers have larger best learning rates, and these are far smaller than those of users."""

Scores = Callable[[Sequence[Config]], Array]
"""Configurations -> (metrics, data sets, configurations): higher is better, NaN where unknown."""


def write_meta_data(sources: corpus.Sources, target: Path, seed: int) -> int:
    """Write the source tasks of all sources to a file; return their number.

    Raises:
        InputError: a source is unknown, or its data do not exist.
    """
    corpus.check(sources)
    rng = np.random.default_rng(seed)
    made = [
        *_from_yahpo(sources, rng), *_from_trainings(sources, rng), *_from_networks(sources, rng)
    ]  # fmt: skip
    temporary = target.with_name(f"{target.name}.part")
    source_tasks.write_source_tasks(temporary, made)
    temporary.replace(target)
    return len(made)


def is_complete(path: Path) -> bool:
    """Return whether a file of source tasks exists and can be read to its end."""
    try:
        source_tasks.read_source_tasks(path, lambda _: False)
    except InputError:
        return False
    return True


def _from_yahpo(sources: corpus.Sources, rng: np.random.Generator) -> Iterator[SourceTask]:
    if "yahpo" not in sources.names:
        return
    pairs = yahpo.training(sources.data)
    for scenario in {id(s): s for s, _ in pairs}.values():
        instances = [i for s, i in pairs if s is scenario]
        count = min(len(instances), DATA_SETS)
        chosen = tuple(instances[i * len(instances) // count] for i in range(count))
        lower = [yahpo.lower_is_better(target) for target in scenario.targets]
        sign = np.where(lower, -1.0, 1.0)

        def scores(
            configs: Sequence[Config], scenario: yahpo.Scenario = scenario,
            chosen: tuple[str, ...] = chosen, sign: Array = sign,
        ) -> Array:  # fmt: skip
            return np.moveaxis(sign * scenario.evaluate_each(chosen, configs), 2, 0)

        space = full_space(scenario.dims)
        text = f"{yahpo.TITLES[scenario.name]} on a table."
        tasks = [
            _make_task(scenario.name, target, low, space, text)
            for target, low in zip(scenario.targets, lower, strict=True)
        ]
        yield from _to_source_tasks(tasks, chosen, scores, rng)


def _from_trainings(sources: corpus.Sources, rng: np.random.Generator) -> Iterator[SourceTask]:
    if "training" not in sources.names:
        return
    records = corpus.usable(trainings.load(sources.records))
    for learner in LEARNERS:
        for kind in learner.tasks:
            own = [r for r in records if (r["learner"], r["kind"]) == (learner.name, kind)]
            if len(own) < LEAST_DATA_SETS:
                continue
            dims = problems.dims_of(learner, own[0])
            targets = list(next(s for s in own[0]["scores"] if s))
            space, text = full_space(dims), f"{learner.title}, {kind} data."
            lower = [target in trainings.LOWER_IS_BETTER for target in targets]
            tasks = [
                _make_task(learner.name, target, low, space, text)
                for target, low in zip(targets, lower, strict=True)
            ]
            seeds = [r["seed"] for r in own]
            path = trainings.design_path(sources.records.parent, learner, kind)
            design = designs.Design(path, space, learner, kind, seeds)
            surrogates = [
                [problems.surrogate(record, dims, target, low) for record in own]
                for target, low in zip(targets, lower, strict=True)
            ]

            def scores(
                configs: Sequence[Config], dims: Any = dims, surrogates: Any = surrogates
            ) -> Array:
                x = problems.encode(dims, configs)
                return np.array([[one.predict(x) for one in row] for row in surrogates])

            trained_metrics = REAL.get((learner.name, kind), ())
            yield from _to_source_tasks(
                tasks, [str(s) for s in seeds], scores, rng, design, trained_metrics
            )


def _from_networks(sources: corpus.Sources, rng: np.random.Generator) -> Iterator[SourceTask]:
    if "network" not in sources.names:
        return
    for learner in NETWORKS:
        if learner.name not in META_DATA_NETWORKS:
            continue
        design = designs.open_network_design(learner, sources.records.parent)
        configs, names = tuple(design.configs), [str(seed) for seed in design.seeds]
        for target in design.metrics():
            lower = target in trainings.LOWER_IS_BETTER
            text = f"{learner.title}, generated {learner.tasks[0]}."
            task = _make_task(learner.name, target, lower, full_space(learner.dims), text)
            known = design.regrets(target)
            yield from _to_source_task(task, configs, names, known, rng, designs.NOISE)


def _make_task(name: str, metric: str, lower: bool, space: Space, text: str) -> Task:
    objective = Objective(metric, "minimize" if lower else "maximize")
    return Task(name=name, command=(), objectives=(objective,), space=space, background=text)


def _to_source_tasks(
    tasks: Sequence[Task], data_sets: Sequence[str], scores: Scores, rng: np.random.Generator,
    design: designs.Design | None = None, trained_metrics: Sequence[str] = (),
) -> Iterator[SourceTask]:  # fmt: skip
    """Yield the source tasks of one kind of model, one for each metric.

    Args:
        tasks: one for each metric, over the full space.
        data_sets: names of the data sets.
        scores: returns the metrics of any configurations, at low cost.
        rng: makes all random choices.
        design: trained really; it starts with the configurations that the scores choose.
        trained_metrics: metrics that are taken from the design.
    """
    space = tasks[0].space
    pool, known = _draw_pool(space, scores, rng)
    found = regret_models.compute_regrets(known, DRAWS)
    chosen = _choose_design(space, pool, found, rng)
    configs = tuple(pool[i] for i in chosen)
    for task, one in zip(tasks, found[:, :, chosen], strict=True):
        if task.metric not in trained_metrics:
            yield from _to_source_task(task, configs, data_sets, one, rng)
    if design is None or not trained_metrics:
        return
    design.grow(configs, trained_metrics, int(rng.integers(2**31)))
    trained, names = tuple(design.configs), [str(seed) for seed in design.seeds]
    for task in tasks:
        if task.metric in trained_metrics:
            known = design.regrets(task.metric)
            yield from _to_source_task(task, trained, names, known, rng, designs.NOISE)


def _to_source_task(
    task: Task, configs: tuple[Config, ...], data_sets: Sequence[str], known: Array,
    rng: np.random.Generator, noise: float | None = None,
) -> Iterator[SourceTask]:  # fmt: skip
    """Yield the source task of one metric, unless too few data sets are left."""
    varied = known.std(axis=1) > 0.0  # leaves out data sets on which all values are equal
    if varied.sum() < LEAST_DATA_SETS:
        return
    x = np.array([task.space.encode(config) for config in configs])
    lengths, found = regret_models.fit_process(task.space, x, known[varied], rng)
    yield SourceTask(
        task=task, configs=configs,
        data_sets=tuple(d for d, t in zip(data_sets, varied, strict=True) if t),
        regrets=tuple(tuple(map(float, row)) for row in known[varied]),
        lengths=tuple(map(float, lengths)), noise=found if noise is None else noise,
    )  # fmt: skip


def _draw_pool(
    space: Space, scores: Scores, rng: np.random.Generator
) -> tuple[list[Config], Array]:
    """Return configurations, the first `DRAWS` of them random, and their scores."""
    pool: list[Config] = [quantize_config(space, space.sample(rng)) for _ in range(DRAWS)]
    known = scores(pool)
    for spread in (0.1, 0.05):
        flat = regret_models.compute_regrets(known, DRAWS).reshape(-1, len(pool))
        bred = []
        for _ in range(CHILDREN):
            row = flat.mean(axis=0) if rng.uniform() < 0.5 else flat[rng.integers(len(flat))]
            child = corpus.child(space, pool, np.argsort(row)[: DRAWS // 30], spread, rng)
            bred.append(quantize_config(space, child))
        pool += bred
        known = np.concatenate([known, scores(bred)], axis=2)
    return pool, known


def _choose_design(
    space: Space, pool: Sequence[Config], known: Array, rng: np.random.Generator
) -> list[int]:
    """Return indices of the best of each metric and data set in turn, and of random ones."""
    orders = np.argsort(known.reshape(-1, len(pool)), axis=1, kind="stable")
    best: list[int] = []
    while len(best) < BEST:
        before = len(best)
        for order in rng.permutation(orders):
            apart = (
                int(i) for i in order[: DRAWS // 5]
                if all(space.distance(pool[i], pool[j]) >= APART for j in best)
            )  # fmt: skip
            best += [i for i in [next(apart, None)] if i is not None]
        if len(best) == before:
            break
    chosen = {space.key(pool[i]): i for i in best[:BEST]}
    size = len(chosen) + ORDINARY
    for i in rng.permutation(DRAWS):
        if len(chosen) < size:
            chosen.setdefault(space.key(pool[i]), int(i))
    return list(chosen.values())
