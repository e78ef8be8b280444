"""Lessons that a model takes along: how configurations did on the data sets it was trained on.

The weights hold what is usual; these hold the cases. For each kind of model a design of
configurations is chosen, such as are best somewhere and ordinary ones, and each is evaluated on
each data set of the training side: by a surrogate, or by trainings (`REAL`, `designs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from localhpo.bench.problems import yahpo
from localhpo.bench.problems.surrogates import full_space
from localhpo.errors import InputError
from localhpo.experience import lessons
from localhpo.experience.lessons import Lesson
from localhpo.finetune.coarse import coarse
from localhpo.space import Space
from localhpo.task import Task
from localhpo.trial import Config

from . import corpus, designs, problems, surfaces, trainings
from .learners import LEARNERS, Array
from .networks import NETWORKS

DATA_SETS = 24
"""Of a family, at most, spread evenly over those that may be trained on."""

LEAST_DATA_SETS = 3
"""With fewer there is nothing to tell what is good everywhere from what is good on one."""

DRAWS, CHILDREN = 500, 150
"""Random configurations to choose a design from; bred from the best of them, twice."""

BEST, ORDINARY = 100, 60
"""Configurations of a design: such as are best on some data set, no two alike, and random ones."""

APART = 0.05
"""Distance in the space from which two configurations are not alike."""

REAL: Mapping[tuple[str, str], Sequence[str]] = {
    ("xgboost", "binary"): ("f1",),
    ("xgboost", "regression"): ("rmse", "mae", "r2"),
}
"""Learner and kind of data -> metrics that are taught by designs really trained, for surrogates
say what is wrong there. Of the others that were tried, none gained for certain
(`models/sprout/README.md`)."""

TAUGHT_NETWORKS = frozenset({"gcn", "deepfm", "lightgcn"})
"""Networks that lessons are made of. Of the others questions alone: the smaller a convolutional
network or a transformer is, the larger is its best learning rate, and these are far smaller than
what people train."""

Scores = Callable[[Sequence[Config]], Array]
"""Configurations to (metrics, data sets, configurations): higher is better, NaN where none is."""


def write(sources: corpus.Sources, target: Path, seed: int) -> int:
    """Write the lessons of all sources to a file; return how many.

    Raises:
        InputError: a source is unknown, or what it is made of is not there.
    """
    corpus.check(sources)
    rng = np.random.default_rng(seed)
    made = [
        *_of_yahpo(sources, rng), *_of_trainings(sources, rng), *_of_networks(sources, rng)
    ]  # fmt: skip
    part = target.with_name(f"{target.name}.part")
    lessons.write(part, made)
    part.replace(target)
    return len(made)


def is_whole(path: Path) -> bool:
    """Return whether a file of lessons is there and can be read to its end."""
    try:
        lessons.read(path, lambda _: False)
    except InputError:
        return False
    return True


def _of_yahpo(sources: corpus.Sources, rng: np.random.Generator) -> Iterator[Lesson]:
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
            _task(scenario.name, target, low, space, text)
            for target, low in zip(scenario.targets, lower, strict=True)
        ]
        yield from _lessons(tasks, chosen, scores, rng)


def _of_trainings(sources: corpus.Sources, rng: np.random.Generator) -> Iterator[Lesson]:
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
                _task(learner.name, target, low, space, text)
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

            wanted = REAL.get((learner.name, kind), ())
            yield from _lessons(tasks, [str(s) for s in seeds], scores, rng, design, wanted)


def _of_networks(sources: corpus.Sources, rng: np.random.Generator) -> Iterator[Lesson]:
    if "network" not in sources.names:
        return
    for learner in NETWORKS:
        if learner.name not in TAUGHT_NETWORKS:
            continue
        design = designs.of_network(learner, sources.records.parent)
        configs, names = tuple(design.configs), [str(seed) for seed in design.seeds]
        for target in design.metrics():
            lower = target in trainings.LOWER_IS_BETTER
            text = f"{learner.title}, generated {learner.tasks[0]}."
            task = _task(learner.name, target, lower, full_space(learner.dims), text)
            known = design.regrets(target)
            yield from _lesson(task, configs, names, known, rng, designs.NOISE)


def _task(name: str, metric: str, lower: bool, space: Space, text: str) -> Task:
    direction = "minimize" if lower else "maximize"
    return Task(
        name=name, command=(), metric=metric, direction=direction, space=space, background=text
    )


def _lessons(
    tasks: Sequence[Task], data_sets: Sequence[str], scores: Scores, rng: np.random.Generator,
    design: designs.Design | None = None, wanted: Sequence[str] = (),
) -> Iterator[Lesson]:  # fmt: skip
    """Yield what one kind of model teaches, by metric.

    Args:
        tasks: of its full space, one for each metric.
        data_sets: their names.
        scores: of any configurations, cheap.
        rng: draws the design.
        design: that is really trained, begun with what the scores choose.
        wanted: metrics that are taught by this one.
    """
    space = tasks[0].space
    pool, known = _pool(space, scores, rng)
    found = surfaces.regrets(known, DRAWS)
    chosen = _design(space, pool, found, rng)
    configs = tuple(pool[i] for i in chosen)
    for task, one in zip(tasks, found[:, :, chosen], strict=True):
        if task.metric not in wanted:
            yield from _lesson(task, configs, data_sets, one, rng)
    if design is None or not wanted:
        return
    design.grow(configs, wanted, int(rng.integers(2**31)))
    trained, names = tuple(design.configs), [str(seed) for seed in design.seeds]
    for task in tasks:
        if task.metric in wanted:
            known = design.regrets(task.metric)
            yield from _lesson(task, trained, names, known, rng, designs.NOISE)


def _lesson(
    task: Task, configs: tuple[Config, ...], data_sets: Sequence[str], known: Array,
    rng: np.random.Generator, noise: float | None = None,
) -> Iterator[Lesson]:  # fmt: skip
    """Yield the lesson of one metric, where there is one; `noise`: where it is known."""
    told = known.std(axis=1) > 0.0  # a data set on which all are alike teaches nothing
    if told.sum() < LEAST_DATA_SETS:
        return
    x = np.array([task.space.encode(config) for config in configs])
    lengths, found = surfaces.fitted(task.space, x, known[told], rng)
    yield Lesson(
        task=task, configs=configs,
        data_sets=tuple(d for d, t in zip(data_sets, told, strict=True) if t),
        regrets=tuple(tuple(map(float, row)) for row in known[told]),
        lengths=tuple(map(float, lengths)), noise=found if noise is None else noise,
    )  # fmt: skip


def _pool(space: Space, scores: Scores, rng: np.random.Generator) -> tuple[list[Config], Array]:
    """Return configurations, the first `DRAWS` of them random, and their scores."""
    pool: list[Config] = [coarse(space, space.sample(rng)) for _ in range(DRAWS)]
    known = scores(pool)
    for spread in (0.1, 0.05):
        flat = surfaces.regrets(known, DRAWS).reshape(-1, len(pool))
        bred = []
        for _ in range(CHILDREN):
            row = flat.mean(axis=0) if rng.uniform() < 0.5 else flat[rng.integers(len(flat))]
            child = corpus.child(space, pool, np.argsort(row)[: DRAWS // 30], spread, rng)
            bred.append(coarse(space, child))
        pool += bred
        known = np.concatenate([known, scores(bred)], axis=2)
    return pool, known


def _design(
    space: Space, pool: Sequence[Config], known: Array, rng: np.random.Generator
) -> list[int]:
    """Return places in the pool: the best of each metric and data set in turn, and random ones."""
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
