"""Running the protocol: real processes, paired seeds, nothing run twice whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from localhpo.errors import TaskError
from localhpo.study import Study
from scripts.benchmarks import creators
from scripts.benchmarks.agenthpo import results, runner
from scripts.benchmarks.agenthpo.runner import ExperimentPlan
from scripts.benchmarks.pool import RunProgress
from scripts.benchmarks.results import Results

TASK = """
[task]
name = "cheap"
command = ["python", "train.py", "{seed}"]
metric = "val_score"
direction = "maximize"
[space]
x = { type = "float", low = 0.0, high = 1.0 }
n = { type = "int", low = 1, high = 9 }
"""

SCRIPT = """
import os, sys, time
from localhpo.reporter import report
values = dict(zip(sys.argv[2::2], sys.argv[3::2]))
score = float(values["--x"]) + int(values["--n"])
time.sleep(float(os.environ.get("SLEEP_S", 0)))
report(step=0, val_score=score, test_score=score - 1)
with open(os.environ["LOG"], "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
"""

TPE, RANDOM = creators.parse_name("tpe"), runner.RANDOM


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which each training that ended has a line."""
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.fixture
def cheap(tmp_path: Path) -> Path:
    folder = tmp_path / "cheap"
    folder.mkdir()
    (folder / "task.toml").write_text(TASK)
    (folder / "train.py").write_text(SCRIPT)
    return folder / "task.toml"


@pytest.fixture
def make(cheap: Path, home: Path) -> Callable[..., ExperimentPlan]:
    def make(**changes: object) -> ExperimentPlan:
        settings = {"creators": (TPE, RANDOM), "runs": 1, "trials": 2, "best_of": 2, **changes}
        return ExperimentPlan((str(cheap),), jobs=1, home=home / "bench/agenthpo", **settings)

    return make


def work(plan: ExperimentPlan) -> tuple[runner.Studies, list[RunProgress], list]:
    told: list[RunProgress] = []
    studies, failed = runner.run_experiment(plan, Results(plan.home.parent), told.append)
    return studies, told, failed


@pytest.mark.slow
def test_runs_are_studies_whose_trainings_are_kept(make, log):
    plan = make()
    studies, told, failed = work(plan)
    assert failed == []
    assert told[-1].total == 2
    assert len(log.read_text().splitlines()) == 4

    (planned,) = (study for study in runner.list_studies(plan) if study.choice == RANDOM)
    stored = Study.find(runner.study_name_of(plan, planned), home=plan.home).trials
    kept = studies["cheap", "random", 0].trials
    assert [(row.number, row.value, row.test) for row in kept] == [
        (trial.number, trial.value, trial.value - 1) for trial in stored
    ]
    assert [row.training_s for row in kept] == [trial.usage.wall_s for trial in stored]
    (task,) = results.collect(plan, studies).tasks
    assert task.lines[1].best[0, 1] == max(trial.value for trial in stored)
    assert task.lines[1].test[0] == task.lines[1].best[0, 1] - 1

    again, told, _ = work(plan)
    assert told == []
    assert again == studies
    (plan.home.parent / "results.duckdb").unlink()  # the studies themselves are still there
    again, told, _ = work(plan)
    assert told[-1].total == 2
    assert again == studies
    assert len(log.read_text().splitlines()) == 4
    # A third trial, or another Creator of the same proposals: what was trained is known.
    work(make(trials=3, best_of=3))
    lines = Counter(log.read_text().splitlines())
    assert max(lines.values()) == 1
    assert sum(lines.values()) == 6


def test_creators_have_the_same_seeds_and_runs_others(make):
    plan = make()
    keys = [study.key for study in runner.list_studies(make(runs=3))]
    seeds = {(key.seed, runner.task_of(plan, key).seed) for key in keys}
    assert len(seeds) == len({seed for _, seed in seeds}) == 3


def test_more_random_runs_than_are_compared_where_the_line_takes_them(make):
    def choices(plan):
        return Counter(study.choice for study in runner.list_studies(plan))

    assert choices(make(runs=2, trials=2, best_of=7)) == {TPE: 2, RANDOM: 4}
    assert choices(make(creators=(TPE,), best_of=2)) == {TPE: 1, RANDOM: 1}
    first = runner.list_studies(make(runs=2))[:2]
    assert {study.key.seed for study in first} == {0}  # whole comparisons first


def test_trials_are_told_where_the_data_are(make, cheap, log, tmp_path):
    told = "with open(os.environ['LOG'], 'a') as log: log.write(os.environ['LOCALHPO_DATA'])\n"
    cheap.with_name("train.py").write_text(SCRIPT + told)
    work(make(creators=(RANDOM,), trials=1, best_of=1, data=tmp_path / "data"))
    assert log.read_text().splitlines()[-1] == str(tmp_path / "data")


def test_a_study_without_a_good_trial_is_a_result(make, cheap, log, in_this_process):
    cheap.with_name("train.py").write_text("import sys\nsys.exit(f'bad value {sys.argv[3]}')\n")
    plan = make(creators=(RANDOM,))
    studies, _, failed = work(plan)
    assert failed == []
    assert [row.value for row in studies["cheap", "random", 0].trials] == [None, None]
    (task,) = results.collect(plan, studies).tasks
    assert task.human is None
    assert task.lines[0].proposals.failed == 1.0


def test_a_space_that_is_used_up_ends_a_run_early(make, cheap, log, in_this_process):
    narrow = TASK.replace('x = { type = "float", low = 0.0, high = 1.0 }', "")
    cheap.write_text(narrow.replace("high = 9", "high = 2"))
    cheap.with_name("train.py").write_text(SCRIPT.replace('float(values["--x"])', "0.0"))
    plan = make(creators=(RANDOM,), trials=4, best_of=4)
    studies, _, failed = work(plan)
    assert failed == []
    (task,) = results.collect(plan, studies).tasks
    assert task.lines[0].best[0, 1:].tolist() == [2.0, 2.0, 2.0]
    assert work(plan)[1] == []  # it is not tried again


def test_what_cannot_be_run_is_refused_before_anything_is_written(make, cheap, home):
    cheap.with_name("train.py").unlink()
    with pytest.raises(TaskError, match=r"train\.py"):
        work(make())
    assert not home.exists()


def start(task: Path, home: Path, log: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "scripts.benchmarks", "agenthpo", "--tasks", str(task),
        "--creators", "tpe,random", "--runs", "2", "--trials", "3", "--best-of", "6", "--json",
    ]  # fmt: skip
    environment = {**os.environ, "LOCALHPO_HOME": str(home), "LOG": str(log), "SLEEP_S": "0.2"}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
def test_a_killed_run_goes_on_and_repeats_no_training(cheap, home, log):
    run = start(cheap, home, log)
    deadline = time.monotonic() + 60
    while not log.exists() or len(log.read_text().splitlines()) < 4:
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)
    children = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []

    again = start(cheap, home, log)
    out, told = again.communicate(timeout=120)
    assert again.returncode == 0, told
    assert '"human"' in out
    lines = Counter(log.read_text().splitlines())
    assert len(lines) == 12
    # The one that had ended when its study was killed, before that was written down.
    assert sum(lines.values()) <= 13
