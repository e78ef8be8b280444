"""`localhpo import` and `localhpo experience` as a user types them."""

from __future__ import annotations

import json

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from localhpo.cli import main
from localhpo.store import Store
from localhpo.study import Study

CSV = "lr,depth,loss,state\n0.1,3,0.5,finished\n0.01,5,0.25,finished\n0.001,8,,failed\n" + (
    "0.02,6,0.2,pruned\n0.05,4,0.4,finished\n0.3,4,0.4,odd\n"
)
TASK = """
[task]
name = "tiny"
command = ["python", "train.py"]
metric = "loss"
direction = "minimize"

[space]
lr = { type = "float", low = 1e-2, high = 1.0, log = true }
depth = { type = "int", low = 1, high = 9 }
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "past.csv").write_text(CSV)
    (tmp_path / "task.toml").write_text(TASK)
    return tmp_path


@pytest.fixture
def localhpo(capsys):
    """Return a function that runs a command, checks its exit code, and returns what it said."""

    def run(*words, code=0):
        assert main(words) == code
        told = capsys.readouterr()
        return told.err if code else told.out

    return run


TABLE = ("past.csv", "--metric", "loss", "--direction", "minimize")


def test_a_dry_run_says_what_it_would_do_and_does_nothing(localhpo, home):
    told = localhpo("import", *TABLE, "--dry-run")
    assert "CSV: minimize loss" in told
    assert "lr: a number from 1e-3 to 1e-1, log" in told
    assert "left: line 7: its state 'odd' is not known" in told
    assert "past/imported: 5 would be taken (3 complete, 1 failed, 1 pruned)" in told
    assert not home.exists()


def test_an_import_becomes_a_study_and_a_second_one_doubles_nothing(localhpo, home):
    assert "5 taken" in localhpo("import", *TABLE)
    study = Study.find("past/imported", home=home)
    assert [str(t.state) for t in study.trials] == [
        "complete", "complete", "failed", "pruned", "complete",
    ]  # fmt: skip
    assert study.best.score == 0.25
    assert {t.proposal.origin for t in study.trials} == {"added"}
    assert study.trials[0].proposal.note == "line 2 of past.csv"
    assert [event.kind for event in study.events] == ["imported"]
    again = json.loads(localhpo("import", *TABLE, "--json"))
    assert (again["taken"], again["known"], len(again["left"])) == (0, 5, 1)
    assert len(Study.find("past/imported", home=home).trials) == 5
    assert Store(home).verify() == []


def test_optuna_trials_keep_their_states_even_without_a_report(localhpo, project, home):
    def objective(trial):
        trial.suggest_float("x", 0.0, 1.0)
        raise optuna.TrialPruned if trial.number else ValueError

    storage = JournalStorage(JournalFileBackend(str(project / "past.journal")))
    past = optuna.create_study(study_name="past", storage=storage)
    past.optimize(objective, n_trials=2, catch=(ValueError,))
    localhpo("import", "past.journal")
    failed, pruned = Study.find("past/imported", home=home).trials
    assert (str(failed.state), failed.failure.message) == ("failed", "it failed where it was run")
    assert (str(pruned.state), pruned.score) == ("pruned", None)
    assert "pruned" in localhpo("trials", "past/imported")


def test_what_was_added_to_the_file_is_taken_later(localhpo, project, home):
    localhpo("import", *TABLE)
    with (project / "past.csv").open("a") as file:
        file.write("0.07,7,0.3,finished\n9.0,7,0.3,finished\n")
    told = localhpo("import", *TABLE)
    assert "left: line 9: lr must be a number from" in told
    assert "past/imported: 1 taken (1 complete), 5 known already, 2 left" in told


def test_a_task_file_gives_space_and_metric(localhpo, home):
    told = localhpo("import", "past.csv", "--task", "task.toml")
    assert "left: line 4: lr must be a number from 1e-2 to 1e0, got 0.001" in told
    assert "tiny/imported: 4 taken" in told
    study = Study.find("tiny/imported", home=home)
    assert study.task.space["depth"].high == 9


def test_a_column_with_one_value_is_fixed_in_the_study(localhpo, project, home):
    lines = CSV.splitlines()
    constant = [lines[0] + ",trees", *(f"{line},300" for line in lines[1:])]
    (project / "past.csv").write_text("\n".join(constant) + "\n")
    assert "  trees: fixed at 300" in localhpo("import", *TABLE, "--dry-run")
    assert json.loads(localhpo("import", *TABLE, "--json"))["fixed"] == {"trees": 300}
    assert Study.find("past/imported", home=home).task.fixed == {"trees": 300}
    with (project / "past.csv").open("a") as file:
        file.write("0.07,7,0.3,finished,300\n0.08,7,0.3,finished,50\n")
    told = localhpo("import", *TABLE)
    assert "left: line 9: trees is fixed at 300, got 50" in told
    assert "past/imported: 1 taken (1 complete), 5 known already, 2 left" in told


def test_a_task_file_says_what_is_fixed(localhpo, project, home):
    (project / "task.toml").write_text(f"{TASK}\n[fixed]\ntrees = 300\n")
    (project / "past.csv").write_text("lr,depth,trees,loss\n0.1,3,300,0.5\n0.1,4,50,0.5\n")
    told = localhpo("import", "past.csv", "--task", "task.toml")
    assert "left: line 3: trees is fixed at 300, got 50" in told
    assert "tiny/imported: 1 taken" in told


def test_nobody_guesses_a_direction(localhpo):
    told = localhpo("import", "past.csv", "--metric", "loss", code=2)
    assert "does not say whether loss is made small or large" in told
    assert "--direction" in told


def test_experience_lists_what_counts_and_why_others_do_not(localhpo):
    assert "no studies" in localhpo("experience")
    localhpo("import", *TABLE)
    (row,) = json.loads(localhpo("experience", "--json"))
    assert row == {"study": "past/imported", "trials": 5, "scored": 3, "refusal": None}
    assert "no: it is private" in localhpo("experience", "--exclude", "past/imported")
    assert "yes" in localhpo("experience", "--include", "past/imported")


def test_experience_of_a_task_says_how_similar_each_is(localhpo, project):
    localhpo("import", *TABLE, "--name", "like")
    wide = ("strange.csv", "--metric", "loss", "--direction", "minimize")
    (project / "strange.csv").write_text("alpha,loss\n1,1\n2,2\n3,3\n")
    localhpo("import", *wide)
    near, far = json.loads(localhpo("experience", "task.toml", "--json"))
    assert near["study"] == "like/imported"
    assert near["refusal"] is None
    assert near["similarity"] > 0.5
    assert far["refusal"] == "it is not similar enough"
    assert "hyperparameters in common" in localhpo("experience", "task.toml")


def test_an_imported_history_is_remembered_by_a_run(localhpo, project, home):
    (project / "train.py").write_text(
        "import argparse\nfrom localhpo.reporter import report\n"
        "p = argparse.ArgumentParser()\np.add_argument('--lr', type=float)\n"
        "p.add_argument('--depth', type=int)\na = p.parse_args()\nreport(loss=a.lr)\n"
    )
    localhpo("import", *TABLE)
    localhpo("run", "task.toml", "--trials", "1", "--experience", "retrieve", "--quiet")
    (trial,) = Study.find("tiny", home=home).trials
    assert trial.proposal.origin == "experience"
    assert "of past/imported" in trial.proposal.rationale


def test_an_unknown_use_of_experience_is_refused(localhpo):
    assert "must be one of" in localhpo("run", "task.toml", "--experience", "some", code=2)
