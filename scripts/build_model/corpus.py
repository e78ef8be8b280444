"""Problems -> questions with their answers: what the model is trained on.

A question is the prompt that inference would render for the same history. Its answers are
configurations that a statistician with all data sets of that kind before her would try next.
Before any trial that is what does well on most of them (the least mean regret): a robust point,
not the optimum of one. After some trials each data set counts as far as it ranks those trials
as they came out, and the answers are those of the largest expected improvement under these
weights: Bayesian optimization whose prior is the collection of data sets (cf. amortised
acquisition, https://arxiv.org/abs/2205.13320 and https://arxiv.org/abs/2410.15320).
"""

from __future__ import annotations

import json
import multiprocessing
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localhpo.bench.problems import yahpo
from localhpo.creator import context, prompt
from localhpo.creator.protocol import History
from localhpo.errors import InputError, did_you_mean
from localhpo.finetune.coarse import coarse
from localhpo.space import Space
from localhpo.task import Task
from localhpo.trial import Cause, Config, Failure, Proposal, State, Trial

from . import problems, published, trainings, whole
from .learners import Array
from .problems import Problem

DRAWS = 400
"""Random configurations of a problem; half as many again are bred from the best."""

ANSWERS = 8
HISTORIES = 2
"""Questions per problem; the first of them has no trials. Few: the space is what to learn from."""

SHARPNESS = 0.015
"""Of answers: one is e times as likely as another whose regret is larger by this."""

WORST = 1.5
"""Regrets are cut here, and failures count as much: how bad a bad point is teaches nothing."""


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


def shards(
    target: Path, sources: Sources, *, shards: int, problems_each: int, seed: int, jobs: int = 1
) -> None:
    """Write shards of questions; shards that exist are kept, so that it can be stopped.

    Raises:
        InputError: a source is unknown, or what it is made of is not there.
    """
    missing = [n for n in range(shards) if not _shard(target, n).exists()]
    if missing:
        check(sources)
    target.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        made = [pool.submit(_write, target, sources, n, problems_each, seed) for n in missing]
        for one in as_completed(made):
            print(one.result(), flush=True)


def _shard(target: Path, number: int) -> Path:
    return target / f"shard-{number:03}.jsonl"


def _write(target: Path, sources: Sources, number: int, problems_each: int, seed: int) -> str:
    # Read anew each time: the trainings may still be running.
    maker = Maker(sources, np.random.default_rng([seed, number]))
    lines = [json.dumps(asdict(q)) for q in maker.questions(problems_each)]
    path = _shard(target, number)
    whole.write(path, "\n".join(lines) + "\n")
    return f"{path.name}: {len(lines)} questions"


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
    """Folder of public data; not read where only what is made here is drawn from."""
    records: Path
    """What `trainings.py` wrote; the designs of networks lie beside it."""
    names: tuple[str, ...]
    """Those of `SHARES` that are drawn from."""


SHARES: Mapping[str, float] = {
    "yahpo": 0.42, "training": 0.25, "function": 0.15, "network": 0.10, "published": 0.05,
    "taskset": 0.03,
}  # fmt: skip
"""Problems of each source."""

_NEEDS: Mapping[str, Sequence[str]] = {
    "yahpo": ("yahpo/columns.json",),
    "published": ("tabdl_tuning", "flaml_default"),
    "taskset": ("taskset_adam8p",),
}
"""What each source reads in the folder of public data."""


def check(sources: Sources) -> None:
    """Check that what the sources are made of is there, before any process is started.

    Raises:
        InputError: it is not, or a source is unknown.
    """
    for name in sources.names:
        if name not in SHARES:
            raise InputError(
                f"a source must be one of {', '.join(SHARES)}; got {name!r}",
                hint=did_you_mean(name, SHARES),
            )
        for part in _NEEDS.get(name, ()):
            if not (sources.data / part).exists():
                raise InputError(
                    f"{sources.data / part}: not found, and the source {name} is made of it",
                    hint="--data FOLDER says where public data are; --sources training,function"
                    " needs none",
                )
        if name == "training" and not sources.records.exists():
            raise InputError(
                f"{sources.records}: not found, and the source {name} is made of it",
                hint="run the step train-data first",
            )
        if name == "network" and not usable(trainings.of_networks(sources.records.parent)):
            raise InputError(
                f"{sources.records.parent}/design-*.json: no network was trained, and the source"
                f" {name} is made of it",
                hint="run the step train-data first",
            )


