"""Makes questions with answers from problems: the training data of the model.

A question is the prompt that inference renders for the same history. Its answers are the best next
configurations, given results on all data sets of that kind. Before any trial these are the
configurations with the least mean regret over the data sets, not the optimum of one of them. After
some trials, each data set is weighted by how well it ranks them as they came out, and the answers
have the largest expected improvement under these weights: Bayesian optimization whose prior is the
collection of data sets (cf. amortized acquisition, https://arxiv.org/abs/2205.13320 and https://arxiv.org/abs/2410.15320).
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

from localhpo.creator import context, prompt
from localhpo.creator.protocol import History
from localhpo.errors import InputError, did_you_mean
from localhpo.finetune.relabeling import quantize_config
from localhpo.objective import Objective
from localhpo.space import Space
from localhpo.task import Task
from localhpo.trial import Cause, Config, Failure, Origin, Proposal, State, Trial
from scripts.benchmarks.problems import yahpo

from . import atomic_file, problems, published, trainings
from .learners import Array
from .problems import SampledProblem

DRAWS = 400
"""Number of random configurations of a problem; half as many children of the best are added."""

ANSWERS = 8
HISTORIES = 2
"""Questions per problem; the first has no trials. Few, so that many spaces are seen."""

SHARPNESS = 0.015
"""Difference in regret that makes an answer e times less likely."""

WORST = 1.5
"""Largest regret, also that of failures: how bad a bad configuration is does not matter."""


@dataclass(frozen=True)
class Question:
    """One prompt with several answers."""

    prompt: str
    """Ends before the answer; the last line holds the quality digit 9."""
    answers: tuple[str, ...]
    qualities: tuple[int, ...]
    """Quality digit of each answer."""
    trials: int
    """Number of trials in the history."""
    source: str


def write_shards(
    target: Path, sources: Sources, *, shards: int, problems_each: int, seed: int, jobs: int = 1
) -> None:
    """Write shards of questions; existing shards are kept, so a run can be interrupted.

    Raises:
        InputError: a source is unknown, or its data do not exist.
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
    # The trainings are read for each shard, because they may still be running.
    maker = QuestionGenerator(sources, np.random.default_rng([seed, number]))
    lines = [json.dumps(asdict(q)) for q in maker.questions(problems_each)]
    path = _shard(target, number)
    atomic_file.write_atomically(path, "\n".join(lines) + "\n")
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
    """The sources of problems."""

    data: Path
    """Folder of public data; not read by the sources that generate their data."""
    records: Path
    """File that `trainings.py` writes; the designs of networks are beside it."""
    names: tuple[str, ...]
    """The sources to use, of those in `SHARES`."""


SHARES: Mapping[str, float] = {
    "yahpo": 0.42, "training": 0.25, "function": 0.15, "network": 0.10, "published": 0.05,
    "taskset": 0.03,
}  # fmt: skip
"""Source -> share of problems."""

_NEEDS: Mapping[str, Sequence[str]] = {
    "yahpo": ("yahpo/columns.json",),
    "published": ("tabdl_tuning", "flaml_default"),
    "taskset": ("taskset_adam8p",),
}
"""Source -> files that it reads in the folder of public data."""


def check(sources: Sources) -> None:
    """Check that the data of the sources exist, before any process is started.

    Raises:
        InputError: they do not, or a source is unknown.
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
                    f"{sources.data / part}: not found, but the source {name} needs it",
                    hint="name the folder of public data with --data FOLDER;"
                    " --sources training,function needs none",
                )
        if name == "training" and not sources.records.exists():
            raise InputError(
                f"{sources.records}: not found, but the source {name} needs it",
                hint="run the step train-data first",
            )
        if name == "network" and not usable(trainings.read_network_records(sources.records.parent)):
            raise InputError(
                f"{sources.records.parent}/design-*.json: no network was trained, but the source"
                f" {name} needs one",
                hint="run the step train-data first",
            )


MIN_EVALUATIONS = 15
"""Smallest number of evaluations on a generated data set for a surrogate."""


def usable(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the records with enough trainings for a surrogate."""
    return [r for r in records if sum(map(bool, r["scores"])) >= MIN_EVALUATIONS]


