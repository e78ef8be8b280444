from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localhpo.errors import (
    InputError,
    StoreError,
    StoreVersionError,
    StudyLockedError,
    StudyNotFoundError,
)
from localhpo.store import Store, StudyRecord, default_home, journal, study_name
from localhpo.store.journal import JournalWriter
from localhpo.trial import LLM, USER, Measurement, Proposal, State, Trial

NAME = "water/main"
FullTrial = Callable[..., Trial]


def write(store: Store, *trials: Trial, name: str = NAME) -> None:
    with store.writer(name) as writer:
        for trial in trials:
            writer.write_trial(trial)
            writer.write_measurements(trial.number, trial.measurements)


def lose_folders(store: Store) -> None:
    shutil.rmtree(store.home / "studies")


def test_importing_the_store_does_not_load_duckdb() -> None:
    code = "import sys, localhpo.store; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Studies.


def test_reading_makes_nothing_on_disk(home: Path) -> None:
    store = Store(home)
    assert store.studies() == []
    assert store.verify() == []
    for look in (store.study, store.trials, store.events, store.writer):
        with pytest.raises(StudyNotFoundError, match=f"no study {NAME} in {home}"):
            look(NAME)
    assert not home.exists()


def test_studies_are_listed_from_old_to_new(home: Path, record: Callable[..., StudyRecord]) -> None:
    store = Store(home)
    records = [record("b/main", 2.0), record("a/main", 3.0), record("a/other", 1.0)]
    for each in records:
        store.create_study(each)
    assert store.studies() == sorted(records, key=lambda r: r.created_at)
    assert [store.study(each.name) for each in records] == records
    assert store.trials("b/main") == []
    assert store.events("b/main") == []


def test_a_study_is_created_once(store: Store, record: Callable[..., StudyRecord]) -> None:
    with pytest.raises(InputError, match="there is a study water/main already") as caught:
        store.create_study(replace(record(), settings={}))
    assert "--study NEW" in caught.value.hint
    assert store.study(NAME) == record()


def test_settings_that_are_not_json_leave_no_study(
    home: Path, record: Callable[..., StudyRecord]
) -> None:
    store = Store(home)
    with pytest.raises(InputError, match="must be JSON"):
        store.create_study(replace(record(), settings={"x": {1}}))
    assert store.studies() == []
    store.create_study(record())


@pytest.mark.parametrize(
    "part", ["", ".", "..", ".hidden", "-option", "a/b", "a b", "a\n", "ü", "a\\b", "x" * 101]
)
def test_a_name_that_is_no_folder_name_is_refused(home: Path, part: str) -> None:
    for make in (lambda: study_name(part), lambda: study_name("task", part)):
        with pytest.raises(InputError, match=r"letters, digits") as caught:
            make()
        assert repr(part) in str(caught.value)
    with pytest.raises(InputError):
        Store(home).trials(f"task/{part}")


def test_folders_lie_below_the_home(home: Path) -> None:
    store = Store(home)
    name = study_name("water-xgboost", "run_2.b")
    assert name == "water-xgboost/run_2.b"
    assert store.study_folder(name) == home / "studies" / "water-xgboost" / "run_2.b"
    assert store.trial_folder(name, 12) == store.study_folder(name) / "trials" / "12"
    with pytest.raises(InputError, match="<task>/<study>") as caught:
        store.study_folder("water-xgboost")
    assert "water-xgboost/main" in caught.value.hint


def test_the_home_is_a_variable_or_a_hidden_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOCALHPO_HOME", str(tmp_path / "h"))
    assert default_home() == tmp_path / "h"
    monkeypatch.setenv("LOCALHPO_HOME", "")
    monkeypatch.chdir(tmp_path)
    assert default_home() == tmp_path / ".localhpo"


# Trials.


def test_a_trial_with_everything_comes_back_as_it_was(store: Store, full_trial: FullTrial) -> None:
    trials = [full_trial(3), full_trial(0), replace(full_trial(1), failure=None, measurements=())]
    write(store, *trials)
    expected = sorted(trials, key=lambda t: t.number)
    assert repr(store.trials(NAME)) == repr(expected)
    assert store.verify() == []


