"""How good the model's first trials are, and whether it reads the history at all.

Regret is (best - y) / (best - median of random configurations), clipped to [0, 3]: 0 is the
best known point of the problem, 1 a middling random one. Everything goes through the same
backend, grammar, prompt and creator as a study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localhpo import grammar, tasks
from localhpo.bench.problems import yahpo
from localhpo.creator import context, prompt
from localhpo.creator.agent import Agent
from localhpo.creator.protocol import History
from localhpo.llm.protocol import Backend, Constraint
from localhpo.space import Space
from localhpo.task import Task, load
from localhpo.trial import Config, Proposal, State, Trial

from . import learners, problems, trainings
from .learners import Array
from .problems import Problem

SAMPLES = 24
"""Drawn for a medoid."""

AGENT_SPACE = load(tasks.find("breast-cancer-xgboost")).space
"""The space of the tabular tasks of the AgentHPO paper."""


@dataclass(frozen=True)
class Outcome:
    """Mean regrets on one problem."""

    source: str
    random: float
    centre: float
    """The centre of the space (`Space.default`)."""
    single: float
    """One sample of the model."""
    medoid: float
    """The most central of `SAMPLES` samples."""
    random_3: float
    """Best of three random configurations."""
    centre_3: float
    """Best of the centre and two random configurations."""
    agent_3: float
    """Best of the first three trials of the creator `agent`, each knowing those before it."""


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


def outcome(
    backend: Backend, problem: Problem, *, seed: int, draws: int, seeds: int, runs: int
) -> Outcome:
    """Return the regrets of the model and of its controls on one problem.

    Args:
        backend: the model.
        problem: what to tune.
        seed: of everything that is drawn.
        draws: random configurations for best and median.
        seeds: of the first trial: medoids of as many halves of the samples.
        runs: of three trials.
    """
    rng = np.random.default_rng(seed)
    space, merits = problem.space, _Cached(problem)
    samples = _sample(backend, problem, 4 * SAMPLES, seed)
    parts = [rng.permutation(len(samples))[:SAMPLES] for _ in range(seeds)]
    single = merits(samples[: 2 * seeds])
    middle = merits([medoid(space, [samples[i] for i in part]) for part in parts])
    best_of_3 = [max(_agent_run(backend, problem, merits, 3, seed + i)) for i in range(runs)]
    centre = merits([space.default()])
    random = problem.merit([space.sample(rng) for _ in range(draws)])
    random = random[np.isfinite(random)]
    best = max(random.max(), single.max(), middle.max(), centre.max(), *best_of_3)
    scale = max(best - float(np.median(random)), 1e-12)

    def regret(values: Any) -> float:
        return float(np.clip((best - np.asarray(values)) / scale, 0.0, 3.0).mean())

    threes = rng.choice(random, (400, 3))
    return Outcome(
        source=problem.source, random=regret(random), centre=regret(centre),
        single=regret(single), medoid=regret(middle), random_3=regret(threes.max(1)),
        centre_3=regret(np.maximum(threes[:, :2].max(1), centre)), agent_3=regret(best_of_3),
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


def _task(problem: Problem) -> Task:
    return Task(
        name=problem.name, command=(), metric=problem.metric, direction=problem.direction,
        space=problem.space, background=problem.background,
    )  # fmt: skip


def _sample(backend: Backend, problem: Problem, n: int, seed: int) -> list[Config]:
    """Return `n` configurations that the model draws for the first trial."""
    space = problem.space
    history = History(task=_task(problem), trials=(), seed=seed, next_number=0)
    messages = prompt.messages(context.facts(history), "compact")
    constraint = Constraint(grammar=grammar.lark(space), schema=grammar.json_schema(space))
    answers = backend.generate(messages, constraint, n=n, seed=seed)
    return [grammar.parse(answer.text, space).config for answer in answers]


def _agent_run(
    backend: Backend, problem: Problem, merits: _Cached, trials: int, seed: int
) -> list[float]:
    """Return the merits of the first trials of a study by the model alone."""
    agent = Agent(backend, on_model_error="stop", stand_in=_nobody)
    sign = 1.0 if problem.direction == "maximize" else -1.0
    done: list[Trial] = []
    values: list[float] = []
    for number in range(trials):
        history = History(_task(problem), tuple(done), seed=seed, next_number=number)
        proposal = agent.propose_one(history)
        values.append(float(merits([proposal.config])[0]))
        score = sign * values[-1]
        done.append(Trial(number=number, state=State.COMPLETE, proposal=proposal, score=score))
    return values


def _nobody(history: History) -> Proposal:
    raise AssertionError(f"nobody stands in for the model here (trial {history.next_number})")
