"""The commands on a real study: real processes, a real store, a real engine."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from localhpo.cli import main
from localhpo.cli.task_views import task_record, task_view
from localhpo.study import Study
from localhpo.task import load_task
from localhpo.trial import USER, Proposal

TRAIN = """
import argparse, sys, time
from localhpo.reporter import report
p = argparse.ArgumentParser()
p.add_argument("--lr", type=float, default=0.1)
p.add_argument("--depth", type=int, default=4)
a = p.parse_args()
if a.depth == 7:
    sys.exit("depth 7 | is too deep")
report(step=1, val_loss=(a.lr - 0.03) ** 2 + a.depth)
time.sleep(SLEEP)
"""

DEPTH = 'depth = { type = "int", low = 1, high = 9 }'
TASK = f"""
[task]
name = "tiny"
command = ["python", "train.py"]
metric = "val_loss"
direction = "minimize"

[space]
lr = {{ type = "float", low = 1e-3, high = 1.0, log = true, default = 0.1 }}
{DEPTH}

[budget]
trials = 3

[creator]
name = "random"
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(TRAIN.replace("SLEEP", "0"))
    (tmp_path / "task.toml").write_text(TASK)
    return tmp_path


@pytest.fixture
def localhpo(capsys):
    """Return a function that runs a command, checks its exit code, and returns what it printed."""

    def call(*arguments, code=0):
        capsys.readouterr()
        found = main(list(arguments))
        told = capsys.readouterr()
        assert found == code, told.err
        return told.out if code == 0 else told.err

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of three trials, the last of which failed: its folder, and what `run` printed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "train.py").write_text(TRAIN.replace("SLEEP", "0"))
    (folder / "task.toml").write_text(TASK)
    study = Study.open(load_task(folder / "task.toml"), home=folder / "home")
    for config in ({"lr": 0.1, "depth": 2}, {"lr": 0.03, "depth": 1}, {"lr": 0.1, "depth": 7}):
        study.enqueue(config)
    done = subprocess.run(
        [sys.executable, "-m", "localhpo", "run", "task.toml", "--quiet"],
        capture_output=True, text=True, check=True, cwd=folder,
        env={**os.environ, "LOCALHPO_HOME": str(folder / "home")},
    )  # fmt: skip
    return folder, done.stdout


@pytest.fixture
def studied(finished, monkeypatch):
    """The finished study, to read from: its folder."""
    folder, _ = finished
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LOCALHPO_HOME", str(folder / "home"))
    return folder


def test_run_ends_with_a_summary(finished):
    folder, told = finished
    assert "tiny/main   3 of 3 trials: 2 complete, 1 failed" in told
    assert "best       val_loss 1   trial 1, from the user (enqueued)" in told
    assert "depth  1" in told
    assert re.search(r"failed +exit code \(1 trial: 2\): .*depth 7 \| is too deep", told)
    report = folder / "home/studies/tiny/main/report.md"
    assert str(report) in told
    assert report.read_text().startswith("# tiny/main\n")


def test_run_prints_lines_without_a_terminal(localhpo, capsys, project):
    (project / "task.toml").write_text(TASK.replace("high = 9", "high = 6"))  # no trial fails
    assert main(["run", "task.toml", "--json"]) == 0
    told = capsys.readouterr()
    record = json.loads(told.out)
    assert record["budget"] == {"trials": 3, "used": 3}
    assert [t["origin"] for t in record["trials"]] == ["random"] * 3
    assert record["report"].endswith("report.md")
    assert len(re.findall(r"^\d\d:\d\d:\d\d trial \d finished: val_loss", told.err, re.M)) == 3


def test_options_replace_settings_of_the_file(localhpo):
    record = json.loads(
        localhpo(
            "run", "task.toml", "--study", "other", "--trials", "4", "--creator", "tpe",
            "--seed", "5", "--parallel", "2", "--quiet", "--json",
        )
    )  # fmt: skip
    assert record["study"] == "tiny/other"
    assert record["budget"] == {"trials": 4, "used": 4}
    assert {t["origin"] for t in record["trials"]} == {"tpe"}


def test_running_again_continues(localhpo):
    localhpo("run", "task.toml", "--quiet")
    again = json.loads(localhpo("run", "task.toml", "--trials", "5", "--quiet", "--json"))
    assert [t["number"] for t in again["trials"]] == [0, 1, 2, 3, 4]


def test_a_finished_study_shows_how_to_continue_it(localhpo, capsys):
    localhpo("run", "task.toml", "--quiet", "--trials", "1")
    assert main(["run", "task.toml", "--quiet", "--trials", "1"]) == 0
    told = capsys.readouterr()
    assert "1 of 1 trials" in told.out
    assert "--trials N raises it" in told.err


def test_a_study_with_other_settings_is_refused(localhpo):
    localhpo("run", "task.toml", "--quiet", "--trials", "1")
    told = localhpo("run", "task.toml", "--quiet", "--seed", "9", code=2)
    assert "seed was 0, is 9" in told
    assert "--study NEW" in told


