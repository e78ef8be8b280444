"""The file of results: what is kept, replaced, left out, and who is waited for."""

import dataclasses
import json
import subprocess
import sys

import duckdb
import pytest

from localhpo.errors import StoreVersionError
from scripts.benchmarks.results import (
    FILE,
    ProblemRow,
    Results,
    TrialRow,
    UnitKey,
    UnitRow,
    bench_folder,
)

TRIAL = TrialRow(
    number=0, state="complete", value=0.5, config='{"x":1e-3}', origin="llm", tries=2,
    seconds=0.25, prompt_tokens=100, completion_tokens=20, repeated=False, invalid=False, note="é",
    training_s=4.5, test=0.75,
)  # fmt: skip
FAILED = dataclasses.replace(TRIAL, number=1, state="failed", value=None, repeated=True)
KEY = UnitKey("function/branin/1", "d" * 64, "hybrid@a/b:anonymous", "c" * 64, 3, 10)


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "bench")


def unit(trials=(TRIAL, FAILED), **changes):
    return UnitRow(dataclasses.replace(KEY, **changes), "m" * 64, 1.5, tuple(trials))


def test_nothing_is_there_before_something_is_added(results):
    assert results.keys([KEY.problem]) == []
    assert results.units([KEY]) == []
    assert results.problems([KEY.problem]) == []
    assert not results.folder.exists()


def test_a_unit_comes_back_as_it_was(results):
    units = [unit(), unit(seed=4), unit(trials=(), seed=5)]
    results.add(units)
    assert results.keys([KEY.problem]) == [row.key for row in units]
    assert results.keys(["another"]) == []
    assert results.units([units[1].key, KEY, dataclasses.replace(KEY, seed=9)]) == [
        units[1], units[0],
    ]  # fmt: skip
    assert Results(results.folder).units([units[2].key]) == [units[2]]


def test_a_unit_takes_the_place_of_an_earlier_one(results):
    results.add([unit()])
    newer = unit(trials=[dataclasses.replace(TRIAL, value=0.25)])
    results.add([newer])
    assert results.units([KEY]) == [newer]
    assert len(results.keys([KEY.problem])) == 1


@pytest.mark.parametrize(
    "changes",
    [{"problem_digest": "e" * 64}, {"creator_digest": "e" * 64}, {"seed": 1}, {"budget": 30}],
)
def test_another_key_is_another_unit(results, changes):
    results.add([unit()])
    assert results.units([dataclasses.replace(KEY, **changes)]) == []


def test_the_latest_definition_of_a_problem_comes_last(results):
    old = ProblemRow("p", "a" * 64, "minimize", 0.0, 1.0)
    new = ProblemRow("p", "b" * 64, "minimize", 0.5, 1.0)
    results.add(problems=[old])
    results.add(problems=[new])
    assert results.problems(["p", "q"]) == [old, new]
    again = dataclasses.replace(old, best=-1.0)
    results.add(problems=[again])
    assert results.problems(["p"]) == [new, again]


def test_rows_are_set_aside_while_a_shell_has_the_file(results):
    results.add([unit(seed=0)])
    reading = f"import duckdb; c = duckdb.connect({str(results.folder / FILE)!r}, read_only=True)"
    shell = subprocess.Popen(
        [sys.executable, "-c", f"{reading}; print('open', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert shell.stdout.readline() == "open\n"
    problem = ProblemRow("p", "a" * 64, "minimize", 0.0, 1.0)
    results.add([unit(seed=1)])
    results.add([unit(seed=2)], [problem])
    shell.communicate("\n")
    assert results.units([dataclasses.replace(KEY, seed=s) for s in (0, 1, 2)]) == [
        unit(seed=s) for s in (0, 1, 2)
    ]
    assert results.problems(["p"]) == [problem]
    assert not list(results.folder.glob("unsaved*"))


def test_the_tables_explain_themselves(results):
    results.add([unit()])
    with duckdb.connect(str(results.folder / FILE), read_only=True) as connection:
        comments = connection.execute("SELECT comment FROM duckdb_tables()").fetchall()
        row = connection.execute(
            "SELECT creator, number, value FROM units JOIN trials USING (unit) ORDER BY number"
        ).fetchall()
    assert len(comments) == 4
    assert all(comment for (comment,) in comments)
    assert row == [(KEY.creator, 0, 0.5), (KEY.creator, 1, None)]


def test_results_of_version_0_1_0_are_read(results):
    simulated = [dataclasses.replace(row, training_s=0.0, test=None) for row in (TRIAL, FAILED)]
    old, new = unit(simulated, creator="centre+gp"), unit(simulated, creator="center+gp")
    results.add([unit(simulated), old])
    with duckdb.connect(str(results.folder / FILE)) as connection:
        connection.execute("ALTER TABLE trials DROP COLUMN training_s")
        connection.execute("ALTER TABLE trials DROP COLUMN test")
        connection.execute("ALTER TABLE trials RENAME value TO score")
        connection.execute("UPDATE trials SET origin = 'model'")
        connection.execute("DELETE FROM migrations WHERE number > 1")
    assert results.units([KEY]) == [unit(simulated)]
    assert results.units([new.key]) == [new]
    assert results.units([old.key]) == []
    unsaved = {"key": dataclasses.asdict(KEY) | {"seed": 7}, "model_digest": "m" * 64}
    trials = [dataclasses.asdict(trial) | {"origin": "model"} for trial in simulated]
    for trial in trials:
        trial["score"] = trial.pop("value")
        del trial["training_s"], trial["test"]
    unsaved |= {"wall_s": 1.5, "trials": trials, "version": unit().version}
    text = json.dumps({"units": [unsaved], "problems": []})
    (results.folder / "unsaved-1.json").write_text(text)
    assert results.units([dataclasses.replace(KEY, seed=7)]) == [unit(simulated, seed=7)]
    assert results.units([KEY]) == [unit(simulated)]


def test_a_newer_file_is_left_alone(results):
    results.add([unit()])
    with duckdb.connect(str(results.folder / FILE)) as connection:
        connection.execute("INSERT INTO migrations VALUES (99, 'later', '9.0', now())")
    with pytest.raises(StoreVersionError, match=r"schema 99, written by LocalHPO 9\.0"):
        results.add([unit()])


def test_another_process_is_waited_for(results):
    results.add([unit()])
    program = (
        "import duckdb, sys, time\n"
        "connection = duckdb.connect(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "time.sleep(0.5)\n"
    )
    path = str(results.folder / FILE)
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        results.add([unit(seed=8)])
    assert len(results.keys([KEY.problem])) == 2


def test_the_folder_is_in_the_home(home):
    assert bench_folder() == home / "bench"
