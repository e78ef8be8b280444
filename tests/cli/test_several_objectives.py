"""A study with two objectives and a constraint, from its task file to the report."""

import json
import os
import re
import subprocess
import sys

import pytest

from localhpo.cli import main
from localhpo.study import Study
from localhpo.task import load_task

TRAIN = """
import argparse
from localhpo.reporter import report
p = argparse.ArgumentParser()
p.add_argument("--width", type=int)
width = p.parse_args().width
report(val_f1=0.9 - 1 / width, latency_ms=2.0 * width)
"""
TASK = """
[task]
name = "trade-off"
command = ["python", "train.py"]

[[objective]]
name = "val_f1"
direction = "maximize"

[[objective]]
name = "latency_ms"
direction = "minimize"

[[constraint]]
name = "latency_ms"
max = LIMIT

[space]
width = { type = "int", low = 4, high = 128 }

[budget]
trials = 4

[creator]
name = "nsga2"
"""
WIDTHS = (60, 20, 100, 40)


def make_study(folder, limit, creator="nsga2"):
    """Run a study of four enqueued trials; return what it printed."""
    (folder / "train.py").write_text(TRAIN)
    (folder / "task.toml").write_text(TASK.replace("LIMIT", limit).replace("nsga2", creator))
    study = Study.open(load_task(folder / "task.toml"), home=folder / "home")
    for width in WIDTHS:
        study.enqueue({"width": width})
    return subprocess.run(
        [sys.executable, "-m", "localhpo", "run", "task.toml"],
        cwd=folder, check=True, capture_output=True, text=True,
        env={**os.environ, "LOCALHPO_HOME": str(folder / "home"), "COLUMNS": "160"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trade-off")
    return folder, make_study(folder, "150.0")


@pytest.fixture
def studied(finished, monkeypatch):
    folder, _ = finished
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LOCALHPO_HOME", str(folder / "home"))
    monkeypatch.setenv("COLUMNS", "160")


def test_run_ends_with_the_pareto_front(finished):
    _, done = finished
    assert "goals        maximize val_f1, minimize latency_ms; subject to latency_ms <= 150" in (
        done.stdout
    )
    assert "best trials  3 of 4 complete trials form the Pareto front:" in done.stdout
    assert "latency_ms 40 <= 150" in done.stdout
    assert "latency_ms 200; not feasible: latency_ms <= 150 must hold" in done.stderr


def test_trials_marks_the_front_and_the_violation(studied, capsys):
    main(["trials", "--sort", "value"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["0", "3", "1", "2"]
    assert [" * " in row for row in rows] == [True, True, True, False]
    assert "complete (latency_ms 200 > 150)" in rows[3]


def test_trials_as_json(studied, capsys):
    main(["trials", "--json"])
    trials = json.loads(capsys.readouterr().out)
    assert [trial["feasible"] for trial in trials] == [True, True, False, True]
    assert trials[2]["violations"] == [50.0]
    assert trials[1]["values"] == [pytest.approx(0.85), 40.0]
    assert {(trial["value"], trial["score"]) for trial in trials} == {(None, None)}


def test_report_as_json(studied, capsys):
    main(["report", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert [trial["number"] for trial in record["best_trials"]] == [0, 1, 3]
    assert (record["best"], record["incumbent"], record["rerun"]) == (None, [], "")
    assert set(record["reruns"]) == {"0", "1", "3"}


def test_the_commands_of_the_front_run(studied, capsys):
    main(["report", "--json"])
    command = json.loads(capsys.readouterr().out)["reruns"]["1"]
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "latency_ms=40" in done.stdout


def test_the_list_of_studies_shows_the_size_of_the_front(studied, capsys):
    main(["run", "task.toml", "--study", "other", "--trials", "1", "--quiet"])
    capsys.readouterr()
    main(["trials"])
    assert re.search(
        r"trade-off/main +4 of 4 +val_f1, latency_ms +3 trials", capsys.readouterr().out
    )


def test_without_a_feasible_trial_the_least_infeasible_is_shown(tmp_path):
    done = make_study(tmp_path, "1.0")
    assert "best trials  no trial meets every constraint; the least infeasible:" in done.stdout
    assert "latency_ms 40 > 1" in done.stdout


def test_a_creator_that_optimizes_one_objective_is_announced(tmp_path):
    done = make_study(tmp_path, "150.0", creator="bo")
    first = done.stderr.splitlines()[0]
    assert "bo optimizes val_f1 only; latency_ms, latency_ms <= 150 are recorded" in first
    assert "nsga2, tpe and gp" in first
