"""How good the model's first trials are, and whether it reads the history at all.

Regret is (best - y) / (best - median of random configurations), clipped to [0, 3]: 0 is the
best known point of the problem, 1 a middling random one. Everything goes through the same
backend, grammar and prompt as a study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localhpo import grammar
from localhpo.creator import context, prompt
from localhpo.creator.protocol import History
from localhpo.llm.protocol import Backend, Constraint
from localhpo.space import Float, Int, Space
from localhpo.task import Task
from localhpo.trial import Config, Proposal, State, Trial

from . import learners, problems, trainings, yahpo
from .learners import Array
from .problems import Problem

SAMPLES = 24
"""Drawn for a medoid."""

AGENT_SPACE = Space(
    [
        Int("max_depth", low=3, high=11),
        Float("learning_rate", low=1e-3, high=1.0, log=True),
        Int("min_child_weight", low=1, high=10),
        Float("subsample", low=0.5, high=1.0),
        Float("colsample_bytree", low=0.5, high=1.0),
        Int("n_estimators", low=100, high=500),
        Float("gamma", low=0.0, high=0.5),
        Float("reg_alpha", low=0.0, high=1.0),
        Float("reg_lambda", low=0.0, high=1.0),
        Float("scale_pos_weight", low=1.0, high=10.0),
    ]
)
"""The space of the tabular tasks of the AgentHPO paper."""


@dataclass(frozen=True)
class Outcome:
    """Mean regrets on one problem."""

    source: str
    random: float
    centre: float
    single: float
    """One sample of the model."""
    medoid: float
    """The most central of `SAMPLES` samples."""
    random_3: float
    """Best of three random configurations."""
    single_3: float
    """Best of three samples, each knowing the trials before it."""


def held_out_problems(data: Path, per_family: int, seed: int) -> Iterator[Problem]:
    """Yield problems of seen families on data sets that were never trained on."""
    rng = np.random.default_rng(seed)
    families: dict[str, list[tuple[yahpo.Scenario, str]]] = {}
    for scenario, instance in yahpo.held_out(data):
        families.setdefault(scenario.name, []).append((scenario, instance))
    for pairs in families.values():
        for i in range(min(per_family, len(pairs))):
            yield _made(lambda p=pairs, i=i: problems.from_yahpo(*p[i * 3 % len(p)], rng))


def unseen_problems(data: Path, count: int, seed: int) -> Iterator[Problem]:
    """Yield problems of the family that was never trained on."""
    rng = np.random.default_rng(seed)
    scenario = yahpo.open_all(data)["rbv2_svm"]
    for i in range(count):
        instance = scenario.instances[i * 7 % len(scenario.instances)]
        yield _made(lambda i=instance: problems.from_yahpo(scenario, i, rng))


def xgboost_problems(count: int, seed: int) -> Iterator[Problem]:
    """Yield real trainings of XGBoost in the AgentHPO space, on new generated data sets."""
    learner = next(item for item in learners.LEARNERS if item.name == "xgboost")
    for i in range(count):
        kind = learner.tasks[i % len(learner.tasks)]
        data, text = trainings.make_data(kind, np.random.default_rng(seed + i))
        target = "rmse" if kind == "regression" else ("f1", "logloss")[i // 3 % 2]
        lower = target in trainings.LOWER_IS_BETTER
        yield Problem(
            space=AGENT_SPACE, merit=_training_merit(learner, data, target, lower),
            name=f"generated-{i}", background=f"XGBoost on {text}.", metric=f"val_{target}",
            direction="minimize" if lower else "maximize", source=f"xgboost/{kind}/{seed + i}",
        )  # fmt: skip


def _training_merit(
    learner: learners.Learner, data: learners.Split, target: str, lower: bool
) -> Callable[[Sequence[Mapping[str, Any]]], Array]:
    def merit(configs: Sequence[Mapping[str, Any]]) -> Array:
        sign = -1.0 if lower else 1.0
        return np.array(
            [sign * trainings.evaluate(learner, dict(c), data, 0)[target] for c in configs]
        )

    return merit


def _made(make: Callable[[], Problem | None]) -> Problem:
    """Return a problem; try until the random cut holds something."""
    while (problem := make()) is None:
        pass
    return problem


def outcome(backend: Backend, problem: Problem, *, seed: int, draws: int, seeds: int) -> Outcome:
    """Return the regrets of the model and of its controls on one problem.

    Args:
        backend: the model.
        problem: what to tune.
        seed: of everything that is drawn.
        draws: random configurations for best and median.
        seeds: runs of the model.
    """
    rng = np.random.default_rng(seed)
    space = problem.space
    samples = _ask(backend, problem, (), 4 * SAMPLES, seed)
    medoids = [medoid(space, [samples[i] for i in rng.permutation(len(samples))[:SAMPLES]])
               for _ in range(seeds)]  # fmt: skip
    singles = samples[: max(seeds, 16)]
    runs = [_three(backend, problem, singles[i], seed + 1000 * i) for i in range(seeds)]
    random = problem.merit([space.sample(rng) for _ in range(draws)])
    random = random[np.isfinite(random)]
    merits = _Cached(problem)
    single, middle = merits(singles), merits(medoids)
    best = max(random.max(), single.max(), middle.max(), *(max(merits(run)) for run in runs))
    scale = max(best - float(np.median(random)), 1e-12)

    def regret(values: Any) -> Array:
        return np.clip((best - np.asarray(values)) / scale, 0.0, 3.0)

    threes = [rng.choice(random, 3).max() for _ in range(400)]
    return Outcome(
        source=problem.source, random=float(regret(random).mean()),
        centre=float(regret(merits([space.default()])).mean()),
        single=float(regret(single).mean()), medoid=float(regret(middle).mean()),
        random_3=float(regret(threes).mean()),
        single_3=float(regret([max(merits(run)) for run in runs]).mean()),
    )  # fmt: skip


def medoid(space: Space, configs: Sequence[Config]) -> Config:
    """Return the configuration with the least sum of distances to the others."""
    sums = [sum(space.distance(a, b) for b in configs) for a in configs]
    return configs[int(np.argmin(sums))]


class _Cached:
    """Merits; a configuration is evaluated once."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._known: dict[str, float] = {}

    def __call__(self, configs: Sequence[Config]) -> Array:
        keys = [self._problem.space.key(c) for c in configs]
        new = {k: c for k, c in zip(keys, configs, strict=True) if k not in self._known}
        if new:
            values = np.nan_to_num(self._problem.merit(list(new.values())), nan=-1e9)
            self._known.update(zip(new, map(float, values), strict=True))
        return np.array([self._known[k] for k in keys])


