"""Problems -> questions with their answers: what the model is trained on.

A question is the prompt that inference would render for the same history. Its answers are
configurations among the best few per cent of the problem, several per question: the model
learns to draw from where good points lie, given the names, the ranges and the trials so far
(amortised Thompson sampling; cf. OptFormer, https://arxiv.org/abs/2205.13320, and
https://arxiv.org/abs/2410.15320). One answer in a few carries a lower quality digit and is as
poor as it says, so that the digit means something.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localhpo.creator import context, prompt
from localhpo.creator.protocol import History
from localhpo.space import Float, Int, Space
from localhpo.task import Task
from localhpo.trial import Cause, Config, Failure, Proposal, State, Trial

from . import problems, published, trainings, yahpo
from .learners import Array
from .problems import Problem

DRAWS = 800
"""Random configurations of a problem from which history and answers are taken."""

TOP_SHARE = 0.015
"""Share of them that is good enough to be an answer of quality 9."""

ANSWERS = 5
HISTORIES = 2
"""Questions per problem."""


@dataclass(frozen=True)
class Question:
    """One prompt with several answers."""

    prompt: str
    """Ends before the answer; the last line holds the quality digit 9."""
    answers: tuple[str, ...]
    qualities: tuple[int, ...]
    """What the quality digit of each answer is."""
    trials: int
    """Length of the history."""
    source: str


def shards(target: Path, sources: Sources, *, shards: int, problems_each: int, seed: int) -> None:
    """Write shards of questions; shards that exist are kept, so that it can be stopped."""
    target.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        path = target / f"shard-{number:03}.jsonl"
        if path.exists():
            continue
        # Read anew each time: the trainings may still be running.
        maker = Maker(sources, np.random.default_rng([seed, number]))
        lines = [json.dumps(asdict(q)) for q in maker.questions(problems_each)]
        temporary = path.with_suffix(".part")
        temporary.write_text("\n".join(lines) + "\n")
        temporary.rename(path)
        print(f"{path.name}: {len(lines)} questions", flush=True)


def load(path: Path) -> list[Question]:
    """Return the questions of one shard."""
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return [
        Question(**{**r, "answers": tuple(r["answers"]), "qualities": tuple(r["qualities"])})
        for r in rows
    ]


@dataclass(frozen=True)
class Sources:
    """Where problems come from."""

    data: Path
    """Folder of public data; not read where only `training` and `function` are drawn from."""
    records: Path
    """What `trainings.py` wrote."""
    names: tuple[str, ...]
    """Those of `SHARES` that are drawn from."""


SHARES: Mapping[str, float] = {
    "yahpo": 0.40, "training": 0.27, "function": 0.22, "published": 0.07, "taskset": 0.04,
}  # fmt: skip
"""Problems of each source."""

MIN_EVALUATIONS = 15
"""Fewer of them on a generated data set are too few for a surrogate."""


class Maker:
    """Draws problems from all sources by their shares, and questions from them."""

    def __init__(self, sources: Sources, rng: np.random.Generator) -> None:
        self._rng = rng
        self._names = sources.names
        self._yahpo: dict[str, list[tuple[yahpo.Scenario, str]]] = {}
        if "yahpo" in sources.names:
            for scenario, instance in yahpo.training(sources.data):
                self._yahpo.setdefault(scenario.name, []).append((scenario, instance))
        records = trainings.load(sources.records) if "training" in sources.names else []
        self._records = [r for r in records if sum(map(bool, r["scores"])) >= MIN_EVALUATIONS]
        self._winners = published.load(sources.data) if "published" in sources.names else []
        tables = yahpo.splits()["taskset"]["train"]
        self._tables = [sources.data / "taskset_adam8p" / f"{name}.npz" for name in tables]

    def questions(self, count: int) -> Iterator[Question]:
        """Yield the questions of `count` problems."""
        shares = np.array([SHARES[name] for name in self._names])
        for kind in self._rng.choice(self._names, count, p=shares / shares.sum()):
            if kind == "published":
                yield self._of_winners()
                continue
            problem = self._problem(str(kind))
            if problem is not None:
                yield from ask(problem, self._rng)

    def _problem(self, kind: str) -> Problem | None:
        rng = self._rng
        if kind == "yahpo":
            # Families with many data sets count more, but not by their full number.
            weight = np.sqrt([len(v) for v in self._yahpo.values()])
            family = str(rng.choice(list(self._yahpo), p=weight / weight.sum()))
            scenario, instance = self._yahpo[family][rng.integers(len(self._yahpo[family]))]
            return problems.from_yahpo(scenario, instance, rng)
        if kind == "training":
            return problems.from_training(self._records[rng.integers(len(self._records))], rng)
        if kind == "taskset":
            return problems.from_taskset(self._tables[rng.integers(len(self._tables))], rng)
        return problems.from_function(rng)

    def _of_winners(self) -> Question:
        rng = self._rng
        winners = self._winners[rng.integers(len(self._winners))]
        said = problems.words("accuracy", False, winners.title, "", "tabular", rng)
        task = _task(winners.space, said)
        texts = [
            winners.space.text(coarse(winners.space, c))
            for c in published.pick(winners, ANSWERS, rng)
        ]
        return Question(
            prompt=_prompt(task, ()), answers=tuple(texts), qualities=(9,) * len(texts),
            trials=0, source="published",
        )  # fmt: skip


def ask(problem: Problem, rng: np.random.Generator) -> Iterator[Question]:
    """Yield questions on one problem, with different histories."""
    configs, merits = draw(problem, rng)
    if len(configs) < 8 or merits[-1] - merits[0] < 1e-9:
        return
    said = {
        "name": problem.name, "background": problem.background,
        "metric": problem.metric, "direction": problem.direction,
    }  # fmt: skip
    task = _task(problem.space, said)
    for _ in range(HISTORIES):
        trials = history(configs, merits, problem.direction, rng)
        answers, qualities = _answers(problem.space, configs, rng)
        yield Question(
            prompt=_prompt(task, trials), answers=answers, qualities=qualities,
            trials=len(trials), source=problem.source,
        )  # fmt: skip


def draw(problem: Problem, rng: np.random.Generator) -> tuple[list[Config], Array]:
    """Return configurations with their merits, worst to best: random ones and crosses of the best.

    Crossing the best ones sharpens the top, which random draws in ten dimensions do not reach.
    """
    space = problem.space
    configs = [space.sample(rng) for _ in range(DRAWS)]
    merits = problem.merit(configs)
    if not space.conditional and len(space) > 2:
        order = np.argsort(np.nan_to_num(merits, nan=-np.inf))[-DRAWS // 20 :]
        crosses = [_cross(configs, order, rng) for _ in range(DRAWS // 4)]
        configs = configs + crosses
        merits = np.concatenate([merits, problem.merit(crosses)])
    usable = np.flatnonzero(np.isfinite(merits))
    order = usable[np.argsort(merits[usable], kind="stable")]
    return [configs[i] for i in order], merits[order]


def _cross(configs: Sequence[Config], best: Array, rng: np.random.Generator) -> dict[str, Any]:
    one, other = (configs[i] for i in rng.choice(best, 2, replace=False))
    return {name: (one if rng.uniform() < 0.5 else other)[name] for name in one}


def _answers(
    space: Space, configs: Sequence[Config], rng: np.random.Generator
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return answers and their qualities; `configs` come worst to best."""
    top = max(4, math.ceil(TOP_SHARE * len(configs)))
    best = len(configs) - 1 - rng.permutation(top)
    texts, qualities = [], []
    for i in range(ANSWERS):
        quality = 9 if i < ANSWERS - 1 else int(rng.integers(0, 10))
        place = int((quality + rng.uniform()) * len(configs) / 10)
        if quality == 9:
            place = int(best[i % top])
        texts.append(space.text(coarse(space, configs[place])))
        qualities.append(quality)
    return tuple(texts), tuple(qualities)


