"""Lessons that a model takes along: how configurations did on the data sets it was trained on.

The weights hold what is usual; these hold the cases. For each kind of model a design of
configurations is chosen, such as are best somewhere and ordinary ones, and each is evaluated on
each data set of the training side: by a surrogate, or by trainings (`REAL`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from localhpo.bench.problems import yahpo
from localhpo.bench.problems.surrogates import full_space
from localhpo.creator.bayes import gp
from localhpo.experience import lessons
from localhpo.experience.lessons import Lesson
from localhpo.finetune.coarse import coarse
from localhpo.space import Space
from localhpo.task import Task
from localhpo.trial import Config

from . import corpus, problems, trainings
from .learners import LEARNERS, Array, Learner

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

FITTED, POINTS = 4, 80
"""Data sets, and points of the design, whose processes say what the lengths are: their median."""

REAL: Mapping[tuple[str, str], Collection[str]] = {("xgboost", "binary"): ("f1",)}
"""Learner and kind of data -> metrics whose regrets are those of real trainings of the design on
each data set. What surrogates of random configurations say is worse there, and no worse for other
metrics that were tried (`models/sprout/README.md`)."""

REAL_NOISE = 0.25
"""Of the processes over those. Leaving out one configuration of the design, 0.2 to 0.3 predicts it
best, for every metric."""

Scores = Callable[[Sequence[Config]], Array]
"""Configurations to (metrics, data sets, configurations): higher is better, NaN where none is."""


def write(sources: corpus.Sources, target: Path, seed: int) -> int:
    """Write the lessons of all sources to a file; return how many."""
    rng = np.random.default_rng(seed)
    made = [*_of_yahpo(sources, rng), *_of_trainings(sources, rng)]
    lessons.write(target, made)
    return len(made)


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
            lower = [target in trainings.LOWER_IS_BETTER for target in targets]
            surrogates = [
                [problems.surrogate(record, dims, target, low) for record in own]
                for target, low in zip(targets, lower, strict=True)
            ]

            def scores(
                configs: Sequence[Config], dims: Any = dims, surrogates: Any = surrogates
            ) -> Array:
                x = problems.encode(dims, configs)
                return np.array([[one.predict(x) for one in row] for row in surrogates])

            space, text = full_space(dims), f"{learner.title}, {kind} data."
            tasks = [
                _task(learner.name, target, low, space, text)
                for target, low in zip(targets, lower, strict=True)
            ]
            seeds = [r["seed"] for r in own]
            wanted = REAL.get((learner.name, kind), ())
            real = partial(_trained, sources, learner, kind, seeds, targets)
            yield from _lessons(tasks, [str(seed) for seed in seeds], scores, rng, real, wanted)


def _trained(
    sources: corpus.Sources, learner: Learner, kind: str, seeds: Sequence[int],
    targets: Sequence[str], configs: Sequence[Config],
) -> Array:  # fmt: skip
    """Return (targets, data sets, configurations): the scores of real trainings, as of `Scores`."""
    records = _designs(sources, learner, kind, seeds, configs)
    sign = {t: -1.0 if t in trainings.LOWER_IS_BETTER else 1.0 for t in targets}
    return np.array([
        [[sign[t] * one.get(t, np.nan) for one in record["scores"]] for record in records]
        for t in targets
    ])  # fmt: skip


def _designs(
    sources: corpus.Sources, learner: Learner, kind: str, seeds: Sequence[int],
    configs: Sequence[Config],
) -> list[Mapping[str, Any]]:  # fmt: skip
    """Train a design on data sets, but for those that an earlier call has done."""
    digest = hashlib.sha256(json.dumps(configs).encode()).hexdigest()[:12]
    path = sources.records.with_name(f"design-{learner.name}-{kind}-{digest}.jsonl")
    done = {r["seed"]: r for r in trainings.load(path)} if path.exists() else {}
    for seed in seeds:
        if seed not in done:
            done[seed] = trainings.run_design(learner, kind, seed, configs)
            with path.open("a") as out:
                out.write(json.dumps(done[seed]) + "\n")
    return [done[seed] for seed in seeds]


def _task(name: str, metric: str, lower: bool, space: Space, text: str) -> Task:
    direction = "minimize" if lower else "maximize"
    return Task(
        name=name, command=(), metric=metric, direction=direction, space=space, background=text
    )


def _lessons(
    tasks: Sequence[Task], data_sets: Sequence[str], scores: Scores, rng: np.random.Generator,
    real: Scores | None = None, wanted: Collection[str] = (),
) -> Iterator[Lesson]:  # fmt: skip
    """Yield what one kind of model teaches, by metric.

    Args:
        tasks: of its full space, one for each metric.
        data_sets: their names.
        scores: of any configurations, cheap.
        rng: draws the design.
        real: those of a design, dear.
        wanted: metrics that are taught by these.
    """
    space = tasks[0].space
    pool, known = _pool(space, scores, rng)
    chosen = _design(space, pool, regrets(known), rng)
    configs = tuple(pool[i] for i in chosen)
    x = np.array([space.encode(config) for config in configs])
    taught = regrets(known)[:, :, chosen]
    if real is not None and wanted:
        # The random ones stand last in a design, and first where regrets are taken.
        trained = regrets(real(configs)[..., ::-1], ORDINARY)[..., ::-1]
        is_real = np.array([task.metric in wanted for task in tasks])
        taught = np.where(is_real[:, None, None], trained, taught)
    for task, one in zip(tasks, taught, strict=True):
        told = one.std(axis=1) > 0.0  # a data set on which all are alike teaches nothing
        if told.sum() < LEAST_DATA_SETS:
            continue
        lengths, noise = _process(space, x, one[told], rng)
        noise = REAL_NOISE if task.metric in wanted else noise
        yield Lesson(
            task=task, configs=configs,
            data_sets=tuple(d for d, t in zip(data_sets, told, strict=True) if t),
            regrets=tuple(tuple(map(float, row)) for row in one[told]),
            lengths=tuple(map(float, lengths)), noise=noise,
        )  # fmt: skip


def _pool(space: Space, scores: Scores, rng: np.random.Generator) -> tuple[list[Config], Array]:
    """Return configurations, the first `DRAWS` of them random, and their scores."""
    pool: list[Config] = [coarse(space, space.sample(rng)) for _ in range(DRAWS)]
    known = scores(pool)
    for spread in (0.1, 0.05):
        flat = regrets(known).reshape(-1, len(pool))
        bred = []
        for _ in range(CHILDREN):
            row = flat.mean(axis=0) if rng.uniform() < 0.5 else flat[rng.integers(len(flat))]
            child = corpus.child(space, pool, np.argsort(row)[: DRAWS // 30], spread, rng)
            bred.append(coarse(space, child))
        pool += bred
        known = np.concatenate([known, scores(bred)], axis=2)
    return pool, known


def regrets(scores: Array, draws: int = DRAWS) -> Array:
    """Return the regrets of scores (..., configurations), of which the first `draws` are random.

    Cut at `corpus.WORST`, which failures have as well; 0 everywhere where all are alike.
    """
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    best = scores.max(axis=-1, keepdims=True)
    scale = best - np.median(scores[..., :draws], axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(scale > 1e-9, (best - scores) / scale, 0.0)
    return np.clip(np.nan_to_num(found, nan=corpus.WORST), 0.0, corpus.WORST)


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


def _process(space: Space, x: Array, known: Array, rng: np.random.Generator) -> tuple[Array, float]:
    """Return the lengths and the noise of a process that suits most data sets."""
    found = []
    for row in known[rng.permutation(len(known))[:FITTED]]:
        some = rng.permutation(len(x))[:POINTS]
        y = (row.mean() - row[some]) / (row.std() or 1.0)
        theta, _ = gp.fit(gp.Data(x[some], np.zeros(len(some)), y, space.slices, 0.0))
        found.append(theta)
    theta = np.median(found, axis=0)
    return np.exp(theta[:-2]), float(np.exp(theta[-1]))
