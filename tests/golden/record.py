"""Records what every creator proposes for fixed seeds, with the LocalHPO that can be imported.

    python tests/golden/record.py proposals.json                # all cases
    python tests/golden/record.py proposals.json --only tpe gp  # cases of some creators
    python tests/golden/record.py --compare old.json new.json

It uses only what version 0.1.0 has too, so two commits can be recorded on one machine and
compared: `PYTHONPATH=CHECKOUT python tests/golden/record.py FILE`. That is the way to compare
creators whose floats depend on the machine (BLAS, torch).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ORIGINS = json.loads((HERE / "origins.json").read_text(encoding="utf-8"))

TRIALS = 9
FAILED, PRUNED = 2, 4
"""Numbers of the trials that end so."""
TOGETHER = 5
"""The trial that still runs when the next one is proposed."""

FLOAT, INT = "float", "int"
SPACES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "continuous": {
        "learning_rate": {"type": FLOAT, "low": 1e-5, "high": 1e-1, "log": True},
        "dropout": {"type": FLOAT, "low": 0.0, "high": 0.6},
        "weight_decay": {"type": FLOAT, "low": 1e-6, "high": 1e-1, "log": True},
    },
    "mixed": {
        "learning_rate": {"type": FLOAT, "low": 1e-4, "high": 1.0, "log": True},
        "optimizer": {"type": "categorical", "values": ["sgd", "adam", "adamw"]},
        "batch_size": {"type": "ordinal", "values": [16, 32, 64, 128, 256]},
        "num_layers": {"type": INT, "low": 1, "high": 6},
        "hidden_size": {"type": INT, "low": 16, "high": 1024, "log": True},
        "amp": {"type": "categorical", "values": [True, False]},
    },
    "conditional": {
        "optimizer": {"type": "categorical", "values": ["sgd", "adam"]},
        "learning_rate": {"type": FLOAT, "low": 1e-5, "high": 1.0, "log": True},
        "momentum": {"type": FLOAT, "low": 0.0, "high": 0.99, "when": {"optimizer": ["sgd"]}},
        "beta2": {"type": FLOAT, "low": 0.9, "high": 0.9999, "when": {"optimizer": ["adam"]}},
        "batch_size": {"type": "ordinal", "values": [16, 32, 64, 128]},
    },
    "xgboost": {
        "learning_rate": {"type": FLOAT, "low": 1e-3, "high": 1.0, "log": True},
        "max_depth": {"type": INT, "low": 3, "high": 11},
        "min_child_weight": {"type": INT, "low": 1, "high": 10},
        "subsample": {"type": FLOAT, "low": 0.5, "high": 1.0},
        "colsample_bytree": {"type": FLOAT, "low": 0.5, "high": 1.0},
        "n_estimators": {"type": INT, "low": 100, "high": 500},
        "gamma": {"type": FLOAT, "low": 0.0, "high": 0.5},
    },
    "unknown": {  # to the built-in model
        "viscosity": {"type": FLOAT, "low": 0.1, "high": 10.0, "log": True, "default": 0.9},
        "stirring": {"type": INT, "low": 10, "high": 90, "step": 5},
        "alloy": {"type": "categorical", "values": ["tin", "zinc", "lead"]},
    },
}
METRICS = {"xgboost": ("val_auc", "maximize"), "mixed": ("val_acc", "maximize")}
FLAT = ("continuous", "mixed", "xgboost")
CREATORS: Mapping[str, tuple[Mapping[str, Any], Sequence[str]]] = {
    "random": ({"name": "random"}, (*FLAT, "conditional")),
    "tpe": ({"name": "tpe"}, (*FLAT, "conditional")),
    "cmaes": ({"name": "cmaes"}, FLAT),
    "gp": ({"name": "gp"}, FLAT),
    "bo": ({"name": "bo"}, (*FLAT, "conditional")),
    "hybrid": ({"name": "hybrid"}, tuple(SPACES)),
    "hybrid without a model": ({"name": "hybrid"}, tuple(SPACES)),
    "hybrid with past studies": ({"name": "hybrid"}, ("mixed", "conditional", "xgboost")),
    "hybrid with past studies, without a model": ({"name": "hybrid"}, ("mixed", "unknown")),
    "hybrid with a chat model": ({"name": "hybrid", "backend": "scripted"}, ("mixed", "xgboost")),
    "agent": ({"name": "agent", "backend": "scripted"}, ("mixed", "conditional")),
}
"""Creator settings by name of the case, and the spaces that it is tried on."""

EXACT = ("random", "tpe", "cmaes", "agent")
"""Creators whose proposals depend on neither BLAS nor torch."""


def main() -> int:
    """Record to a file, or compare two files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", nargs="?", type=Path)
    parser.add_argument("--only", nargs="+", choices=CREATORS, default=list(CREATORS))
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"))
    arguments = parser.parse_args()
    if arguments.compare:
        old, new = (json.loads(path.read_text(encoding="utf-8")) for path in arguments.compare)
        differing = differences(old["proposals"], new["proposals"])
        shown = differing or [f"{len(old['proposals'])} cases are equal"]
        sys.stdout.write("\n".join(shown) + "\n")
        return 1 if differing else 0
    if arguments.output is None:
        parser.error("give a file to write, or --compare")
    record = {"machine": machine(), "proposals": proposals(arguments.only)}
    arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def machine() -> dict[str, str]:
    """Return what floats depend on: versions of packages, processor, BLAS."""
    import numpy as np

    found = {}
    for package in ("numpy", "scipy", "torch", "optuna", "cmaes"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = ""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    found["blas"] = f"{blas.get('name')} {blas.get('version')}"
    found["processor"] = _processor()
    found["cores"] = str(os.cpu_count())
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return where two records of proposals differ, one line each.

    Origins that version 0.1.0 did not tell apart count as equal (`origins.json`).
    """
    found = []
    for case, rows in old.items():
        if case not in new:
            found.append(f"{case}: is missing")
            continue
        if len(rows) != len(new[case]):
            found.append(f"{case}: had {len(rows)} trials, has {len(new[case])}")
            continue
        for number, (was, now) in enumerate(zip(rows, new[case], strict=True)):
            if _comparable(was) != _comparable(now):
                found.append(f"{case}, trial {number}: was {was}, is {now}")
    return found


def _comparable(row: Sequence[str]) -> tuple[str, str]:
    origin, config = row
    same = ORIGINS["same_in_0.1.0"]
    parts = dict.fromkeys(same.get(part, part) for part in origin.split("+"))
    return "+".join(parts), config


def proposals(creators: Sequence[str]) -> dict[str, list[list[str]]]:
    """Return origin and configuration of each trial, by case."""
    found = {}
    for creator in creators:
        for space in CREATORS[creator][1]:
            with tempfile.TemporaryDirectory() as folder, _environment(Path(folder)):
                found[f"{creator} on {space}"] = _record(creator, space, Path(folder))
            sys.stderr.write(f"{creator} on {space}\n")
    return found


def _record(creator: str, space: str, folder: Path) -> list[list[str]]:
    settings = dict(CREATORS[creator][0])
    if "past studies" in creator:
        _make_past_studies(space, folder)
        settings["experience"] = "retrieve"  # as 0.1.0 called it; still read
    if settings.get("backend") == "scripted":
        settings["model"] = str(_write_answers(space, folder))
    with _no_library_of_models() if "without a model" in creator else nullcontext():
        return _run(_table(space, settings, name="golden", seed=3), folder)


def _table(space: str, creator: Mapping[str, Any], *, name: str, seed: int) -> dict[str, Any]:
    metric, direction = METRICS.get(space, ("val_loss", "minimize"))
    return {
        "task": {
            "name": name, "metric": metric, "direction": direction, "seed": seed,
            "background": "A small network on 2,000 images.",
        },
        "space": SPACES[space],
        "budget": {"trials": TRIALS},
        "creator": dict(creator),
    }  # fmt: skip


def _run(table: Mapping[str, Any], folder: Path) -> list[list[str]]:
    """Return origin and configuration of each trial of a study that is run by hand."""
    from localhpo.study import Study

    try:
        from localhpo.task import parse_task
    except ImportError:  # version 0.1.0
        from localhpo.task import parse as parse_task
    from localhpo.trial import Measurement

    rows: list[list[str]] = []
    with Study.open(parse_task(table, folder=folder), home=folder / "home") as study:
        while len(rows) < TRIALS:
            asked = [study.ask() for _ in range(2 if len(rows) == TOGETHER else 1)]
            for trial in asked:
                rows.append([_origin(trial), json.dumps(dict(trial.config))])
                value = _value(table, trial.config)
                curve = [
                    Measurement(step, table["task"]["metric"], value + 0.5 / step, 1.8e9 + step)
                    for step in (1, 2)
                ]
                if trial.number == FAILED:
                    study.tell(trial, failure="the script ended with exit code 1")
                elif trial.number == PRUNED:
                    study.tell(trial, curve[-1].value, pruned=True, measurements=curve)
                else:
                    study.tell(trial, value, measurements=curve)
    return rows


def _value(table: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    """Return a smooth function of a configuration: how far it is from one point of the space."""
    total = 0.0
    for place, (name, row) in enumerate(table["space"].items()):
        if name not in config:
            total += 0.05
            continue
        if "values" in row:
            at = row["values"].index(config[name]) / max(1, len(row["values"]) - 1)
        else:
            scale = math.log if row.get("log") else float
            low, high = scale(row["low"]), scale(row["high"])
            at = (scale(config[name]) - low) / (high - low)
        total += (at - (0.3, 0.7, 0.55)[place % 3]) ** 2
    value = float(f"{total / len(table['space']):.6g}")
    return value if table["task"]["direction"] == "minimize" else 1.0 - value


def _origin(trial: Any) -> str:
    """Return the origin of a trial in the spelling of today."""
    text = str(trial.proposal.origin)
    try:
        from localhpo.trial import Origin  # noqa: F401
    except ImportError:  # version 0.1.0, where it is a plain text
        return str(ORIGINS["renamed"].get(text, text))
    return text


def _make_past_studies(space: str, folder: Path) -> None:
    for seed in (11, 12):
        _run(_table(space, {"name": "random"}, name=f"past-{seed}", seed=seed), folder)


def _write_answers(space: str, folder: Path) -> Path:
    """Write the answers of a chat model, whose configurations are drawn at random."""
    import numpy as np

    from localhpo.space import Space

    drawn, rng = Space.from_table(SPACES[space]), np.random.default_rng(5)
    path = folder / "answers.jsonl"
    lines = []
    for _ in range(3 * TRIALS):
        config = drawn.text(drawn.sample(rng))
        answer = f'"analysis":"This has not been tried.","config":{config},"evidence":[]'
        lines.append("{" + answer + "}\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Keep the user's studies, models and servers out of it."""
    variables = ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "LOCALHPO_HOME")
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: str(folder / name.lower()) for name in variables})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _no_library_of_models() -> Iterator[None]:
    """Let a library be missing that a model in this process needs."""
    name = "llguidance"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # so Python finds none
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


if __name__ == "__main__":
    raise SystemExit(main())