def coarse(space: Space, config: Config) -> Config:
    """Return the configuration with values as short as a person would write them.

    Two digits carry all that is known of a good value, and make answers short.
    """
    out = dict(config)
    for name, value in config.items():
        parameter = space[name]
        if not isinstance(parameter, Float | Int) or isinstance(value, bool | str):
            continue
        if parameter.log or (isinstance(parameter, Int) and value >= 100):
            rounded = float(f"{value:.2g}")
        elif isinstance(parameter, Int):
            continue
        else:
            digits = max(0, -math.floor(math.log10((parameter.high - parameter.low) / 15)))
            rounded = round(float(value), digits)
        if parameter.low <= rounded <= parameter.high:
            out[name] = round(rounded) if isinstance(parameter, Int) else rounded
    return space.canonical(out)


def history(
    configs: Sequence[Config], merits: Array, direction: str, rng: np.random.Generator
) -> tuple[Trial, ...]:
    """Return trials as a study could have made them: none, a few or many; some failed."""
    kind = rng.uniform()
    length = 0
    if kind > 0.45:
        length = int(rng.integers(1, 6)) if kind < 0.85 else int(rng.integers(6, 21))
    sign = 1.0 if direction == "maximize" else -1.0
    fails = 0.15 if rng.uniform() < 0.12 else 0.0
    ahead = rng.uniform() < 0.5
    trials = []
    for number in range(length):
        # A study that learns: later trials come from the better part, never from the very top.
        low = min(0.7, number / 12) if ahead else 0.0
        place = int(rng.uniform(low, 0.985) * len(configs))
        score = sign * float(merits[place])
        trials.append(_trial(number, configs[place], score, failed=rng.uniform() < fails))
    return tuple(trials)


def _trial(number: int, config: Config, score: float, *, failed: bool) -> Trial:
    proposal = Proposal(config=config, origin="engine:random")
    if failed:
        failure = Failure(Cause.EXIT_CODE, "the script ended with exit code 1")
        return Trial(number=number, state=State.FAILED, proposal=proposal, failure=failure)
    return Trial(number=number, state=State.COMPLETE, proposal=proposal, score=score)


def _task(space: Space, said: Mapping[str, Any]) -> Task:
    return Task(command=(), space=space, **said)


def _prompt(task: Task, trials: tuple[Trial, ...]) -> str:
    """Return the prompt that inference renders for this history."""
    facts = context.facts(History(task=task, trials=trials, seed=0, next_number=len(trials)))
    return "".join(m.content for m in prompt.messages(facts, "compact"))