MIN_EVALUATIONS = 15
"""Fewer of them on a generated data set are too few for a surrogate."""


def usable(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the real trainings that a surrogate can be made of."""
    return [r for r in records if sum(map(bool, r["scores"])) >= MIN_EVALUATIONS]


class Maker:
    """Draws problems from all sources by their shares, and questions from them."""

    def __init__(self, sources: Sources, rng: np.random.Generator) -> None:
        self._rng = rng
        self._names = sources.names
        self._yahpo: list[tuple[yahpo.Scenario, list[str]]] = []
        if "yahpo" in sources.names:
            pairs = yahpo.training(sources.data)
            for scenario in {id(s): s for s, _ in pairs}.values():
                self._yahpo.append((scenario, [i for s, i in pairs if s is scenario]))
        records = trainings.load(sources.records) if "training" in sources.names else []
        self._records = usable(records)
        nets = trainings.of_networks(sources.records.parent) if "network" in sources.names else []
        self._networks = usable(nets)
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
            weight = np.sqrt([len(instances) for _, instances in self._yahpo])
            scenario, instances = self._yahpo[rng.choice(len(weight), p=weight / weight.sum())]
            return problems.from_yahpo(scenario, instances, rng)
        if kind in ("training", "network"):
            records = self._records if kind == "training" else self._networks
            return problems.from_training(records, int(rng.integers(len(records))), rng)
        if kind == "taskset":
            return problems.from_taskset(self._tables, int(rng.integers(len(self._tables))), rng)
        return problems.from_function(rng)

    def _of_winners(self) -> Question:
        rng = self._rng
        winners = self._winners[rng.integers(len(self._winners))]
        said = problems.words("accuracy", False, winners.title, "", "tabular", rng)
        task = _task(winners.space, said)
        texts = [_text(winners.space, c) for c in published.pick(winners, ANSWERS, rng)]
        return Question(
            prompt=_prompt(task, ()), answers=tuple(texts), qualities=(9,) * len(texts),
            trials=0, source="published",
        )  # fmt: skip


def ask(problem: Problem, rng: np.random.Generator) -> Iterator[Question]:
    """Yield questions on one problem, with different histories."""
    pool = draw(problem, rng)
    if pool is None:
        return
    said = {
        "name": problem.name, "background": problem.background,
        "metric": problem.metric, "direction": problem.direction, "fixed": problem.fixed,
    }  # fmt: skip
    task = _task(problem.space, said)
    for number in range(HISTORIES):
        length = min(12, int(rng.geometric(0.3))) if number else 0
        past, running = history(pool, length, rng)
        trials = _trials(pool, problem.direction, past, running, rng)
        chosen = pick(pool, past, running, ANSWERS, rng)
        answers = dict.fromkeys(_text(problem.space, pool.configs[i]) for i in chosen)
        yield Question(
            prompt=_prompt(task, trials), answers=tuple(answers), qualities=(9,) * len(answers),
            trials=length, source=problem.source,
        )  # fmt: skip


@dataclass(frozen=True)
class Pool:
    """Evaluated configurations of a problem."""

    configs: Sequence[Config]
    regrets: Array
    """(data sets, configurations): 0 is the best of the pool, 1 a middling random one."""
    merits: Array
    """(configurations,): on the problem's own data set, which is the first."""
    random: int
    """How many of them, from the start, are random draws."""


def draw(problem: Problem, rng: np.random.Generator) -> Pool | None:
    """Return random configurations and children of the best; None where all are alike.

    Children sharpen the top, which random draws in ten dimensions do not reach.
    """
    space = problem.space
    configs = [space.sample(rng) for _ in range(DRAWS)]
    merits = problem.merits(configs)
    for spread in (0.1, 0.05):
        regrets = _regrets(merits)
        if regrets is None:
            return None
        # Half of the parents do well everywhere, half on the problem's own data set.
        best = np.concatenate([np.argsort(r)[: DRAWS // 25] for r in (regrets.mean(0), regrets[0])])
        children = [child(space, configs, best, spread, rng) for _ in range(DRAWS // 4)]
        configs = configs + children
        merits = np.concatenate([merits, problem.merits(children)], axis=1)
    regrets = _regrets(merits)
    return None if regrets is None else Pool(configs, regrets, merits[0], DRAWS)


def child(
    space: Space, configs: Sequence[Config], best: Array, spread: float, rng: np.random.Generator
) -> Config:
    """Return a mix of two of the best, moved a little."""
    one, other = (space.encode(configs[i]) for i in rng.choice(best, 2))
    point = np.where(rng.uniform(size=one.shape) < 0.5, one, other)
    return space.decode(np.clip(point + rng.normal(0.0, spread, point.shape), 0.0, 1.0))


def _regrets(merits: Array) -> Array | None:
    """Return the regrets; peers that tell nothing apart are left out.

    None where that is the own data set.
    """
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        best = np.nanmax(merits, axis=1, keepdims=True)
        scale = best - np.nanmedian(merits[:, :DRAWS], axis=1, keepdims=True)
    told = np.isfinite(scale[:, 0]) & (scale[:, 0] > 1e-9)
    if not told[0]:
        return None
    regrets = (best[told] - merits[told]) / scale[told]
    return np.clip(np.nan_to_num(regrets, nan=WORST), 0.0, WORST)


def history(pool: Pool, length: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Return finished and running trials, as places in the pool: a study as it could have gone."""
    past: list[int] = []
    wise = rng.choice([0.2, 0.5, 0.8])
    while len(past) < length:
        place = int(rng.integers(pool.random))
        if rng.uniform() < wise:
            place = pick(pool, past, [], 1, rng)[0]
        if place not in past:
            past.append(place)
    waiting = int(rng.integers(1, 3)) if rng.uniform() < 0.15 else 0
    return past[: length - waiting], past[length - waiting :]


def pick(
    pool: Pool, past: Sequence[int], running: Sequence[int], count: int, rng: np.random.Generator
) -> list[int]:
    """Return what to try next, as places in the pool, none twice: good ones are likelier."""
    known = [*past, *running]
    weights = likelihood(pool.regrets[:, past])
    reached = pool.regrets[:, known].min(axis=1, initial=1.0 if not known else WORST)
    gain = weights @ np.maximum(reached[:, None] - pool.regrets, 0.0)
    # Where nothing is left to gain, what is good is good enough; it also parts equal gains.
    gain = gain - 0.1 * (weights @ pool.regrets)
    gain[known] = -np.inf
    noisy = gain / SHARPNESS + rng.gumbel(size=gain.shape)
    return [int(i) for i in np.argsort(-noisy)[:count]]


def likelihood(regrets: Array) -> Array:
    """Return the weight of each data set (the first is the own): do its ranks agree?

    Args:
        regrets: (data sets, trials).
    """
    count = regrets.shape[1]
    if count < 2:
        return np.full(len(regrets), 1.0 / len(regrets))
    first, second = np.triu_indices(count, 1)
    apart = regrets[:, first] - regrets[:, second]
    told = np.tanh(apart[0] / 0.05)
    agree = -np.logaddexp(0.0, -told * apart / 0.08).mean(axis=1) * (count - 1)
    weights = np.exp(agree - agree.max())
    return np.asarray(weights / weights.sum())


def _text(space: Space, config: Config) -> str:
    return space.text(coarse(space, config))


def _trials(
    pool: Pool, direction: str, past: Sequence[int], running: Sequence[int],
    rng: np.random.Generator,
) -> tuple[Trial, ...]:  # fmt: skip
    """Return the trials of a history; in one study of eight some fail."""
    sign = 1.0 if direction == "maximize" else -1.0
    fails = 0.15 if rng.uniform() < 0.12 else 0.0
    trials = []
    for number, place in enumerate([*past, *running]):
        config, score = pool.configs[place], sign * float(pool.merits[place])
        failed = not np.isfinite(score) or rng.uniform() < fails
        if number < len(past):
            trials.append(_trial(number, config, score, failed=failed))
        else:
            proposal = Proposal(config=config, origin="engine:random")
            trials.append(Trial(number=number, state=State.RUNNING, proposal=proposal))
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
