"""The simulation of memory sharing on a machine that a file describes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_simulation(inventory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.benchmarks.sharing", "--inventory", str(inventory)]
    return subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_machine_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    path.write_text("cpus = 8\n[[gpus]]\ncount = 2\nmemory_mb = 24_564\nforeign_mb = 4_564\n")
    done = run_simulation(path, "--sample", "2", "--json")
    rows = json.loads(done.stdout)
    assert len(rows) == 2, done.stderr
    for row in rows:
        assert (row["setting"]["gpus"], row["setting"]["gpu_gb"]) == (2, 20.0)
        assert row["studies"][0]["auto"]["ran"] == row["setting"]["trials"]


@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        ("", "must have one known size"),
        ("[[gpus]]\nmemory_mb = 24_000\n[[gpus]]\nmemory_mb = 80_000\n", "got 2 sizes of 2 GPUs"),
        ("[[gpus]]\nmemory_mb = 1_000\n", "must hold the smallest model"),
    ],
)
def test_a_machine_outside_of_the_grid_is_refused(tmp_path: Path, gpus: str, message: str) -> None:
    path = tmp_path / "machine.toml"
    path.write_text(f"cpus = 8\n{gpus}")
    done = run_simulation(path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