def _three(backend: Backend, problem: Problem, first: Config, seed: int) -> list[Config]:
    """Return three configurations, each asked for with the trials before it."""
    run = [first]
    while len(run) < 3:
        run += _ask(backend, problem, run, 1, seed + len(run))
    return run


def _ask(
    backend: Backend, problem: Problem, before: Sequence[Config], n: int, seed: int
) -> list[Config]:
    """Return `n` configurations that the model draws after some trials."""
    merits = problem.merit(before) if before else ()
    sign = 1.0 if problem.direction == "maximize" else -1.0
    trials = tuple(
        Trial(number=i, state=State.COMPLETE, score=sign * float(m),
              proposal=Proposal(config=c, origin="model"))
        for i, (c, m) in enumerate(zip(before, merits, strict=True))
    )  # fmt: skip
    space = problem.space
    task = Task(
        name=problem.name, command=(), metric=problem.metric, direction=problem.direction,
        space=space, background=problem.background,
    )  # fmt: skip
    facts = context.facts(History(task=task, trials=trials, seed=seed, next_number=len(trials)))
    constraint = Constraint(grammar=grammar.lark(space), schema=grammar.json_schema(space))
    answers = backend.generate(prompt.messages(facts, "compact"), constraint, n=n, seed=seed)
    return [grammar.parse(answer.text, space).config for answer in answers]
