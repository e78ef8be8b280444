"""Measures what a user's history is worth: forgotten, remembered, or trained on.

    python -m scripts.build_model leave-out --from .data/sprout --work .data/base
    python -m scripts.build_model tokenizer --work .data/base
    python -m scripts.build_model train     --work .data/base
    python -m scripts.build_model export    --work .data/base --target .data/base/model --name base
    python scripts/measure_learning.py --base .data/base/model --data .data/public

The base was built without some families of YAHPO (`[learning]` of localhpo/bench/splits.toml).
Its history is a study of 20 trials on each of eight data sets of three of them, by the default
Creator with that base. Then the default Creator is tried on other data sets: with the base
(`off`), with past studies in mind (`retrieve`), and with the base fine-tuned on them
(`finetuned`); and on a family of which there is no history, where nothing may be lost.

What a study has cost is kept in `--work`: a run goes on where it was stopped. About an hour on
two cores.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from localhpo.bench import creators, pasts, simulation
from localhpo.bench.problems import yahpo
from localhpo.bench.problems.opening import Places, open_problem
from localhpo.bench.problems.problem import Problem
from localhpo.bench.references import Reference, reference
from localhpo.bench.replaying import Replayer
from localhpo.experience import Past
from localhpo.finetune import rounds, train
from localhpo.llm import cards
from localhpo.llm.transformers import TransformersBackend

METRIC = "auc"
COLUMNS = (1, 3, 5, 10)
PAST_TRIALS = 20
ARMS = ("off", "retrieve", "finetuned")


@dataclass(frozen=True)
class Unit:
    """One study that is compared."""

    problem: str
    arm: str
    seed: int

    @property
    def family(self) -> str:
        """The kind of model that is tuned."""
        return self.problem.split("/")[1]


def main() -> None:
    """Make the history, train on it, compare, and print."""
    options = _options()
    os.environ["LOCALHPO_MODELS"] = str(options.work.resolve() / "models")
    places = Places(options.data, options.work / "trainings")
    known = history(places, str(options.base))
    tuned = fine_tuned(options.work, known, str(options.base), options.minutes)
    models = {"off": str(options.base), "retrieve": str(options.base), "finetuned": tuned}
    results = compared(options.work / "results.jsonl", places, known, models, options.seeds)
    table(results, set(yahpo.splits()["learning"]["history"]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a user's history is worth.")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds yahpo/")
    parser.add_argument("--work", type=Path, default=Path(".data/learning"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, at most")
    return parser.parse_args()


def history(places: Places, base: str) -> list[Past]:
    """Return the studies of the past, by the default Creator with the base."""
    choice = creators.parse("hybrid")
    made = []
    for family, instances in yahpo.splits()["learning"]["history"].items():
        for instance in instances:
            problem = open_problem(f"yahpo/{family}/{instance}/{METRIC}/full", places)
            creator = creators.make(choice, problem.task, _opened(base))
            made.append(pasts.past_of(problem, creator, seed=0, trials=PAST_TRIALS))
    return made


def fine_tuned(work: Path, known: Sequence[Past], base: str, minutes: float) -> str:
    """Return the folder of the base trained on the past; it is trained once.

    What the gate says is printed, and the model measured all the same.
    """
    done = work / "tuned.txt"
    if not done.exists():
        settings = train.Settings(minutes=minutes)
        replay = Replayer()
        try:
            card = rounds.tune(rounds.plan(known, base, seed=settings.seed), settings, replay)
        finally:
            replay.close()
        done.write_text(card.name)
    folder = cards.shelf() / done.read_text()
    told = cards.load(folder).tuned
    if told is not None:
        print(f"gate: {told.gate}: {told.why}", flush=True)
    return str(folder)


def compared(
    path: Path, places: Places, known: Sequence[Past], models: Mapping[str, str], seeds: int
) -> dict[Unit, list[float]]:
    """Return the regret at each of `COLUMNS`, of every unit; what is in the file is not run."""
    done = dict(_stored(path))
    for family, instances in yahpo.splits()["learning"]["tried"].items():
        for instance in instances:
            name = f"yahpo/{family}/{instance}/{METRIC}/full"
            units = [Unit(name, arm, seed) for seed in range(seeds) for arm in ARMS]
            missing = [unit for unit in units if unit not in done]
            problem = open_problem(name, places) if missing else None
            scale = reference(problem) if problem is not None else None
            for unit in missing:
                assert problem is not None
                assert scale is not None
                done[unit] = _regrets(problem, scale, unit, known, models[unit.arm])
                with path.open("a") as out:
                    out.write(json.dumps([asdict(unit), done[unit]]) + "\n")
    return done


def _stored(path: Path) -> Iterator[tuple[Unit, list[float]]]:
    if path.exists():
        for line in path.read_text().splitlines():
            unit, regrets = json.loads(line)
            yield Unit(**unit), regrets


def _regrets(
    problem: Problem, scale: Reference, unit: Unit, known: Sequence[Past], model: str
) -> list[float]:
    choice = creators.parse("hybrid:retrieve" if unit.arm == "retrieve" else "hybrid")
    creator = creators.make(choice, problem.task, _opened(model), known)
    rows = simulation.run(problem, creator, seed=unit.seed, trials=max(COLUMNS))
    sign = 1.0 if problem.direction == "minimize" else -1.0
    worst = sign * scale.median
    losses = [worst if row.score is None else sign * row.score for row in rows]
    best = np.minimum.accumulate(losses)
    regret = np.clip((best - sign * scale.best) / max(1e-12, worst - sign * scale.best), 0.0, 1.0)
    return [float(regret[trial - 1]) for trial in COLUMNS]


@cache
def _opened(folder: str) -> TransformersBackend:
    """Return a model, whatever its gate said; it stays open."""
    return TransformersBackend(Path(folder))


def table(results: Mapping[Unit, Sequence[float]], learned: set[str]) -> None:
    """Print regrets by family, and for the families with a history the tests against `off`."""
    families = dict.fromkeys(unit.family for unit in results)
    groups = [(family, {family}) for family in families]
    groups += [("with history", learned), ("without", set(families) - learned)]
    print(f"{'':14}{'arm':12}" + "".join(f"{'@' + str(c):>8}" for c in COLUMNS) + "   @5 to off")
    for title, members in groups:
        off = _matrix(results, members, "off")
        for arm in ARMS:
            values = _matrix(results, members, arm)
            means = "".join(f"{mean:8.3f}" for mean in values.mean(axis=0))
            print(f"{title:14}{arm:12}{means}   {_against(values[:, 2], off[:, 2])}")


def _matrix(results: Mapping[Unit, Sequence[float]], members: set[str], arm: str) -> Any:
    """Return (problems x seeds, columns), in the same order for every arm."""
    found = [u for u in results if u.family in members and u.arm == arm]
    return np.array([results[u] for u in sorted(found, key=lambda u: (u.problem, u.seed))])


def _against(values: Any, off: Any) -> str:
    """Return the cut against `off`, and Wilcoxon's p over pairs of problem and seed."""
    from scipy.stats import wilcoxon

    if not np.any(values != off):
        return "the same"
    cut = 100.0 * (1.0 - values.mean() / off.mean())
    return f"{cut:+.0f} % less, p {wilcoxon(values, off).pvalue:.1e}, n {len(off)}"


if __name__ == "__main__":
    main()