class QuestionGenerator:
    """Draws problems from all sources by their shares, and makes questions from them."""

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
        nets = (
            trainings.read_network_records(sources.records.parent)
            if "network" in sources.names
            else []
        )
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
                yield from make_questions(problem, self._rng)

    def _problem(self, kind: str) -> SampledProblem | None:
        rng = self._rng
        if kind == "yahpo":
            # Families are weighted by the square root of their number of data sets.
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
        description = problems.describe("accuracy", False, winners.title, "", "tabular", rng)
        task = _make_task(winners.space, description)
        texts = [_text(winners.space, c) for c in published.pick_winners(winners, ANSWERS, rng)]
        return Question(
            prompt=_prompt(task, ()), answers=tuple(texts), qualities=(9,) * len(texts),
            trials=0, source="published",
        )  # fmt: skip


def make_questions(problem: SampledProblem, rng: np.random.Generator) -> Iterator[Question]:
    """Yield questions on one problem, with different histories."""
    pool = draw(problem, rng)
    if pool is None:
        return
    description = {
        "name": problem.name, "background": problem.background,
        "metric": problem.metric, "direction": problem.direction, "fixed": problem.fixed,
    }  # fmt: skip
    task = _make_task(problem.space, description)
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
class CandidatePool:
    """Evaluated configurations of a problem, from which answers and histories are drawn."""

    configs: Sequence[Config]
    regrets: Array
    """(data sets, configurations): 0 is the best of the pool, 1 the median of random ones."""
    utilities: Array
    """(configurations,): utilities on the problem's own data set, which is the first."""
    random: int
    """Number of random configurations, which come first."""