def test_the_command_of_the_best_trial_runs(studied, localhpo):
    rerun = json.loads(localhpo("report", "--json"))["rerun"]
    done = subprocess.run(["bash", "-c", rerun], capture_output=True, text=True, check=True)
    assert "val_loss=1" in done.stdout


def test_a_study_without_a_complete_trial_is_3_and_still_reported(localhpo, project, capsys):
    (project / "train.py").write_text("import sys; sys.exit('never works')")
    assert main(["run", "task.toml", "--quiet"]) == 3
    told = capsys.readouterr()
    assert "no trial is complete" in told.out
    assert "never works" in told.out
    assert told.err.startswith("error: ")
    assert (project / "home/studies/tiny/main/report.md").exists()


def test_trials_lists_them(studied, localhpo):
    lines = localhpo("trials", "task.toml").splitlines()
    assert lines[0].split() == ["trial", "state", "val_loss", "time", "origin", "configuration"]
    assert "* 1 " in lines[3]
    assert "lr=3e-2 depth=1" in lines[3]
    assert localhpo("trials") == localhpo("trials", "tiny") == localhpo("trials", "tiny/main")


@pytest.mark.parametrize("order", ["value", "score"])  # `score` is the name in version 0.1.0
def test_trials_sorted_by_value(studied, localhpo, order):
    rows = localhpo("trials", "--sort", order).splitlines()[2:]
    assert [line.split()[0] for line in rows] == ["1", "0", "2"]


def test_failed_trials(studied, localhpo):
    failed = localhpo("trials", "--failed").splitlines()[2:]
    assert len(failed) == 1
    assert failed[0].endswith("depth 7 | is too deep")


def test_refused_trials_are_listed_as_failed_with_the_reason(project, localhpo):
    study = Study.open(load_task(project / "task.toml"))
    with study._writing() as session:
        trial = session.trial_table.queue(Proposal({"lr": 0.1, "depth": 2}, origin=USER))
        session.trial_table.mark_infeasible(trial, "it needs 500 MB, and 300 MB is all there is")
    listed = localhpo("trials", "--failed")
    assert re.search(r"0 +infeasible +it needs 500 MB, and 300 MB is all there is", listed)
    assert "300 MB is all there is" in localhpo("trials", "--failed", "--json")
    assert "300 MB is all there is" in localhpo("report", "--json")


def test_trials_as_json_are_full_records(studied, localhpo):
    first = json.loads(localhpo("trials", "--json"))[0]
    assert first["measurements"][0]["name"] == "val_loss"
    assert first["proposal"]["origin"] == "user"


def test_several_studies_are_listed(localhpo):
    localhpo("run", "task.toml", "--quiet", "--trials", "1")
    localhpo("run", "task.toml", "--quiet", "--trials", "2", "--study", "other")
    assert [row["study"] for row in json.loads(localhpo("trials", "--json"))] == [
        "tiny/main",
        "tiny/other",
    ]
    assert "tiny/other   2 of 2" in localhpo("trials")
    assert "which study?" in localhpo("report", code=2)
    assert len(json.loads(localhpo("trials", "task.toml", "--study", "other", "--json"))) == 2


def test_a_damaged_study_does_not_hide_the_others(localhpo, project, capsys):
    localhpo("run", "task.toml", "--quiet", "--trials", "1")
    localhpo("run", "task.toml", "--quiet", "--trials", "1", "--study", "other")
    [journal] = project.rglob("other/journal.jsonl")
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 1
    journal.write_bytes(content)
    whole, damaged = json.loads(localhpo("trials", "--json"))
    assert damaged["study"] == "tiny/other"
    assert f"{journal} is damaged at line" in damaged["error"]
    assert damaged["counted"] is None
    assert damaged.keys() == whole.keys()
    assert main(["trials"]) == 0
    told = capsys.readouterr()
    assert "tiny/main    1 of 1" in told.out
    assert "tiny/other   cannot be read" in told.out
    assert f"note: study tiny/other cannot be read: {journal} is damaged at line" in told.err


def test_no_studies(localhpo):
    assert "no studies in" in localhpo("trials")
    assert json.loads(localhpo("trials", "--json")) == []
    assert "no study tiny/main" in localhpo("trials", "tiny", code=2)
    assert "the store has none" in localhpo("report", code=2)


def test_report_is_markdown_on_a_pipe(studied, localhpo, tmp_path):
    text = localhpo("report")
    assert text == (studied / "home/studies/tiny/main/report.md").read_text()
    mine = tmp_path / "mine.md"
    assert localhpo("report", "tiny", "--output", str(mine)) == f"wrote {mine}\n"
    assert mine.read_text() == text


def test_report_to_a_file_that_cannot_be_written(studied, localhpo):
    told = localhpo("report", "--output", "nowhere/mine.md", code=1)
    assert "nowhere/mine.md cannot be written" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "depht=3"], "depht"),
        (["--set", "depth=30"], "depth must be"),
        (["--config", "list.json"], "must hold one JSON object"),
        (["--config", "missing.json"], "cannot be read as JSON"),
    ],
)
def test_enqueue_refuses_what_is_not_in_the_space(localhpo, project, arguments, message):
    (project / "list.json").write_text("[1]")
    assert message in localhpo("enqueue", "task.toml", *arguments, code=2)
    assert json.loads(localhpo("trials", "--json")) == []


