"""`localhpo import` and `localhpo similar` as a user types them."""

from __future__ import annotations

import json

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from localhpo.cli import main
from localhpo.store import Store
from localhpo.study import Study
from localhpo.trial import EXTERNAL

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


def test_a_dry_run_only_shows_what_would_be_imported(localhpo, home):
    told = localhpo("import", *TABLE, "--dry-run")
    assert "CSV: minimize loss" in told
    assert "lr: a number from 1e-3 to 1e-1, log" in told
    assert "skipped: line 7: its state 'odd' is not known" in told
    assert "past/imported: 5 trials would be imported (3 complete, 1 failed, 1 pruned)" in told
    assert not home.exists()


def test_an_import_becomes_a_study_and_a_second_one_adds_nothing(localhpo, home):
    assert "5 trials imported" in localhpo("import", *TABLE)
    study = Study.find("past/imported", home=home)
    assert [str(t.state) for t in study.trials] == [
        "complete", "complete", "failed", "pruned", "complete",
    ]  # fmt: skip
    assert study.best_trial.value == 0.25
    assert {t.proposal.origin for t in study.trials} == {EXTERNAL}
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
    assert (str(pruned.state), pruned.value) == ("pruned", None)
    assert "pruned" in localhpo("trials", "past/imported")


def test_rows_added_to_the_file_are_imported_later(localhpo, project, home):
    localhpo("import", *TABLE)
    with (project / "past.csv").open("a") as file:
        file.write("0.07,7,0.3,finished\n9.0,7,0.3,finished\n")
    told = localhpo("import", *TABLE)
    assert "skipped: line 9: lr must be a number from" in told
    assert "past/imported: 1 trial imported (1 complete), 5 in the study already, 2 skipped" in told


def test_a_task_file_gives_space_and_metric(localhpo, home):
    told = localhpo("import", "past.csv", "--task", "task.toml")
    assert "skipped: line 4: lr must be a number from 1e-2 to 1e0, got 0.001" in told
    assert "tiny/imported: 4 trials imported" in told
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
    assert "skipped: line 9: trees is fixed at 300, got 50" in told
    assert "past/imported: 1 trial imported (1 complete), 5 in the study already, 2 skipped" in told


def test_fixed_values_of_a_task_file_apply(localhpo, project, home):
    (project / "task.toml").write_text(f"{TASK}\n[fixed]\ntrees = 300\n")
    (project / "past.csv").write_text("lr,depth,trees,loss\n0.1,3,300,0.5\n0.1,4,50,0.5\n")
    told = localhpo("import", "past.csv", "--task", "task.toml")
    assert "skipped: line 3: trees is fixed at 300, got 50" in told
    assert "tiny/imported: 1 trial imported" in told


TRADE_OFF = "lr,depth,f1,latency_ms\n0.1,3,0.9,150\n0.2,5,0.8,100\n0.3,4,0.99,250\n"


def test_several_objectives(localhpo, project, home):
    (project / "past.csv").write_text(TRADE_OFF)
    metrics = ("--metric", "f1:maximize", "--metric", "latency_ms:minimize")
    shown = localhpo("import", "past.csv", *metrics)
    assert "CSV: maximize f1, minimize latency_ms" in shown
    study = Study.find("past/imported", home=home)
    assert [trial.values for trial in study.trials] == [(0.9, 150.0), (0.8, 100.0), (0.99, 250.0)]
    assert len(study.best_trials) == 3


def test_constraints_of_a_task_file_apply_to_imported_trials(localhpo, project, home):
    (project / "past.csv").write_text(TRADE_OFF)
    constraints = (
        '[[constraint]]\nname = "latency_ms"\nmax = 200.0\n'
        '[[constraint]]\nname = "peak_memory_mb"\nmax = 1e4\n'
    )
    (project / "task.toml").write_text(TASK.replace('"loss"', '"f1"') + constraints)
    record = json.loads(localhpo("import", "past.csv", "--task", "task.toml", "--json"))
    assert record["imported"] == record["taken"] == 3
    assert [one["name"] for one in record["constraints"]] == ["latency_ms", "peak_memory_mb"]
    trials = json.loads(localhpo("trials", "tiny/imported", "--json"))
    assert [trial["violations"][0] for trial in trials] == [-50.0, -100.0, 50.0]
    assert {trial["violations"][1] for trial in trials} == {None}  # it was not measured there


def test_directions_are_given_in_one_form(localhpo):
    options = ("--metric", "f1:maximize", "--direction", "minimize")
    assert "must be given in one form" in localhpo("import", "past.csv", *options, code=2)


def test_a_direction_is_never_guessed(localhpo):
    told = localhpo("import", "past.csv", "--metric", "loss", code=2)
    assert "does not say whether loss is minimized or maximized" in told
    assert "--direction" in told


def test_a_value_that_is_no_number_counts_as_failed(localhpo, project, home):
    (project / "past.csv").write_text("lr,loss\n0.1,0.5\n0.01,nan\n0.2,0.3\n")
    assert "3 trials imported (2 complete, 1 failed)" in localhpo("import", *TABLE)
    states = [trial.state.value for trial in Study.find("past/imported", home=home).trials]
    assert states == ["complete", "failed", "complete"]


def test_two_objectives_of_one_name_are_refused(localhpo):
    told = localhpo(
        "import", "past.csv", "--metric", "loss:minimize", "--metric", "loss:maximize", code=2
    )
    assert "each objective must have a name of its own; got loss twice" in told


def test_similar_lists_usable_studies_and_why_others_are_not(localhpo):
    assert "no studies" in localhpo("similar")
    localhpo("import", *TABLE)
    (row,) = json.loads(localhpo("similar", "--json"))
    assert row == {"study": "past/imported", "trials": 5, "with_values": 3, "scored": 3,
                   "refusal": None}  # fmt: skip
    assert "no: it is private" in localhpo("similar", "--exclude", "past/imported")
    assert "yes" in localhpo("similar", "--include", "past/imported")


def test_similar_with_a_task_shows_how_similar_each_study_is(localhpo, project):
    localhpo("import", *TABLE, "--name", "like")
    wide = ("strange.csv", "--metric", "loss", "--direction", "minimize")
    (project / "strange.csv").write_text("alpha,loss\n1,1\n2,2\n3,3\n")
    localhpo("import", *wide)
    near, far = json.loads(localhpo("similar", "task.toml", "--json"))
    assert near["study"] == "like/imported"
    assert near["refusal"] is None
    assert near["similarity"] > 0.5
    assert far["refusal"] == "it is not similar enough"
    assert "hyperparameters in common" in localhpo("similar", "task.toml")


def test_a_run_retrieves_imported_trials(localhpo, project, home):
    (project / "train.py").write_text(
        "import argparse\nfrom localhpo.reporter import report\n"
        "p = argparse.ArgumentParser()\np.add_argument('--lr', type=float)\n"
        "p.add_argument('--depth', type=int)\na = p.parse_args()\nreport(loss=a.lr)\n"
    )
    localhpo("import", *TABLE)
    localhpo("run", "task.toml", "--trials", "1", "--transfer", "retrieve", "--quiet")
    (trial,) = Study.find("tiny", home=home).trials
    assert str(trial.proposal.origin) == "transfer"
    assert "of past/imported" in trial.proposal.rationale


@pytest.mark.parametrize("option", ["--transfer", "--experience"])
def test_an_unknown_use_of_past_studies_is_refused(localhpo, option):
    assert "transfer: must be one of" in localhpo("run", "task.toml", option, "some", code=2)
