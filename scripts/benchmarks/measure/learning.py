"""Measures the effect of a user's past studies: unused, retrieved, or trained on.

    python -m scripts.build_model leave-out --from .data/sprout --work .data/base
    python -m scripts.build_model tokenizer --work .data/base
    python -m scripts.build_model train     --work .data/base
    python -m scripts.build_model export    --work .data/base --target .data/base/model --name base
    python -m scripts.benchmarks.measure.learning --base .data/base/model --data .data/public

The base was built without some families of YAHPO (`[learning]` of problems/splits.toml).
Its history is a study of 20 trials on each of eight data sets of three of them, by the default
Creator with that base. Then the default Creator runs on other data sets: with the base
(`off`), with retrieved past studies (`retrieve`), and with the base fine-tuned on them
(`finetuned`); also on a family without history, where nothing may get worse.

Results are kept in `--work`, so a run continues where it was stopped. About an hour on two cores.
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

from localhpo.finetune import pipeline, train
from localhpo.finetune.replay import Replayer
from localhpo.llm.models import registry as model_registry
from localhpo.llm.transformers import TransformersBackend
from localhpo.transfer import PastStudy
from scripts.benchmarks import creators, simulation, statistics
from scripts.benchmarks.problems import yahpo
from scripts.benchmarks.problems.problem import Problem, Reference, compute_reference
from scripts.benchmarks.problems.registry import DataFolders, open_problem

METRIC = "auc"
COLUMNS = (1, 3, 5, 10)
PAST_TRIALS = 20
ARMS = ("off", "retrieve", "finetuned")


@dataclass(frozen=True)
class ComparedStudy:
    """One study of the comparison."""

    problem: str
    arm: str
    seed: int

    @property
    def family(self) -> str:
        """Family of the problem."""
        return self.problem.split("/")[1]


def main() -> None:
    """Make the history, train on it, compare, and print."""
    options = _options()
    os.environ["LOCALHPO_MODELS"] = str(options.work.resolve() / "models")
    folders = DataFolders(options.data, options.work / "trainings")
    known = history(folders, str(options.base))
    tuned = fine_tuned(options.work, known, str(options.base), options.minutes)
    models = {"off": str(options.base), "retrieve": str(options.base), "finetuned": tuned}
    results = compared(options.work / "results.jsonl", folders, known, models, options.seeds)
    table(results, set(yahpo.splits()["learning"]["history"]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a user's history is worth.")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds yahpo/")
    parser.add_argument("--work", type=Path, default=Path(".data/learning"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, at most")
    return parser.parse_args()


def history(folders: DataFolders, base: str) -> list[PastStudy]:
    """Run and return the past studies, by the default Creator with the base."""
    choice = creators.parse_name("hybrid")
    made = []
    for family, instances in yahpo.splits()["learning"]["history"].items():
        for instance in instances:
            problem = open_problem(f"yahpo/{family}/{instance}/{METRIC}/full", folders)
            creator = creators.make_creator(choice, problem.task, _opened(base))
            made.append(simulation.run_past_study(problem, creator, seed=0, trials=PAST_TRIALS))
    return made


def fine_tuned(work: Path, known: Sequence[PastStudy], base: str, minutes: float) -> str:
    """Return the folder of the base, fine-tuned on the past studies once.

    The result of the gate is printed; the model is measured in any case.
    """
    done = work / "tuned.txt"
    if not done.exists():
        settings = train.TrainingSettings(minutes=minutes)
        replay = Replayer()
        try:
            card = pipeline.run_finetuning(
                pipeline.plan_finetuning(known, base, seed=settings.seed), settings, replay
            )
        finally:
            replay.close()
        done.write_text(card.name)
    folder = model_registry.registry_folder() / done.read_text()
    told = model_registry.read_card(folder).tuned
    if told is not None:
        print(f"gate: {told.status}: {told.reason}", flush=True)
    return str(folder)


def compared(
    path: Path,
    folders: DataFolders,
    known: Sequence[PastStudy],
    models: Mapping[str, str],
    seeds: int,
) -> dict[ComparedStudy, list[float]]:
    """Return the regrets at `COLUMNS` of every study; those in the file are not run again."""
    done = dict(_stored(path))
    for family, instances in yahpo.splits()["learning"]["tried"].items():
        for instance in instances:
            name = f"yahpo/{family}/{instance}/{METRIC}/full"
            units = [ComparedStudy(name, arm, seed) for seed in range(seeds) for arm in ARMS]
            missing = [unit for unit in units if unit not in done]
            problem = open_problem(name, folders) if missing else None
            scale = compute_reference(problem) if problem is not None else None
            for unit in missing:
                assert problem is not None
                assert scale is not None
                done[unit] = _regrets(problem, scale, unit, known, models[unit.arm])
                with path.open("a") as out:
                    out.write(json.dumps([asdict(unit), done[unit]]) + "\n")
    return done


def _stored(path: Path) -> Iterator[tuple[ComparedStudy, list[float]]]:
    if path.exists():
        for line in path.read_text().splitlines():
            unit, regrets = json.loads(line)
            yield ComparedStudy(**unit), regrets


def _regrets(
    problem: Problem, scale: Reference, unit: ComparedStudy, known: Sequence[PastStudy], model: str
) -> list[float]:
    choice = creators.parse_name("hybrid:retrieve" if unit.arm == "retrieve" else "hybrid")
    creator = creators.make_creator(choice, problem.task, _opened(model), known)
    rows = simulation.run_study(problem, creator, seed=unit.seed, trials=max(COLUMNS))
    best = statistics.best_so_far([row.value for row in rows], problem.direction, max(COLUMNS))
    regret = statistics.regret(best, scale.best, scale.median)
    return [float(regret[trial - 1]) for trial in COLUMNS]


@cache
def _opened(folder: str) -> TransformersBackend:
    """Return an open model, whatever the result of its gate."""
    return TransformersBackend(Path(folder))


def table(results: Mapping[ComparedStudy, Sequence[float]], learned: set[str]) -> None:
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


def _matrix(results: Mapping[ComparedStudy, Sequence[float]], members: set[str], arm: str) -> Any:
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