def test_enqueue_takes_a_file_and_a_study(localhpo, project):
    localhpo("run", "task.toml", "--quiet", "--trials", "1")
    (project / "config.json").write_text('{"lr": 0.5, "depth": 3}')
    told = json.loads(localhpo("enqueue", "tiny/main", "--config", "config.json", "--json"))
    assert told == {"study": "tiny/main", "config": {"lr": 0.5, "depth": 3}}
    record = json.loads(localhpo("run", "task.toml", "--quiet", "--trials", "2", "--json"))
    assert record["trials"][1]["config"] == {"lr": 0.5, "depth": 3}
    assert record["trials"][1]["origin"] == "user"


def test_an_unknown_order_of_trials_is_told_the_orders_of_today(studied, localhpo):
    said = localhpo("trials", "--sort", "nosuch", code=2)
    assert "'number', 'value'" in said
    assert "score" not in said


def test_enqueue_keeps_what_the_study_was_started_with(localhpo, project):
    localhpo("run", "task.toml", "--quiet", "--trials", "1", "--creator", "tpe", "--seed", "3")
    localhpo("enqueue", "task.toml", "--set", "depth=5")
    again = ("--quiet", "--trials", "2", "--creator", "tpe", "--seed", "3", "--json")
    record = json.loads(localhpo("run", "task.toml", *again))
    assert [trial["origin"] for trial in record["trials"]][1:] == ["user"]


def test_enqueue_leaves_the_creator_of_a_new_study_open(localhpo, project):
    localhpo("enqueue", "task.toml", "--set", "depth=5")
    localhpo("enqueue", "task.toml", "--set", "depth=6")
    arguments = ("--quiet", "--trials", "3", "--creator", "random", "--seed", "3", "--json")
    record = json.loads(localhpo("run", "task.toml", *arguments))
    assert [trial["config"]["depth"] for trial in record["trials"]][:2] == [5, 6]
    assert [trial["origin"] for trial in record["trials"]] == ["user", "user", "random"]


def test_a_task_that_does_not_exist(localhpo):
    assert "no such task file" in localhpo("run", "other.toml", code=2)
    assert localhpo("run", "no-such-task", code=2).startswith("error: ")


@pytest.fixture
def running(project):
    """A study that runs in another process, and will for a minute."""
    (project / "train.py").write_text(TRAIN.replace("SLEEP", "60"))
    process = subprocess.Popen(
        [sys.executable, "-m", "localhpo", "run", "task.toml"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if "trial 0 started" in line:
            break
    yield process
    process.kill()
    process.communicate()


def test_a_running_study_can_be_listed_and_extended(running, localhpo, capsys):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if (trials := json.loads(localhpo("trials", "--json")))[0]["measurements"]:
            break
        time.sleep(0.1)
    assert trials[0]["state"] == "running"
    localhpo("report")
    localhpo("enqueue", "task.toml", "--set", "depth=5")
    assert main(["run", "task.toml", "--quiet"]) == 1
    told = capsys.readouterr()
    assert "is being run by process" in told.err
    assert told.out == ""


def test_a_killed_study_recovers_its_running_trial(running, project, capsys):
    running.kill()
    running.communicate()
    (project / "train.py").write_text(TRAIN.replace("SLEEP", "0"))
    assert main(["run", "task.toml"]) == 0
    assert (
        "trial 0 interrupted: it was running when an earlier run ended" in capsys.readouterr().err
    )


@pytest.mark.parametrize("what", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_a_study_that_can_be_continued(running, localhpo, project, what):
    running.send_signal(what)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "1 interrupted" in out
    assert err.rstrip().endswith("hint: run the same command again to continue")
    (project / "train.py").write_text(TRAIN.replace("SLEEP", "0"))
    record = json.loads(localhpo("run", "task.toml", "--quiet", "--json"))
    assert [t["number"] for t in record["trials"]] == [0, 1, 2]


def test_fixed_values_are_shown_with_studies_and_tasks(localhpo, project):
    (project / "task.toml").write_text(f"{TASK}\n[fixed]\ndepth = 4\n".replace(DEPTH, ""))
    shown = localhpo("run", "task.toml", "--quiet", "--trials", "1")
    assert re.search(r"fixed +depth=4", shown)
    assert "Fixed in all trials: depth=4" in localhpo("report", "task.toml")
    assert json.loads(localhpo("report", "task.toml", "--json"))["fixed"] == {"depth": 4}
    task = load_task(project / "task.toml")
    console = Console(width=100)
    with console.capture() as screen:
        console.print(task_view(task))
    assert re.search(r"depth +fixed at 4", screen.get())
    assert task_record(task)["fixed"] == {"depth": 4}
