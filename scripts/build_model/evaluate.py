"""Measures a built model and writes the numbers for its card.

First the loss on values by length of the history, and with the history hidden, which shows whether
the model learns from the history. Then the suites of `scripts.benchmarks` for final tables: the
hybrid with this model, with meta-data alone, without either, and the engines. Numbers are stored
with the digest of the model, so that those of other weights do not get into its card.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from localhpo import assets
from localhpo.errors import InputError, LocalHPOError, did_you_mean
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models.card import digest_files
from scripts.benchmarks import creators
from scripts.benchmarks.problems import registry, suites

from . import atomic_file, corpus, packing, tokenizer, train

SUITES = ("yahpo-seen", "yahpo-unseen", "xgboost", "mlp", "functions", "quadratics", "taskset")
CREATORS = (
    "hybrid", creators.META, creators.NO_MODEL, "center+gp", "gp", "tpe", "cmaes", "random",
)  # fmt: skip

_HISTORY = re.compile(r"^[0-9!?]:\{.*\n", re.MULTILINE)


def compute_digest(model: Path) -> str:
    """Return the digest of the files of a model."""
    return digest_files(model_registry.hash_files(model))


def read_numbers(path: Path, model: str) -> dict[str, Any]:
    """Return the numbers in a file; empty where they are of a model with another digest."""
    try:
        table = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return dict(table["numbers"]) if table.get("model") == model else {}


def write_numbers(path: Path, model: str, numbers: Mapping[str, Any]) -> None:
    """Write numbers to a file, with the digest of their model."""
    atomic_file.write_atomically(
        path, json.dumps({"model": model, "numbers": numbers}, indent=1) + "\n"
    )


def run_suites(
    model: Path, data: Path, target: Path, *, seeds: int, jobs: int,
    names: Sequence[str] | None = None, by: Sequence[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run the suites that have not been run yet, and write their results to `target`.

    Args:
        model: folder of the model.
        data: folder of public data.
        target: JSON file; results of the same model on other suites stay in it.
        seeds: number of seeds of each problem.
        jobs: number of processes.
        names: names of suites; by default those of `SUITES` whose data and packages exist.
        by: Creators; by default those of `CREATORS`. `hybrid-meta` has the meta-data of the
            built-in model, so it is left out where another model is measured.

    Raises:
        InputError: a suite or a Creator is unknown, or its data do not exist.
        LocalHPOError: a suite ended with an error.
    """
    creating = choose_creators(model, by)
    asked = choose_suites(data, names)
    identity = compute_digest(model)
    result = read_numbers(target, identity)
    for suite in asked:
        command = [sys.executable, "-m", "localhpo", "bench", "run", suite, "--json"]
        command += ["--creators", ",".join(creating), "--seeds", str(seeds)]
        command += ["--data", str(data), "--jobs", str(jobs)]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
        if done.returncode:
            raise LocalHPOError(
                f"{suite}: not all studies could be run", hint="run the same step again"
            )
        result[suite] = json.loads(done.stdout)
        write_numbers(target, identity, result)
    return result


def choose_creators(model: Path, by: Sequence[str] | None) -> list[str]:
    """Return the Creators to compare; those that ask a model ask this one.

    Raises:
        InputError: one is unknown, or would have the meta-data of another model.
    """
    built_in = assets.folder("models") / model_registry.DEFAULT
    names = list(by or CREATORS)
    if creators.META in names and model.resolve() != built_in.resolve():
        if by is not None:
            raise InputError(
                f"{creators.META} has the meta-data of {built_in}, but {model} is measured"
            )
        names.remove(creators.META)
        print(f"left out: {creators.META}, which has the meta-data of {built_in}")
    asking = {one.name for one in map(creators.parse_name, names) if one.uses_model}
    return [f"{name}@{model}" if name in asking else name for name in names]


def choose_suites(data: Path, names: Sequence[str] | None) -> list[str]:
    """Return the suites to run.

    Raises:
        InputError: one is unknown, or its data do not exist and it was asked for.
        MissingExtraError: the same for a package.
    """
    found = []
    for name in names or SUITES:
        if name not in suites.all_suites():
            raise InputError(f"no suite is named {name!r}", hint=did_you_mean(name, SUITES))
        try:
            registry.check_requirements(
                suites.find_suite(name).problems, registry.DataFolders(data, Path())
            )
        except LocalHPOError as error:
            if names is not None:
                raise
            print(f"left out: {name}: {error}")
        else:
            found.append(name)
    return found


def summarize(record: dict[str, Any]) -> dict[str, float]:
    """Return the mean regrets of one suite by Creator and trial, for the card."""
    out: dict[str, float] = {}
    for column in record["columns"]:
        for name, entry in column["creators"].items():
            short = name.partition("@")[0].replace("-", "_").replace("+", "_")
            out[f"{short}_{column['trial']}"] = round(entry["mean"], 3)
    out["problems"], out["seeds"] = record["problems"], len(record["seeds"])
    return out


def measure_history_loss(folder: Path, model: Path, limit: int = 600) -> dict[str, float]:
    """Return the loss per value token by length of the history, shown and hidden."""
    import torch
    from transformers import LlamaForCausalLM

    network = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    questions = corpus.load(folder / "questions" / train.VALIDATION)[:limit]
    groups = {
        "trials_0": [q for q in questions if q.trials == 0],
        "trials_1_to_5": [q for q in questions if 1 <= q.trials <= 5],
        "trials_6_to_20": [q for q in questions if q.trials > 5],
    }
    out = {}
    for name, group in groups.items():
        out[name] = _compute_value_loss(network, group, model)
        if name != "trials_0":
            hidden = [replace(q, prompt=_HISTORY.sub("", q.prompt)) for q in group]
            out[f"{name}_hidden"] = _compute_value_loss(network, hidden, model)
    return {name: round(value, 3) for name, value in out.items()}


def _compute_value_loss(network: Any, questions: list[corpus.Question], model: Path) -> float:
    """Return the mean loss over value tokens of answers of quality 9."""
    import torch

    best = [replace(q, answers=q.answers[:4], qualities=q.qualities[:4]) for q in questions]
    items = packing.tokenize_questions(best, tokenizer.load(model))
    length = packing.ROW_LENGTHS[-1]
    total = count = 0.0
    for row in packing.pack_rows([item for item in items if len(item) <= length], length):
        with torch.no_grad():
            losses, weights = train.compute_losses(
                network, packing.make_batch([row], length, 0), "cpu"
            )
        values = weights == packing.WEIGHT_VALUE
        total += float(losses[values].sum())
        count += float(values.sum())
    return total / max(1.0, count)
