"""Measures a built model and writes the numbers that its card quotes.

Regrets of the first trials (`measure.py`), and the go/no-go figure for learning from history:
the loss on values by length of history, and with the history hidden.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from . import corpus, measure, packing, tokenizer, train

_HISTORY = re.compile(r"^[0-9!?]:\{.*\n", re.MULTILINE)


def run(model: Path, data: Path, target: Path, *, size: int = 3) -> dict[str, Any]:
    """Measure the model folder on all groups of problems; write JSON to `target`.

    Args:
        model: the folder.
        data: of public data.
        target: for the outcomes of every problem.
        size: problems per family; the other groups grow with it.
    """
    from localhpo.llm import open_backend

    backend = open_backend("transformers", model=str(model))
    groups = {
        "held_out": (measure.held_out_problems(data, size, 501), 2000),
        "unseen": (measure.unseen_problems(data, 3 * size, 502), 2000),
        "xgboost": (measure.xgboost_problems(3 * size, 90_000), 60),
    }
    result: dict[str, Any] = {}
    try:
        for name, (group, draws) in groups.items():
            outcomes = []
            for i, problem in enumerate(group):
                outcomes.append(
                    measure.outcome(backend, problem, seed=700 + i, draws=draws, seeds=8, runs=4)
                )
                print(name, _line(outcomes[-1]), flush=True)
            result[name] = [asdict(o) for o in outcomes]
            target.write_text(json.dumps(result, indent=1) + "\n")
            print(name, summary(result[name]), flush=True)
    finally:
        backend.close()
    return result


def summary(outcomes: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the means over problems, and the share of problems where the model beats random."""
    rows = list(outcomes)
    names = [name for name in rows[0] if name != "source"]
    out = {name: round(fmean(row[name] for row in rows), 3) for name in names}
    out["problems"] = len(rows)
    out["medoid_beats_random"] = round(fmean(row["medoid"] < row["random"] for row in rows), 2)
    return out


def _line(outcome: measure.Outcome) -> str:
    numbers = {k: v for k, v in asdict(outcome).items() if k != "source"}
    return outcome.source + " " + " ".join(f"{k} {v:.2f}" for k, v in numbers.items())


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
