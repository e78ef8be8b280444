"""Homes that version 0.1.0 wrote open, report the same, and go on (`tests/written_by_0.1.0`)."""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner

from localhpo.cli import cli, main
from localhpo.creator import open_creator
from localhpo.objective import Objective
from localhpo.store import Store
from localhpo.study import Study
from localhpo.task import Task, load_task, with_overrides
from localhpo.trial import State, Trial, count_budgeted

OLD = Path(__file__).parent / "written_by_0.1.0"
ORIGINS = json.loads((OLD.parent / "golden" / "origins.json").read_text("utf-8"))["renamed"]
EXPECTED: dict[str, Any] = {
    key: facts
    for name in ("slope", "valley")
    for key, facts in json.loads((OLD / name / "expected.json").read_text("utf-8"))[
        "studies"
    ].items()
}

Copy = Callable[[str], Path]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """Return a maker of a copy of an old folder, whose home becomes that of the commands."""

    def make(key: str) -> Path:
        folder = tmp_path / key.partition("/")[0]
        shutil.copytree(OLD / folder.name, folder)
        packed = folder / "home" / "store.duckdb.gz"
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
        monkeypatch.setenv("LOCALHPO_HOME", str(folder / "home"))
        return folder

    return make


def invoke(*arguments: str) -> Any:
    """Return what a command prints as JSON."""
    ended = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


def facts(trial: Trial) -> dict[str, Any]:
    """Return a trial in the words of `expected.json`."""
    failure, proposal = trial.failure, trial.proposal
    return {
        "number": trial.number,
        "state": trial.state.value,
        "score": trial.value,
        "origin": str(proposal.origin),
        "config": dict(trial.config),
        "cause": failure and failure.cause.value,
        "message": failure and failure.message,
        "stderr_tail": failure.stderr_tail if failure else "",
        "seed": trial.seed,
        "restarts": trial.restarts,
        "user_attrs": dict(trial.user_attrs),
        "evidence": list(proposal.evidence),
        "prompt_sha256": proposal.prompt_sha256,
        "engine_state": dict(proposal.engine_state),
        "wall_s": trial.usage.wall_s,
        "peak_memory_mb": trial.usage.peak_memory_mb,
        "queued_at": trial.queued_at,
        "started_at": trial.started_at,
        "finished_at": trial.finished_at,
        "measurements": [[m.step, m.name, m.value, m.time] for m in trial.measurements],
    }


def expected_trials(key: str) -> list[dict[str, Any]]:
    """Return what version 0.1.0 said of the trials, with origins as they are spelled today."""
    return [
        {**row, "origin": ORIGINS.get(row["origin"], row["origin"])}
        for row in EXPECTED[key]["trials"]
    ]


def quick_creator(task: Task) -> Any:
    """Return a creator that needs no model, for a study that another one began."""
    return open_creator(with_overrides(task, name="random", transfer="off"))


@pytest.mark.parametrize("key", EXPECTED)
def test_an_old_study_is_read_as_it_was(key: str, copy: Copy) -> None:
    home = copy(key) / "home"
    files = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    study, was = Study.find(key, home=home), EXPECTED[key]

    assert [facts(trial) for trial in study.trials] == expected_trials(key)
    assert study.task.objectives == (Objective(was["metric"], was["direction"]),)
    assert study.task.constraints == ()
    assert study.task.value == was["keeps"]
    assert count_budgeted(study.trials) == was["counted"]
    best = study.best_trial
    assert best is not None
    assert (best.number, best.value) == (was["best"], was["best_score"])
    assert [event.trial for event in study.events] == [trial for _, trial in was["events"]]
    assert all(trial.feasible in (True, None) for trial in study.trials)
    assert {path: path.read_bytes() for path in files} == files  # reading changes nothing


@pytest.mark.parametrize("key", EXPECTED)
def test_the_report_of_an_old_study_has_the_same_numbers(key: str, copy: Copy) -> None:
    copy(key)
    report, was = invoke("report", key), EXPECTED[key]

    assert (report["metric"], report["direction"]) == (was["metric"], was["direction"])
    assert (report["best"]["number"], report["best"]["value"]) == (was["best"], was["best_score"])
    assert report["best"]["score"] == was["best_score"]
    assert [[row["number"], row["value"]] for row in report["incumbent"]] == was["incumbent"]
    assert report["states"] == was["states"]
    assert report["budget"]["used"] == was["counted"]
    assert {row["cause"]: row["trials"] for row in report["failures"]} == was["failures"]
    assert {
        row["origin"]: [row["trials"], row["complete"], row["best"]] for row in report["origins"]
    } == {ORIGINS.get(origin, origin): numbers for origin, numbers in was["origins"].items()}


@pytest.mark.parametrize("name", ["slope", "valley"])
def test_old_studies_are_listed(name: str, copy: Copy) -> None:
    copy(name)
    rows = {row["study"]: row for row in invoke("trials")}
    assert rows.keys() == {key for key in EXPECTED if key.startswith(name)}
    for key, row in rows.items():
        was = EXPECTED[key]
        assert (row["counted"], row["best"]) == (was["counted"], was["best_score"])
        assert row["created_at"] == was["created_at"]


def test_an_old_task_file_is_read_with_all_its_keys() -> None:
    task = load_task(OLD / "slope")
    assert task.value == "best"
    assert task.objectives == (Objective("val_acc", "maximize"),)
    assert task.creator.transfer == "off"
    assert load_task(OLD / "valley").creator.transfer == "retrieve"


