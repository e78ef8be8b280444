"""Past studies that a model takes along: those that it was trained on, kept as they are.

The weights hold what is usual; these hold single cases, from which a Creator remembers what was
good in a space like the one at hand, as it does from its owner's own studies. Each is the best of
many draws on one data set of the training side, and some ordinary draws to measure them by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from localhpo.bench.problems import yahpo
from localhpo.bench.problems.surrogates import full_space
from localhpo.experience import Past, shipped
from localhpo.finetune.coarse import coarse
from localhpo.space import Space
from localhpo.task import Task
from localhpo.trial import Proposal, State, Trial

from . import corpus, problems, trainings
from .learners import LEARNERS, Dim
from .problems import Merits, Problem

DATA_SETS = 24
"""Of a family, at most, spread evenly over those that may be trained on."""

BEST, OTHERS = 5, 15
"""Trials of a study: the best, no two alike, and ordinary ones."""

APART = 0.05
"""Distance in the space from which two configurations are not alike."""


def write(sources: corpus.Sources, target: Path, seed: int) -> int:
    """Write the studies of all sources to a file; return how many."""
    rng = np.random.default_rng(seed)
    made = [past for past in [*_of_yahpo(sources, rng), *_of_trainings(sources, rng)] if past]
    shipped.write(target, made)
    return len(made)


def _of_yahpo(sources: corpus.Sources, rng: np.random.Generator) -> Iterator[Past | None]:
    if "yahpo" not in sources.names:
        return
    pairs = yahpo.training(sources.data)
    for scenario in {id(s): s for s, _ in pairs}.values():
        instances = [i for s, i in pairs if s is scenario]
        count = min(len(instances), DATA_SETS)
        chosen = [instances[i * len(instances) // count] for i in range(count)]
        space, title = full_space(scenario.dims), yahpo.TITLES[scenario.name]
        for column, target in enumerate(scenario.targets):
            lower = yahpo.lower_is_better(target)
            task = _task(scenario.name, target, lower, space, f"{title} on a table.")
            for instance in chosen:

                def merits(
                    configs: Sequence[Mapping[str, Any]], instance: str = instance,
                    column: int = column, sign: float = -1.0 if lower else 1.0,
                    scenario: yahpo.Scenario = scenario,
                ) -> Any:  # fmt: skip
                    return sign * scenario.evaluate_each((instance,), configs)[:, :, column]

                yield _study(f"{scenario.name}/{instance}/{target}", task, merits, rng)


def _of_trainings(sources: corpus.Sources, rng: np.random.Generator) -> Iterator[Past | None]:
    if "training" not in sources.names:
        return
    for record in corpus.usable(trainings.load(sources.records)):
        learner = next(item for item in LEARNERS if item.name == record["learner"])
        dims = problems.dims_of(learner, record)
        for target in next(s for s in record["scores"] if s):
            lower = target in trainings.LOWER_IS_BETTER
            text = f"{learner.title} on {record['text']}."
            task = _task(learner.name, target, lower, full_space(dims), text)
            surrogate = problems.surrogate(record, dims, target, lower)

            def merits(
                configs: Sequence[Mapping[str, Any]], dims: Sequence[Dim] = dims,
                surrogate: problems.Surrogate = surrogate,
            ) -> Any:  # fmt: skip
                return surrogate.predict(problems.encode(dims, configs))[None, :]

            yield _study(f"{learner.name}/{record['seed']}/{target}", task, merits, rng)


def _task(name: str, metric: str, lower: bool, space: Space, text: str) -> Task:
    direction = "minimize" if lower else "maximize"
    return Task(
        name=name, command=(), metric=metric, direction=direction, space=space, background=text
    )


def _study(name: str, task: Task, merits: Merits, rng: np.random.Generator) -> Past | None:
    """Return the study of one data set; None where all configurations are alike there."""
    problem = Problem(
        space=task.space, merits=merits, name=task.name, background=task.background,
        metric=task.metric, direction=task.direction, fixed={}, source=name,
    )  # fmt: skip
    pool = corpus.draw(problem, rng)
    if pool is None:
        return None
    order = [int(i) for i in np.argsort(-pool.merits) if np.isfinite(pool.merits[i])]
    configs = [coarse(task.space, config) for config in pool.configs]
    best: list[int] = []
    for i in order:
        apart = (task.space.distance(configs[i], configs[j]) for j in best)
        if len(best) < BEST and min(apart, default=1.0) >= APART:
            best.append(i)
    rest = [i for i in order if i < pool.random and i not in best]
    others = [rest[k * len(rest) // OTHERS] for k in range(OTHERS)] if len(rest) >= OTHERS else rest
    sign = 1.0 if task.direction == "maximize" else -1.0
    trials = tuple(
        Trial(
            number, State.COMPLETE,
            Proposal(configs[i], origin="engine:random"),
            score=float(f"{sign * pool.merits[i]:.5g}"),
        )
        for number, i in enumerate([*best, *others])
    )  # fmt: skip
    return Past(name, task, trials)
