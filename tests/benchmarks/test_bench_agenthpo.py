"""`python -m scripts.benchmarks agenthpo`: what a user sees, and what bad input gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localhpo.store import Store
from scripts.benchmarks.__main__ import main

COMMAND = ["agenthpo", "--tasks", "quadratic-2-3", "--creators", "tpe,random"]
QUICK = ["--runs", "2", "--trials", "3", "--best-of", "9"]


TASK = """
[task]
name = "quadratic-2-3"
command = ["true"]
metric = "f"
direction = "minimize"
[space]
x = { type = "float", low = 0.0, high = 1.0 }
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with results on a quadratic."""
    home = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALHPO_HOME", str(home))
        assert main([*COMMAND, *QUICK]) == 0
    return home


@pytest.fixture
def at_home(measured, monkeypatch):
    monkeypatch.setenv("LOCALHPO_HOME", str(measured))
    return measured


def test_a_run_ends_with_a_table_and_figures(at_home, tmp_path, capsys):
    assert main([*COMMAND, *QUICK, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert told.err == ""  # nothing was missing
    lines = told.out.splitlines()
    assert lines[0] == "quadratic-2-3  f, minimized; 2 runs x 3 trials"
    assert lines[1].split() == ["best", "so", "far", "@1", "@3", "gap", "p", "test"]
    assert "best of 9 " in told.out
    assert "paper: GPT-4     266.61 k" in told.out
    there = {path.name for path in (tmp_path / "out").iterdir()}
    files = sorted(there - {"plotly.min.js"})
    assert files == ["agenthpo-quadratics.html", "agenthpo.html", "agenthpo.json", "agenthpo.md"]
    assert all(line.split()[-1].endswith(name) for line, name in zip(
        sorted(lines[-4:], key=lambda line: line.split()[-1]), files, strict=True))  # fmt: skip
    drawn = (tmp_path / "out" / "agenthpo-quadratics.html").read_text()
    assert "quadratic-2-3: random" in drawn
    assert drawn.count('"mode":"lines+markers"') == 2 * 2  # two runs of two creators


def test_json_says_what_the_studies_hold(at_home, capsys):
    assert main([*COMMAND, *QUICK, "--json"]) == 0
    task = json.loads(capsys.readouterr().out)["tasks"]["quadratic-2-3"]
    store = Store(at_home / "bench" / "agenthpo")
    names = [r.name for r in store.studies() if r.name.startswith("quadratic-2-3/random-")]
    assert len(names) == 3
    scores = {name[-1]: [t.value for t in store.trials(name)] for name in names}
    told = task["creators"]["random"]["runs"]
    assert told == [[min(scores[run][: t + 1]) for t in range(3)] for run in ("0", "1")]
    assert task["human"] == {"best": min(min(run) for run in scores.values()), "of_trials": 9}
    assert task["tpe against"]["random"]["3"]["duel"]["ties"] <= 2
    assert task["paper"] is None


def test_a_narrow_terminal_sees_whole_lines(at_home, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "50")
    assert main([*COMMAND, *QUICK]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tpe ")]
    assert rows[0].count("±") == 1


def test_a_folder_that_cannot_be_made_is_named(at_home, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([*COMMAND, *QUICK, "--out", str(tmp_path / "file" / "out")]) == 1
    assert "cannot be made" in capsys.readouterr().err


@pytest.mark.slow
def test_real_trainings_of_a_ready_task(home, capsys):
    pytest.importorskip("xgboost")
    command = ["agenthpo", "--tasks", "breast-cancer-xgboost", "--creators", "random"]
    assert main([*command, "--runs", "1", "--trials", "2", "--best-of", "2", "--json"]) == 0
    told = capsys.readouterr()
    assert "1 of 1 studies after" in told.err
    task = json.loads(told.out)["tasks"]["breast-cancer-xgboost"]
    (best,) = task["creators"]["random"]["runs"]
    assert 0.3 < best[0] <= best[1] < 1.0
    assert task["human"]["best"] == best[1]
    assert task["creators"]["random"]["training_s"] > 0.5
    assert len(list((home / "bench/agenthpo/trainings").rglob("*.json"))) == 2


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (["--tasks", "water-xgbost"], "a task must be one of", ""),
        (["--tasks", "quadratic-2-4"], "a task must be one of", "did you mean 'quadratic-2-3'?"),
        (["--tasks", "a,,b"], "separated by commas", "--tasks"),
        (["--creators", "tpe,"], "separated by commas", "--creators"),
        (["--tasks", "quadratic-2-3", "--creators", "gpt-4"], "a creator must be one of", ""),
        (["--tasks", "breast-cancer-xgboost", "--small"], "has no small size", "--small"),
        (["--tasks", "quadratic-2-3,quadratic.toml"], "there are several called quadratic-2-3",
         "change the `name`"),
        (["--tasks", "nowhere.toml"], "no such task file", "localhpo init"),
        (["--data", "nowhere"], "nowhere", "--data"),
        (["--runs", "0"], "--runs", ""),
    ],
)  # fmt: skip
def test_bad_input_is_told_what_must_hold(
    arguments, says, hint, home, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("quadratic.toml").write_text(TASK)
    assert main(["agenthpo", *arguments]) in (1, 2)
    told = capsys.readouterr()
    assert told.out == ""
    assert says in told.err
    assert hint in told.err
    assert not home.exists()