def test_finished_study_continues_with_a_larger_budget(copy: Copy) -> None:
    folder, key = copy("slope"), "slope/main"
    summary = invoke("run", str(folder), "--trials", "14", "--quiet")

    assert summary["budget"] == {"trials": 14, "used": 14}
    study = Study.find(key)
    assert [facts(trial) for trial in study.trials[:14]] == expected_trials(key)
    assert [str(trial.proposal.origin) for trial in study.trials[14:]] == ["tpe", "tpe"]
    assert all(trial.finished_at is not None for trial in study.trials)
    assert Store(folder / "home").verify() == []
    assert invoke("report", key)["best"]["value"] >= EXPECTED[key]["best_score"]


def test_killed_study_resumes(copy: Copy) -> None:
    folder, key = copy("valley"), "valley/main"
    task = load_task(folder)
    with Study.open(task, creator=quick_creator(task)) as study:
        study.run()
        trials = study.trials

    assert [facts(trial) for trial in trials[:7]] == expected_trials(key)[:7]
    again = trials[7]  # it ran when the program was killed
    assert (again.state, again.restarts) == (State.COMPLETE, 1)
    assert dict(again.config) == EXPECTED[key]["trials"][7]["config"]
    assert len(again.measurements) == 3
    enqueued = trials[8]
    assert str(enqueued.proposal.origin) == "user"
    assert dict(enqueued.config) == {"learning_rate": 5e-4, "dropout": 0.1, "batch_size": 64}
    assert count_budgeted(trials) == 9
    assert Store(folder / "home").verify() == []
    assert [facts(t) for t in Study.find(key).trials] == [facts(t) for t in trials]


@pytest.mark.slow
def test_a_study_that_learns_from_another_goes_on_with_its_creator(copy: Copy) -> None:
    folder, key = copy("valley"), "valley/main"
    summary = invoke("run", str(folder), "--trials", "11", "--quiet")
    trials = Study.find(key).trials

    assert summary["budget"] == {"trials": 11, "used": 11}
    assert [facts(trial) for trial in trials[:7]] == expected_trials(key)[:7]
    assert any(t.proposal.origin.uses("transfer") for t in trials[9:])  # both studies are old
    assert Store(folder / "home").verify() == []


def test_study_without_its_folder_is_restored_from_the_tables(copy: Copy) -> None:
    folder, key = copy("slope"), "slope/early"
    study = Study.find(key)
    study.enqueue({"rate": 0.01, "depth": 5, "kind": "flat"})

    assert [facts(trial) for trial in study.trials[:3]] == expected_trials(key)
    assert str(study.trials[3].proposal.origin) == "user"
    assert Store(folder / "home").verify() == []


@pytest.mark.parametrize("name", ["slope", "valley"])
def test_tables_are_made_again_from_old_files(name: str, copy: Copy) -> None:
    store = Store(copy(name) / "home")
    (store.home / "store.duckdb").unlink()
    assert store.flush()

    assert store.verify() == []
    studies = [record.name for record in store.studies()]
    assert f"{name}/main" in studies
    for key in studies:
        assert [facts(trial) for trial in store.trials(key)] == expected_trials(key)


def test_a_line_that_a_kill_cut_short_is_dropped(copy: Copy) -> None:
    folder, key = copy("valley"), "valley/main"
    (journal,) = (folder / "home" / "studies" / key).glob("*.jsonl")
    with journal.open("ab") as file:
        file.write(b'{"trial":{"number":7,"state":"comp')
    task = load_task(folder)
    with Study.open(task, creator=quick_creator(task)) as study:
        assert [facts(trial) for trial in study.trials] == expected_trials(key)
        study.run()
        assert study.trials[7].state is State.COMPLETE

    assert Store(folder / "home").verify() == []


def test_running_trial_of_an_old_study_can_be_told(copy: Copy) -> None:
    task = load_task(copy("valley"))
    with Study.open(task, creator=quick_creator(task)) as study:
        asked = study.ask()
        ended = study.tell(asked, 0.4)
    assert (ended.state, ended.values, ended.feasible) == (State.COMPLETE, (0.4,), True)
    assert ended.number in (7, 8)  # the one that ran, or the one that was enqueued


def test_a_journal_of_a_newer_version_is_refused_with_a_sentence(
    copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, key = copy("valley"), "valley/first"
    Study.find(key).enqueue({"learning_rate": 1e-3, "dropout": 0.1, "batch_size": 16})
    path = folder / "home" / "studies" / key / "journal.jsonl"
    head, rest = path.read_bytes().split(b"\n", 1)
    text = head.replace(b'"format":2', b'"format":3').rpartition(b',"crc32"')[0]
    path.write_bytes(text + b',"crc32":"%08x"}\n' % zlib.crc32(text) + rest)

    assert main(["report", key]) == 1
    error = capsys.readouterr().err
    assert "has format 3" in error and "reads formats up to 2" in error


def test_tables_of_a_newer_version_are_refused_with_a_sentence(
    copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, key = copy("slope"), "slope/early"  # which is in the tables alone
    with duckdb.connect(str(folder / "home" / "store.duckdb")) as connection:
        connection.execute("INSERT INTO migrations VALUES (99, 'm099', '9.9.9', now())")

    assert main(["report", key]) == 1
    assert "has schema 99, written by LocalHPO 9.9.9" in capsys.readouterr().err
