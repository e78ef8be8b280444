"""Measures a built model and writes the numbers that its card quotes.

The go/no-go figure for learning from history comes first: the loss on values by length of
history, and with the history hidden. Then the suites of `localhpo bench` that are meant for the
final table, with the model's folder in the Creators `hybrid` and `agent`, beside the hybrid
without a model, Optuna's GP from the centre, and random search.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import corpus, packing, tokenizer, train

SUITES = ("yahpo-seen", "yahpo-unseen", "xgboost")
CONTROLS = ("hybrid-no-model", "centre+gp", "random")

_HISTORY = re.compile(r"^[0-9!?]:\{.*\n", re.MULTILINE)


def run(model: Path, data: Path, target: Path, *, seeds: int, jobs: int) -> dict[str, Any]:
    """Run the suites, as far as they have not been run, and write their records to `target`."""
    asking = [f"{name}@{model}" for name in ("hybrid", "agent")]
    result: dict[str, Any] = {}
    for suite in SUITES:
        command = [sys.executable, "-m", "localhpo", "bench", "run", suite, "--json"]
        command += ["--creators", ",".join([*asking, *CONTROLS]), "--seeds", str(seeds)]
        command += ["--data", str(data), "--jobs", str(jobs)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        result[suite] = json.loads(done.stdout)
        target.write_text(json.dumps(result, indent=1) + "\n")
    return result


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