def test_the_last_change_to_a_trial_counts_and_unchanged_fields_are_written_once(
    store: Store,
) -> None:
    trial = Trial(0, State.QUEUED, Proposal({"x": 1}, LLM, prompt="a long prompt"))
    with store.writer(NAME) as writer:
        writer.write_trial(trial)
        writer.write_trial(trial := trial.to(State.RUNNING, started_at=2.0))
        writer.write_trial(trial := trial.to(State.COMPLETE, values=(0.5,), finished_at=3.0))
    with store.writer(NAME) as writer:
        writer.write_trial(trial := trial.with_(user_attrs={"k": [1]}))
    assert store.trials(NAME) == [trial]
    lines = (store.study_folder(NAME) / "journal.jsonl").read_text()
    assert lines.count("a long prompt") == 1
    assert store.verify() == []


def test_measurements_keep_the_order_of_report(store: Store) -> None:
    reported = [Measurement(s, n, float(s), 1.0) for s, n in [(2, "b"), (1, "a"), (1, "b")] * 50]
    with store.writer(NAME) as writer:
        writer.write_trial(Trial(0, State.RUNNING, Proposal({}, USER)))
        for i in range(0, len(reported), 7):
            writer.write_measurements(0, reported[i : i + 7])
            writer.write_measurements(0, [])
            assert writer.flush(now=True)
    assert store.trials(NAME)[0].measurements == tuple(reported)
    assert store.verify() == []
    lose_folders(store)
    assert store.trials(NAME)[0].measurements == tuple(reported)


@pytest.mark.parametrize("flush_between", [True, False])
def test_a_restart_drops_what_the_earlier_run_reported(store: Store, flush_between: bool) -> None:
    trial = Trial(0, State.RUNNING, Proposal({}, USER))
    other = Trial(1, State.RUNNING, Proposal({}, USER))
    old, new = Measurement(1, "f1", 0.1, 1.0), Measurement(1, "f1", 0.2, 2.0)
    with store.writer(NAME) as writer:
        for each in (trial, other):
            writer.write_trial(each)
            writer.write_measurements(each.number, [old])
        if flush_between:
            assert writer.flush(now=True)
        writer.write_trial(trial := trial.to(State.INTERRUPTED))
        writer.write_trial(trial := trial.to(State.RUNNING, restarts=1))
        writer.write_measurements(0, [new])
    again, beside = store.trials(NAME)
    assert again.measurements == (new,)
    assert beside.measurements == (old,)
    assert store.verify() == []


def test_measuring_a_trial_that_was_never_written_is_an_error(store: Store) -> None:
    with store.writer(NAME) as writer, pytest.raises(StoreError, match="has no trial 3"):
        writer.write_measurements(3, [Measurement(1, "f1", 0.1, 1.0)])


def test_an_attribute_that_is_not_json_leaves_the_trial_as_it_was(store: Store) -> None:
    trial = Trial(0, State.RUNNING, Proposal({}, USER))
    with store.writer(NAME) as writer:
        writer.write_trial(trial)
        with pytest.raises(InputError, match="must be JSON"):
            writer.write_trial(trial.with_(user_attrs={"x": object()}))
        writer.write_trial(trial.with_(user_attrs={"x": 1}))
    assert [t.user_attrs for t in store.trials(NAME)] == [{"x": 1}]


def test_events_come_back_in_order(store: Store) -> None:
    with store.writer(NAME) as writer:
        writer.write_event("resumed", "the study goes on")
        writer.write_event("model failed", "out of tokens", trial=4, data={"n": float("inf")})
    first, second = store.events(NAME)
    assert (first.kind, first.message, first.trial, first.data) == (
        "resumed", "the study goes on", None, {},
    )  # fmt: skip
    assert (second.trial, second.data) == (4, {"n": float("inf")})
    assert first.time <= second.time
    assert store.verify() == []


def test_readers_see_what_was_written_before_any_flush(store: Store, full_trial: FullTrial) -> None:
    with store.writer(NAME) as writer:
        writer.write_trial(full_trial())
        assert [t.number for t in Store(store.home).trials(NAME)] == [0]


def test_one_writer_at_a_time(store: Store) -> None:
    with store.writer(NAME) as writer:
        assert writer.name == NAME
        with pytest.raises(StudyLockedError, match=NAME):
            store.writer(NAME)
    writer.close()
    store.writer(NAME).close()


# What becomes of the tables.