def draw(problem: SampledProblem, rng: np.random.Generator) -> CandidatePool | None:
    """Return random configurations and children of the best; None where all have equal values.

    Children come closer to the optimum than random draws in ten dimensions.
    """
    space = problem.space
    configs = [space.sample(rng) for _ in range(DRAWS)]
    utilities = problem.utilities(configs)
    for spread in (0.1, 0.05):
        regrets = _regrets(utilities)
        if regrets is None:
            return None
        # Half of the parents do well everywhere, half on the problem's own data set.
        best = np.concatenate([np.argsort(r)[: DRAWS // 25] for r in (regrets.mean(0), regrets[0])])
        children = [child(space, configs, best, spread, rng) for _ in range(DRAWS // 4)]
        configs = configs + children
        utilities = np.concatenate([utilities, problem.utilities(children)], axis=1)
    regrets = _regrets(utilities)
    return None if regrets is None else CandidatePool(configs, regrets, utilities[0], DRAWS)


def child(
    space: Space, configs: Sequence[Config], best: Array, spread: float, rng: np.random.Generator
) -> Config:
    """Return a random mix of two of the best, with noise."""
    one, other = (space.encode(configs[i]) for i in rng.choice(best, 2))
    point = np.where(rng.uniform(size=one.shape) < 0.5, one, other)
    return space.decode(np.clip(point + rng.normal(0.0, spread, point.shape), 0.0, 1.0))


def _regrets(utilities: Array) -> Array | None:
    """Return the regrets; peers on which all values are equal are left out.

    None where they are equal on the problem's own data set.
    """
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        best = np.nanmax(utilities, axis=1, keepdims=True)
        scale = best - np.nanmedian(utilities[:, :DRAWS], axis=1, keepdims=True)
    varied = np.isfinite(scale[:, 0]) & (scale[:, 0] > 1e-9)
    if not varied[0]:
        return None
    regrets = (best[varied] - utilities[varied]) / scale[varied]
    return np.clip(np.nan_to_num(regrets, nan=WORST), 0.0, WORST)


def history(
    pool: CandidatePool, length: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Return finished and running trials of a plausible study, as indices in the pool."""
    past: list[int] = []
    guided = rng.choice([0.2, 0.5, 0.8])
    while len(past) < length:
        index = int(rng.integers(pool.random))
        if rng.uniform() < guided:
            index = pick(pool, past, [], 1, rng)[0]
        if index not in past:
            past.append(index)
    waiting = int(rng.integers(1, 3)) if rng.uniform() < 0.15 else 0
    return past[: length - waiting], past[length - waiting :]


def pick(
    pool: CandidatePool,
    past: Sequence[int],
    running: Sequence[int],
    count: int,
    rng: np.random.Generator,
) -> list[int]:
    """Return the next configurations to try, as distinct indices in the pool."""
    known = [*past, *running]
    weights = likelihood(pool.regrets[:, past])
    reached = pool.regrets[:, known].min(axis=1, initial=1.0 if not known else WORST)
    gain = weights @ np.maximum(reached[:, None] - pool.regrets, 0.0)
    # Where no gain is left, and among equal gains, the lower regret decides.
    gain = gain - 0.1 * (weights @ pool.regrets)
    gain[known] = -np.inf
    noisy = gain / SHARPNESS + rng.gumbel(size=gain.shape)
    return [int(i) for i in np.argsort(-noisy)[:count]]


def likelihood(regrets: Array) -> Array:
    """Return the weight of each data set by how well it ranks the trials of the first one.

    Args:
        regrets: (data sets, trials).
    """
    count = regrets.shape[1]
    if count < 2:
        return np.full(len(regrets), 1.0 / len(regrets))
    first, second = np.triu_indices(count, 1)
    apart = regrets[:, first] - regrets[:, second]
    observed = np.tanh(apart[0] / 0.05)
    agree = -np.logaddexp(0.0, -observed * apart / 0.08).mean(axis=1) * (count - 1)
    weights = np.exp(agree - agree.max())
    return np.asarray(weights / weights.sum())


def _text(space: Space, config: Config) -> str:
    return space.text(quantize_config(space, config))


def _trials(
    pool: CandidatePool, direction: str, past: Sequence[int], running: Sequence[int],
    rng: np.random.Generator,
) -> tuple[Trial, ...]:  # fmt: skip
    """Return the trials of a history; some fail in one of eight studies."""
    sign = 1.0 if direction == "maximize" else -1.0
    fails = 0.15 if rng.uniform() < 0.12 else 0.0
    trials = []
    for number, index in enumerate([*past, *running]):
        config, value = pool.configs[index], sign * float(pool.utilities[index])
        failed = not np.isfinite(value) or rng.uniform() < fails
        if number < len(past):
            trials.append(_trial(number, config, value, failed=failed))
        else:
            proposal = Proposal(config=config, origin=Origin(engine="random"))
            trials.append(Trial(number=number, state=State.RUNNING, proposal=proposal))
    return tuple(trials)


def _trial(number: int, config: Config, value: float, *, failed: bool) -> Trial:
    proposal = Proposal(config=config, origin=Origin(engine="random"))
    if failed:
        failure = Failure(Cause.EXIT_CODE, "the script ended with exit code 1")
        return Trial(number=number, state=State.FAILED, proposal=proposal, failure=failure)
    return Trial(number=number, state=State.COMPLETE, proposal=proposal, values=(value,))


def _make_task(space: Space, description: Mapping[str, Any]) -> Task:
    rest = dict(description)
    objective = Objective(rest.pop("metric"), rest.pop("direction"))
    return Task(command=(), objectives=(objective,), space=space, **rest)


def _prompt(task: Task, trials: tuple[Trial, ...]) -> str:
    """Return the prompt that inference renders for this history."""
    facts = context.build_facts(History(task=task, trials=trials, seed=0, next_number=len(trials)))
    return "".join(m.content for m in prompt.render_messages(facts, "compact"))
