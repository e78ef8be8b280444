"""Records what the commands print with `--json`, with the LocalHPO that can be imported.

    python tests/golden/record_json.py json_output.json

A study is run trial by trial, for in one run a proposal may be drawn before the last trial has
ended, or after. Its task is that of `tests/written_by_0.1.0/slope`, whose script has no randomness.
What differs from run to run (times, memory, folders) and sentences for people are recorded as
`ANY`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TASK = HERE.parent / "written_by_0.1.0" / "slope"

ANY = "(any)"

MEASURED = (
    "cpu_s", "created_at", "changed_at", "finished_at", "peak_memory_mb", "queued_at", "rerun",
    "report", "seconds", "started_at", "time", "waited_s", "wall_s",
)  # fmt: skip
SUMS = ("accounts", "cost")
"""Objects whose values are all measured; their keys are recorded."""

SENTENCES = ("message", "notes", "rationale", "stderr_tail", "summary")
KEPT = ("message", "stderr_tail")
"""Sentences of the script or the system, where they stand below `failure`."""

TRIALS = 4

COMMANDS: Mapping[str, Sequence[str]] = {
    "run": ("run", "task.toml", "--study", "{creator}", "--creator", "{creator}", "--seed", "2",
            "--trials", "{trials}", "--json", "--quiet"),
    "trials": ("trials", "slope/{creator}", "--json"),
    "trials by value": ("trials", "slope/{creator}", "--json", "--sort", "score"),
    "failed trials": ("trials", "slope/{creator}", "--json", "--failed"),
    "report": ("report", "slope/{creator}", "--json"),
    "studies": ("trials", "--json"),
    "enqueue": ("enqueue", "slope/{creator}", "--set", "depth=5", "--json"),
}  # fmt: skip


def main() -> int:
    """Record to a file."""
    with tempfile.TemporaryDirectory() as folder:
        record = outputs(Path(folder))
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def outputs(folder: Path) -> dict[str, Any]:
    """Return what each command prints, by creator and command, in an empty folder."""
    for name in ("task.toml", "train.py"):
        shutil.copy(TASK / name, folder / name)
    found: dict[str, Any] = {"random": {}, "tpe": {}}
    for creator, printed in found.items():
        for name, words in COMMANDS.items():
            for trials in range(1 if name == "run" else TRIALS, TRIALS + 1):
                filled = [word.format(creator=creator, trials=trials) for word in words]
                printed[name] = mask(_run(filled, folder))
    return found


def mask(value: Any, key: str = "", parent: str = "") -> Any:
    """Return a value with `ANY` for what is measured, and for sentences."""
    is_measured = key in MEASURED or parent in SUMS
    is_reworded = key in SENTENCES and not (parent == "failure" and key in KEPT)
    if value and (is_measured or is_reworded):
        return ANY
    if isinstance(value, dict):
        return {name: mask(item, name, key) for name, item in value.items()}
    if isinstance(value, list):
        return [mask(item) for item in value]
    return value


def _run(words: Sequence[str], folder: Path) -> Any:
    variables = {
        name: str(folder / name.lower())
        for name in ("LOCALHPO_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
    }
    ended = subprocess.run(
        [sys.executable, "-m", "localhpo", *words],
        cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode not in (0, 3):  # 3: not one good trial yet
        raise RuntimeError(f"localhpo {' '.join(words)} failed: {ended.stderr}")
    return json.loads(ended.stdout)


if __name__ == "__main__":
    raise SystemExit(main())
