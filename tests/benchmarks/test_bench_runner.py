"""Running a suite: in processes, resumed after any kind of end, nothing stale taken for new."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from scripts.benchmarks import comparison, creators, digests, runner
from scripts.benchmarks.pool import RunProgress
from scripts.benchmarks.problems import suites
from scripts.benchmarks.problems.registry import DataFolders
from scripts.benchmarks.results import Results
from scripts.benchmarks.runner import BenchPlan

PROBLEM = "function/branin/1"


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "bench")


@pytest.fixture
def plan(folders: DataFolders) -> Callable[..., BenchPlan]:
    def make(
        names: str = "random,center+random", target: str = PROBLEM, **changes: object
    ) -> BenchPlan:
        settings = {"seeds": 2, "trials": 3, "jobs": 1, **changes}
        chosen = tuple(map(creators.parse_name, names.split(",")))
        return BenchPlan(suites.find_suite(target), chosen, folders=folders, **settings)

    return make


def work(
    plan: BenchPlan, results: Results
) -> tuple[comparison.ResultSelection, list[RunProgress], Sequence]:
    told: list[RunProgress] = []
    selection, failed = runner.run_suite(plan, results, told.append)
    return selection, told, failed


def test_only_what_is_missing_is_run(plan, results, in_this_process):
    selection, told, failed = work(plan(), results)
    assert not failed
    assert told[-1].done == told[-1].total == 1 + 2 * 2  # best and median, and the studies
    assert len(selection.keys) == 4

    selection, told, _ = work(plan(), results)
    assert told == []
    assert len(selection.keys) == 4

    selection, told, _ = work(plan("random,center+random,cmaes", seeds=3), results)
    assert told[-1].total == 9 - 4
    assert len(selection.keys) == 9

    _, told, _ = work(plan(trials=4), results)
    assert told[-1].total == 4  # another budget is another study


def test_the_same_whatever_the_number_of_jobs(plan, results, tmp_path):
    one, _, _ = work(plan(), results)
    two, _, _ = work(plan(jobs=2), other := Results(tmp_path / "other"))
    first, second = comparison.compare(one, results), comparison.compare(two, other)
    assert first.regrets.tolist() == second.regrets.tolist()
    assert first.columns == second.columns


def test_stale_results_are_run_again_and_not_mixed(plan, results, in_this_process, monkeypatch):
    work(plan(), results)
    real = digests.compute_digest
    monkeypatch.setattr(
        digests, "compute_digest", lambda c: "new" if c.name == "random" else real(c)
    )
    selection, told, _ = work(plan(), results)
    assert told[-1].total == 2
    found = {key.creator_digest for (name, _, _), key in selection.keys.items() if name == "random"}
    assert found == {"new"}
    latest = comparison.select_latest(
        suites.find_suite(PROBLEM), results, creators=None, trials=None
    )
    assert {k.creator_digest for k in latest.keys.values()} == {"new", real(plan().creators[1])}


TASK = """
[task]
name = "wide"
metric = "y"
direction = "minimize"
[space]
n = { type = "int", low = 0, high = 2000000 }
"""


def test_a_study_that_fails_costs_no_other(plan, results, in_this_process, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "task.toml").write_text(TASK)
    (tmp_path / "t.csv").write_text(
        "n,y\n" + "".join(f"{n},{n}\n" for n in range(0, 2000000, 9999))
    )
    selection, _, failed = work(plan("random,gp", str(tmp_path / "t.csv"), seeds=1), results)
    assert [(f.what.split()[0], type(f.error).__name__) for f in failed] == [("gp", "SpaceError")]
    assert len(selection.keys) == 1


def start(home: Path, *options: str) -> subprocess.Popen[str]:
    # Where the tests run in a shell's background, an interrupt is ignored, by its children too.
    command = [
        "env", "--default-signal=INT", sys.executable, "-m", "scripts.benchmarks", "run", PROBLEM,
        "--creators", "tpe", "--trials", "30", "--seeds", "16", "--jobs", "2", *options,
    ]  # fmt: skip
    return subprocess.Popen(
        command, env={**os.environ, "LOCALHPO_HOME": str(home)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def wait_until(there: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_a_killed_run_leaves_nothing_running_and_is_resumed(home):
    results = Results(home / "bench")
    run = start(home)
    wait_until(lambda: len(results.keys([PROBLEM])) > 0)
    children = children_of(run)
    assert len(children) >= 2
    run.kill()
    run.communicate()
    wait_until(lambda: not any(child.is_running() for child in children), 20)
    before = results.units(results.keys([PROBLEM]))
    assert 0 < len(before) < 16

    again = start(home, "--json")
    _, told = again.communicate(timeout=120)
    assert again.returncode == 0, told
    missing = 16 - len(before)
    ended = {f"{n} of {n} studies after" for n in (missing, missing + 1)}
    assert any(line in told for line in ended)  # one more where the reference was not stored yet
    after = results.units(results.keys([PROBLEM]))
    assert len(after) == 16
    assert after[: len(before)] == before


def test_ctrl_c_ends_a_run_in_order(home):
    results = Results(home / "bench")
    run = start(home, "--seeds", "500")  # more than it gets done
    wait_until(lambda: len(results.keys([PROBLEM])) > 0)
    children = children_of(run)
    os.killpg(run.pid, signal.SIGINT)  # a terminal sends it to the whole group
    out, told = run.communicate(timeout=30)
    assert run.returncode == 130, told
    assert out == ""
    assert "the run was interrupted" in told
    assert "run the same command again" in told
    assert "Traceback" not in told
    wait_until(lambda: not any(child.is_running() for child in children), 20)
    assert len(results.keys([PROBLEM])) > 0
