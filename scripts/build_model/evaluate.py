"""Measures a built model and writes the numbers that its card quotes.

The go/no-go figure for learning from history comes first: the loss on values by length of
history, and with the history hidden. Then the suites of `localhpo bench` for final tables, with
the model's folder in the Creator `hybrid`, beside the hybrid with its lessons alone, without
either, and the engines. The numbers are kept with the digest of the model that they are of: those
of other weights are no part of its card.
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

from localhpo import resources
from localhpo.bench import creators, suites
from localhpo.bench.problems import opening
from localhpo.errors import InputError, LocalHPOError, did_you_mean
from localhpo.llm import cards
from localhpo.llm.card import digest_of

from . import corpus, packing, tokenizer, train, whole

SUITES = ("yahpo-seen", "yahpo-unseen", "xgboost", "mlp", "functions", "quadratics", "taskset")
CREATORS = (
    "hybrid", creators.LESSONS, creators.NO_MODEL, "center+gp", "gp", "tpe", "cmaes", "random",
)  # fmt: skip

_HISTORY = re.compile(r"^[0-9!?]:\{.*\n", re.MULTILINE)


def digest(model: Path) -> str:
    """Return what tells the files of a model from those of another."""
    return digest_of(cards.hash_files(model))


def kept(path: Path, model: str) -> dict[str, Any]:
    """Return the numbers in a file, where they are of the model with that digest; else none."""
    try:
        table = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return dict(table["numbers"]) if table.get("model") == model else {}


def keep(path: Path, model: str, numbers: Mapping[str, Any]) -> None:
    """Write numbers to a file, with the digest of their model."""
    whole.write(path, json.dumps({"model": model, "numbers": numbers}, indent=1) + "\n")


def run(
    model: Path, data: Path, target: Path, *, seeds: int, jobs: int,
    names: Sequence[str] | None = None, by: Sequence[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run the suites, as far as they have not been run, and write their records to `target`.

    Args:
        model: folder.
        data: folder of public data.
        target: JSON; records of the same model by other suites stay in it.
        seeds: of each problem.
        jobs: processes at once.
        names: of suites; by default those of `SUITES` whose data and packages are there.
        by: Creators; by default those of `CREATORS`. `hybrid-lessons` knows the lessons of the
            built-in model, so it is left out where another is measured.

    Raises:
        InputError: a suite or a Creator is unknown, or what it needs is not there.
        LocalHPOError: a suite ended with an error, which it said.
    """
    creating = chosen_creators(model, by)
    asked = chosen_suites(data, names)
    identity = digest(model)
    result = kept(target, identity)
    for suite in asked:
        command = [sys.executable, "-m", "localhpo", "bench", "run", suite, "--json"]
        command += ["--creators", ",".join(creating), "--seeds", str(seeds)]
        command += ["--data", str(data), "--jobs", str(jobs)]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
        if done.returncode:
            raise LocalHPOError(f"{suite}: not all could be run", hint="the same step goes on")
        result[suite] = json.loads(done.stdout)
        keep(target, identity, result)
    return result


def chosen_creators(model: Path, by: Sequence[str] | None) -> list[str]:
    """Return the Creators to compare; those that ask a model ask this one.

    Raises:
        InputError: one is unknown, or would know other lessons than this model's.
    """
    built_in = resources.folder("models") / cards.DEFAULT
    names = list(by or CREATORS)
    if creators.LESSONS in names and model.resolve() != built_in.resolve():
        if by is not None:
            raise InputError(
                f"{creators.LESSONS} knows the lessons of {built_in}, and {model} is measured"
            )
        names.remove(creators.LESSONS)
        print(f"left out: {creators.LESSONS}, which knows the lessons of {built_in}")
    asking = {one.name for one in map(creators.parse, names) if one.asks_a_model}
    return [f"{name}@{model}" if name in asking else name for name in names]


def chosen_suites(data: Path, names: Sequence[str] | None) -> list[str]:
    """Return the suites to run.

    Raises:
        InputError: one is unknown, or asked for and what it needs is not there.
        MissingExtraError: the same of a package.
    """
    found = []
    for name in names or SUITES:
        if name not in suites.all_suites():
            raise InputError(f"no suite is named {name!r}", hint=did_you_mean(name, SUITES))
        try:
            opening.check(suites.find(name).problems, opening.Places(data, Path()))
        except LocalHPOError as error:
            if names is not None:
                raise
            print(f"left out: {name}: {error}")
        else:
            found.append(name)
    return found


def summary(record: dict[str, Any]) -> dict[str, float]:
    """Return the mean regrets of one suite by Creator and trial, for the card."""
    out: dict[str, float] = {}
    for column in record["columns"]:
        for name, entry in column["creators"].items():
            short = name.partition("@")[0].replace("-", "_").replace("+", "_")
            out[f"{short}_{column['trial']}"] = round(entry["mean"], 3)
    out["problems"], out["seeds"] = record["problems"], len(record["seeds"])
    return out


def history_loss(folder: Path, model: Path, limit: int = 600) -> dict[str, float]:
    """Return the loss per value token by length of history, with the history shown and hidden."""
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
        out[name] = _value_loss(network, group, model)
        if name != "trials_0":
            hidden = [replace(q, prompt=_HISTORY.sub("", q.prompt)) for q in group]
            out[f"{name}_hidden"] = _value_loss(network, hidden, model)
    return {name: round(value, 3) for name, value in out.items()}


def _value_loss(network: Any, questions: list[corpus.Question], model: Path) -> float:
    """Return the mean loss over value tokens of answers of quality 9."""
    import torch

    best = [replace(q, answers=q.answers[:4], qualities=q.qualities[:4]) for q in questions]
    items = packing.tokens(best, tokenizer.load(model))
    length = packing.ROW_LENGTHS[-1]
    total = count = 0.0
    for row in packing.rows([item for item in items if len(item) <= length], length):
        with torch.no_grad():
            losses, weights = train.loss_of(network, packing.batch([row], length, 0), "cpu")
        values = weights == packing.WEIGHT_VALUE
        total += float(losses[values].sum())
        count += float(values.sum())
    return total / max(1.0, count)
