"""Checkpoint -> model folder in Hugging Face layout: weights, tokenizer, card, README."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from localhpo.experience import lessons
from localhpo.llm.folder.description import LESSONS

from . import corpus, evaluate, functions, train

NAME, VERSION = "sprout", "5"

NOT_GOOD_AT = (
    "kinds of models that it never saw: where it knows fewer than half of the names, it is not"
    " asked",
    "learning from the history: its loss hardly falls with the trials shown (value_loss_*), so"
    " later trials are left to Bayesian optimisation",
    "giving reasons: it answers with a configuration and no word",
)


def weights(
    work: Path, target: Path, settings: train.Settings, earlier: Sequence[Path] = ()
) -> int:
    """Write weights, tokenizer and lessons; return the number of parameters.

    With `earlier` checkpoints of the same training, the mean of all: stochastic weight averaging
    (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407).
    """
    model = train.build(settings, work / "model")
    model.load_state_dict(_mean([train.load_checkpoint(one)["model"] for one in (work, *earlier)]))
    # Half the size; backends convert to what their device is fast with.
    model.half().save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(work / "model" / name, target / name)
    if (work / LESSONS).exists():
        shutil.copyfile(work / LESSONS, target / LESSONS)
    for path in target.iterdir():
        path.chmod(0o644)  # save_pretrained writes weights that only their owner can read
    return sum(p.numel() for p in model.parameters())


def _mean(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: sum(state[key] for state in states) / len(states) for key in states[0]}


def card(
    work: Path, target: Path, parameters: int, settings: train.Settings, name: str = NAME
) -> None:
    """Write `card.toml` with what is known: hashes, recipe, and the numbers measured so far."""
    from localhpo.llm import cards

    progress = train.load_checkpoint(work)["progress"]
    made: dict[str, Any] = {
        "script": "python -m scripts.build_model",
        "data": "YAHPO Gym surrogates (Apache-2.0), trainings on generated data sets, functions"
        " over known names, TaskSet tables (Apache-2.0), winners published by tabm, tabr, tabred,"
        " rtdl (Apache-2.0, MIT) and FLAML (MIT); split: localhpo/bench/splits.toml",
        "questions": progress["questions"], "tokens": progress["tokens"],
        "steps": progress["steps"], "seconds": round(progress["seconds"]),
        "device": "one shared CPU thread",
        "shape": f"{settings.layers} layers, width {settings.hidden}, {settings.heads} heads",
    }  # fmt: skip
    if (target / LESSONS).exists():
        made["lessons"] = len(lessons.read(target / LESSONS))
    text = cards.render(
        cards.Card(
            name=name, version=VERSION, license="MIT", architecture="llama",
            summary="built in: first trials from what is usual in the field; small, and no talker",
            parameters=parameters, context_length=settings.context, prompt="compact",
            files=cards.hash_files(target), made=made, measured=measured(work),
            not_good_at=NOT_GOOD_AT, knows=known_names(work),
        )
    )  # fmt: skip
    (target / cards.CARD).write_text(text)


SEEN = 30
"""Problems of the training that a name must have come up in to be known."""

_PARAMETER = re.compile(r"^(\S+) (?:float|int|ordinal|categorical|bool) ", re.MULTILINE)


def known_names(work: Path) -> tuple[str, ...]:
    """Return the names of hyperparameters that the training data tell something about.

    Made-up names are each seen once; those of nameless functions are seen often and say nothing.
    """
    seen: Counter[str] = Counter()
    for path in sorted((work / "questions").glob("shard-*.jsonl")):
        for question in corpus.load(path):
            if question.trials == 0 and question.source != f"function/{functions.NAMELESS}":
                seen.update(set(_PARAMETER.findall(question.prompt)))
    return tuple(sorted(name for name, count in seen.items() if count >= SEEN))


def measured(work: Path) -> dict[str, float]:
    """Return the numbers for the card; empty before `evaluate` has run."""
    out: dict[str, float] = {}
    path = work / "bench.json"
    if path.exists():
        results: Mapping[str, Any] = json.loads(path.read_text())
        for suite, record in results.items():
            group = suite.replace("-", "_")
            out |= {f"{group}_{k}": value for k, value in evaluate.summary(record).items()}
    path = work / "history.json"
    if path.exists():
        out |= {f"value_loss_{k}": v for k, v in json.loads(path.read_text()).items()}
    return out