def test_without_its_folder_a_study_is_read_from_the_tables(
    store: Store, full_trial: FullTrial, record: Callable[..., StudyRecord]
) -> None:
    write(store, full_trial())
    with store.writer(NAME) as writer:
        writer.write_event("note", "hello")
    trials, events = store.trials(NAME), store.events(NAME)
    lose_folders(store)
    assert store.studies() == [store.study(NAME)] == [record()]
    assert repr(store.trials(NAME)) == repr(trials)
    assert [e.message for e in store.events(NAME)] == [e.message for e in events]
    with pytest.raises(InputError, match="already"):
        store.create_study(record())


def test_without_its_folder_a_study_goes_on(store: Store, full_trial: FullTrial) -> None:
    write(store, full_trial(0))
    lose_folders(store)
    write(store, full_trial(1))
    assert repr(store.trials(NAME)) == repr([full_trial(0), full_trial(1)])
    assert store.verify() == []


def test_a_journal_of_another_study_of_that_name_replaces_the_rows(
    store: Store, full_trial: FullTrial, tmp_path: Path, record: Callable[..., StudyRecord]
) -> None:
    write(store, *map(full_trial, range(5)))
    other = Store(tmp_path / "elsewhere")
    other.create_study(record())
    write(other, full_trial(7))
    shutil.copytree(other.home / "studies", store.home / "studies", dirs_exist_ok=True)
    assert [p.split(": ")[0] for p in store.verify()] == [NAME]
    write(store)
    assert store.verify() == []
    lose_folders(store)
    assert [t.number for t in store.trials(NAME)] == [7]


def test_an_older_copy_of_a_journal_replaces_the_rows(store: Store, full_trial: FullTrial) -> None:
    path = store.study_folder(NAME) / "journal.jsonl"
    write(store, full_trial(0))
    copy = path.read_bytes()
    write(store, full_trial(1))
    path.write_bytes(copy)
    write(store, full_trial(2))
    assert [t.number for t in store.trials(NAME)] == [0, 2]
    assert store.verify() == []


def test_a_lost_database_is_made_again_when_any_study_runs(
    store: Store, full_trial: FullTrial, record: Callable[..., StudyRecord]
) -> None:
    write(store, full_trial())
    (store.home / "store.duckdb").unlink()
    store.create_study(record("other/main"))
    write(store, name="other/main")
    lose_folders(store)
    assert repr(store.trials(NAME)) == repr([full_trial()])


def test_a_damaged_database_is_named_and_made_again_once_it_is_moved_away(
    store: Store, full_trial: FullTrial, record: Callable[..., StudyRecord]
) -> None:
    write(store, full_trial())
    database = store.home / "store.duckdb"
    database.write_bytes(b"rubbish" * 1000)
    assert repr(store.trials(NAME)) == repr([full_trial()])
    with pytest.raises(StoreError, match=r"store\.duckdb") as caught:
        store.writer(NAME)
    assert "move it away" in caught.value.hint
    assert database.read_bytes() == b"rubbish" * 1000
    database.rename(database.with_name("store.duckdb.old"))
    write(store, full_trial(1))
    assert store.verify() == []
    lose_folders(store)
    assert len(store.trials(NAME)) == 2


def damage(path: Path) -> None:
    """Change one digit of the value of a trial."""
    data = path.read_bytes()
    changed = data.replace(b'"values":[-0.0', b'"values":[-9.0')
    assert data != changed
    path.write_bytes(changed)


@pytest.mark.parametrize(
    ("kind", "body"),
    [("trial", {"nummer": 1}), ("trail", {}), ("trial", 3), ("measurements", {}), (None, None)],
)
def test_a_damaged_journal_is_named_and_keeps_its_rows(
    store: Store,
    full_trial: FullTrial,
    record: Callable[..., StudyRecord],
    caplog: pytest.LogCaptureFixture,
    kind: str | None,
    body: Any,
) -> None:
    write(store, full_trial())
    path = store.study_folder(NAME) / "journal.jsonl"
    if kind is None:
        damage(path)
    else:
        with closing(JournalWriter(path)) as writer:
            writer.append(kind, body)
    damaged = path.read_bytes()
    for use in (store.trials, store.events, store.writer):
        with pytest.raises(StoreError, match=r"journal\.jsonl is damaged") as caught:
            use(NAME)
        assert "journal.jsonl.damaged" in caught.value.hint
    store.create_study(record("other/main"))
    write(store, full_trial(), name="other/main")
    if kind is not None:  # else the tables have as many bytes of it as there are
        assert "water/main" in caplog.text
    path.rename(path.with_name("journal.jsonl.damaged"))
    assert repr(store.trials(NAME)) == repr([full_trial()])
    write(store, full_trial(1))
    assert repr(store.trials(NAME)) == repr([full_trial(), full_trial(1)])
    assert path.with_name("journal.jsonl.damaged").read_bytes() == damaged


