"""`python -m scripts.benchmarks`: what a user sees, and what bad input gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.benchmarks.__main__ import main
from scripts.benchmarks.problems import suites

QUICK = ["--seeds", "2", "--trials", "3"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with results on the quadratics."""
    home = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALHPO_HOME", str(home))
        assert main(["run", "quadratics", "--creators", "tpe,random", *QUICK]) == 0
    return home


def test_a_run_ends_with_a_table_and_a_figure(measured, monkeypatch, capsys):
    monkeypatch.setenv("LOCALHPO_HOME", str(measured))
    assert main(["run", "quadratics", "--creators", "tpe,random", *QUICK]) == 0
    told = capsys.readouterr()
    assert told.err == ""  # nothing was missing
    lines = told.out.splitlines()
    assert lines[0].startswith("quadratics  The two quadratic functions")
    assert lines[1] == "2 problems x 2 seeds x 3 trials"
    assert "creator" in told.out
    assert "@1" in told.out
    assert "best value so far" in told.out
    assert "lost by tpe (p: Wilcoxon)" in told.out
    path = Path(lines[-1].removeprefix("figure  "))
    assert path == measured / "bench" / "quadratics.html"
    assert path.read_text().startswith("<!doctype html>")


def test_a_narrow_terminal_leaves_out_standard_errors(measured, monkeypatch, capsys):
    monkeypatch.setenv("LOCALHPO_HOME", str(measured))
    for width, there in ((60, False), (130, True)):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(["show", "quadratics"]) == 0
        told = capsys.readouterr().out
        assert ("±" in told) is there
        assert ("made by" in told) is there


def test_progress_goes_to_standard_error(home, capsys):
    assert main(["run", "function/ackley5/1", "--creators", "random", *QUICK]) == 0
    told = capsys.readouterr()
    assert "3 of 3 studies after" in told.err
    assert "studies after" not in told.out
    assert (home / "bench" / "function-ackley5-1.html").is_file()


def test_show_runs_nothing(measured, monkeypatch, capsys):
    monkeypatch.setenv("LOCALHPO_HOME", str(measured))
    monkeypatch.setattr("scripts.benchmarks.runner.run_suite", None)
    assert main(["show", "quadratics", "--creators", "random,tpe", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["creators"] == ["random", "tpe"]
    assert record["trials"] == 3
    assert record["best_score"]["tpe"]["3"] > 0
    assert record["failed"] == []
    assert Path(record["figure"]).is_file()


def test_list_names_every_suite_and_its_problems(capsys):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{listed}" for name in suites.all_suites())
    assert main(["list", "taskset"]) == 0
    assert capsys.readouterr().out.splitlines() == list(suites.find_suite("taskset").problems)
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(suites.all_suites())


@pytest.mark.parametrize(
    ("arguments", "code", "says", "hint"),
    [
        (["run", "quadratic"], 2, "a suite must be one of", "did you mean 'quadratics'?"),
        (["show", "functoins"], 2, "a suite must be one of", "did you mean 'functions'?"),
        (["list", "nothing-like-it"], 2, "a suite must be one of", "a CSV file"),
        (["run", "quadratics", "--creators", "tpe,rnadom"], 2, "a creator must be one of",
         "did you mean 'random'?"),
        (["run", "quadratics", "--creators", "gp:anonymous"], 2, "asks no model", "write gp"),
        (["run", "quadratics", "--creators", "agent@nowhere"], 2, "nowhere", ""),
        (["run", "quadratics", "--creators", "tpe,,gp"], 2, "separated by commas", ""),
        (["run", "quadratics", "--trials", "0"], 2, "--trials", ""),
        (["run", "function/bramin/1"], 2, "must be one of", "did you mean 'branin'?"),
        (["run", "taskset", "--creators", "tpe"], 2, "folder of public data", "--data DIR"),
        (["run", "taskset", "--creators", "tpe", "--data", "."], 2, "must hold taskset_adam8p/",
         "LOCALHPO_DATA"),
        (["run", "nowhere.csv", "--creators", "tpe"], 2, "no such table", ""),
        (["show", "functions"], 2, "no results on functions",
         "python -m scripts.benchmarks run functions"),
    ],
)  # fmt: skip
def test_errors_name_what_must_hold(arguments, code, says, hint, home, capsys):
    assert main(arguments) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert says in told.err
    assert hint in told.err
    assert not home.exists()


def test_a_table_of_the_user(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(
        '[task]\nname = "mine"\nmetric = "acc"\ndirection = "maximize"\n'
        '[space]\nx = { type = "float", low = 0.0, high = 1.0 }\n'
    )
    rows = "".join(f"{i / 50},{1 - abs(i / 50 - 0.7)}\n" for i in range(51))
    Path("mine.csv").write_text(f"x,acc\n{rows}")
    assert main(["run", "mine.csv", "--creators", "random", *QUICK, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["suite"] == "mine"
    assert list(record["by_problem"]) == [f"table/{tmp_path / 'mine.csv'}"]


def test_help_of_every_verb_lists_its_options(capsys):
    for verb in ("run", "show", "list"):
        assert main([verb, "--help"]) == 0
        assert "Examples" in capsys.readouterr().out
