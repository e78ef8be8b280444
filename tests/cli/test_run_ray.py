"""`localhpo run` on a Ray cluster, one node of which is lost on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray_cluster import RayCluster

from localhpo.study import Study

pytestmark = pytest.mark.slow

TASK = """
[task]
name = "far"
command = ["python", "train.py"]
metric = "loss"
direction = "minimize"

[space]
x = { type = "float", low = 0.0, high = 1.0 }

[budget]
trials = 5

[resources]
executor = "ray"
parallel = 3
gpus = 0.5

[creator]
name = "random"
"""

SCRIPT = """
import argparse, os, time
from pathlib import Path
from localhpo import report
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float)
x = parser.parse_args().x
print("devices", os.environ["CUDA_VISIBLE_DEVICES"])
report(step=1, loss=1 + x)
first = Path("first")
try:
    first.touch(exist_ok=False)
except FileExistsError:
    pass
else:
    Path("raylet").write_text(os.environ["RAY_RAYLET_PID"])
    time.sleep(600)
report(step=2, loss=x)
"""


def wait_for(path: Path, run: subprocess.Popen[str]) -> str:
    give_up = time.monotonic() + 240
    while not (path.exists() and path.read_text()):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return path.read_text()


def test_a_study_outlives_a_node(ray_cluster: RayCluster, tmp_path: Path, home: Path) -> None:
    (tmp_path / "task.toml").write_text(TASK)
    (tmp_path / "train.py").write_text(SCRIPT)
    with ray_cluster.two_with_gpus():
        run = subprocess.Popen(
            [sys.executable, "-m", "localhpo", "run", "task.toml", "--json"],
            cwd=tmp_path,
            env={**os.environ, "RAY_ADDRESS": ray_cluster.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with ray_cluster.one_lost(int(wait_for(tmp_path / "raylet", run)), instead=False):
            out, err = run.communicate(timeout=240)
    assert run.returncode == 0, err
    result = json.loads(out)  # Ray's own messages on the lost node are not among it
    assert [trial["state"] for trial in result["trials"]] == ["complete"] * 5

    study = Study.find(home=home)
    again = [trial for trial in study.trials if trial.restarts]
    assert len(again) in (1, 2)  # another one may have begun there
    for trial in again:
        assert trial.value == trial.config["x"]
        assert [m.step for m in trial.measurements] == [1, 2]
    said = [event.message for event in study.events if event.kind == "interrupted"]
    assert len(said) == len(again)
    assert all("the node was lost" in message for message in said)
    for number in range(5):
        folder = study.folder / "trials" / str(number)
        (stdout,) = folder.parent.glob(f"*{number}/stdout.txt")
        assert stdout.read_text() == "devices 0\n"