def test_a_damaged_journal_affects_no_other_study(
    store: Store, full_trial: FullTrial, record: Callable[..., StudyRecord]
) -> None:
    for name in ("other/main", "new/main"):
        store.create_study(record(name))
        write(store, full_trial(), name=name)
    path = store.study_folder(NAME) / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"format":2', b'"format":1'))
    (store.study_folder("new/main") / "journal.jsonl").write_bytes(b"")
    names = {"new/main", "other/main", NAME}
    assert {study.name for study in store.studies()} == names  # the tables have them
    (store.home / "store.duckdb").unlink()
    assert {study.name for study in store.studies()} == {"other/main"}
    write(store, full_trial(1), name="other/main")
    assert len(store.trials("other/main")) == 2
    with pytest.raises(StoreError, match=r"new/main/journal\.jsonl is damaged at line 1"):
        store.verify()


def test_a_journal_of_a_newer_version_is_refused_by_readers_and_writers(
    store: Store, monkeypatch: pytest.MonkeyPatch, record: Callable[..., StudyRecord]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(journal, "FORMAT", 3)
        patch.setattr(journal, "__version__", "9.9.9")
        store.create_study(record("new/main"))
    uses = (store.study, store.trials, store.events, store.writer)
    for use in (*uses, lambda _: store.studies(), lambda _: store.verify()):
        with pytest.raises(StoreVersionError, match=r"new/main.* format 3, .*9\.9\.9"):
            use("new/main")
    assert store.trials(NAME) == []


def test_a_line_removed_by_hand_doubles_nothing_in_the_tables(
    store: Store, full_trial: FullTrial
) -> None:
    write(store, full_trial(0), full_trial(1))
    path = store.study_folder(NAME) / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    write(store, full_trial(2), full_trial(3))
    assert store.verify() == []


@pytest.mark.parametrize(
    "sql",
    [
        'UPDATE trials SET "values" = [0.25]',
        "DELETE FROM resources",
        "DELETE FROM metrics WHERE rowid = 0",
        "INSERT INTO trials SELECT * FROM trials",
        "UPDATE proposals SET tries = 5",
        "UPDATE events SET message = 'other'",
    ],
)
def test_verify_finds_what_was_changed_by_hand(
    store: Store, full_trial: FullTrial, sql: str
) -> None:
    import duckdb

    write(store, full_trial())
    with store.writer(NAME) as writer:
        writer.write_event("note", "hello")
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        connection.execute(sql)
    assert [problem.split(": ")[0] for problem in store.verify()] == [NAME]


def test_an_empty_file_is_taken_for_no_database(store: Store, full_trial: FullTrial) -> None:
    (store.home / "store.duckdb").touch()
    assert len(store.studies()) == 1
    write(store, full_trial())
    assert store.verify() == []


# A home that cannot be one.


def test_a_home_that_is_a_file_is_an_error(
    tmp_path: Path, record: Callable[..., StudyRecord]
) -> None:
    home = tmp_path / "home"
    home.write_text("")
    store = Store(home)
    for act in (
        store.studies,
        lambda: store.trials(NAME),
        lambda: store.writer(NAME),
        lambda: store.create_study(record()),
    ):
        with pytest.raises(StoreError, match=str(home)) as caught:
            act()
        assert "LOCALHPO_HOME" in caught.value.hint


def test_a_study_that_is_removed_while_it_runs_is_an_error(
    store: Store, full_trial: FullTrial
) -> None:
    writer = store.writer("water/main")
    writer.write_trial(full_trial(0))
    shutil.rmtree(store.home)
    with pytest.raises(StoreError, match=r"journal\.jsonl: No such file") as caught:
        writer.close()
    assert "LOCALHPO_HOME" in caught.value.hint


def test_a_home_that_cannot_be_made_says_what_to_do() -> None:
    with pytest.raises(StoreError, match="/proc/nope") as caught:
        Store(Path("/proc/nope")).create_study(StudyRecord("a/main", "a", {}, 1.0, "0.1.0"))
    assert "LOCALHPO_HOME" in caught.value.hint
