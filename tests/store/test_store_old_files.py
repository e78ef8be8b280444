"""Journals and tables that LocalHPO 0.1.0 wrote: format 1, schema 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from localhpo.errors import StoreError, StudyLockedError
from localhpo.store import Store, StudyRecord, journal, paths, schema
from localhpo.store.journal import JournalWriter
from localhpo.trial import Cause, Failure, Measurement, Origin, Proposal, State, Trial, Usage

NAME = "water/main"
RECORD = StudyRecord(NAME, "water", {"metric": "f1"}, 1_790_000_000.5, "0.1.0")

PROPOSAL = {
    "config": {"lr": 0.1}, "origin": "model+experience+bo", "rationale": "", "rationale_by": "",
    "evidence": [], "tries": 1, "seed": 5, "model_digest": None, "prompt_tokens": 0,
    "completion_tokens": 0, "seconds": 0.0, "prompt": None, "prompt_sha256": None, "answer": None,
    "engine_state": {}, "note": "",
}  # fmt: skip
USAGE = {
    "wall_s": 2.5, "cpu_s": None, "peak_memory_mb": None, "peak_gpu_memory_mb": None,
    "gpu_s": None, "gpu_utilisation": 0.25, "energy_j": None,
}  # fmt: skip
TRIAL = {
    "number": 0, "state": "running", "proposal": PROPOSAL, "score": None, "failure": None,
    "usage": {**USAGE, "wall_s": 0.0, "gpu_utilisation": None}, "summary": "", "seed": 1,
    "restarts": 0, "user_attrs": {}, "queued_at": 1.0, "started_at": 2.0, "finished_at": None,
}  # fmt: skip
ROWS = [[1, "f1", 0.5, 3.0], [2, "f1", 0.75, 4.0]]
FAILURE = {"cause": "timeout", "message": "too long", "stderr_tail": ""}
EXTERNAL = {**PROPOSAL, "origin": "added"}
LINES = [
    {"study": {
        "format": 1, "id": "old", "name": NAME, "task_name": "water",
        "settings": {"metric": "f1"}, "created_at": 1_790_000_000.5, "version": "0.1.0",
    }},
    {"trial": TRIAL},
    {"measurements": {"trial": 0, "run": 0, "rows": ROWS}},
    {"trial": {"number": 0, "state": "complete", "score": 0.75, "usage": USAGE}},
    {"trial": {**TRIAL, "number": 1, "state": "failed", "failure": FAILURE}},
    {"trial": {**TRIAL, "number": 2, "state": "complete", "score": -0.0, "proposal": EXTERNAL}},
    {"event": {"time": 5.0, "kind": "note", "message": "hello", "trial": None, "data": {}}},
]  # fmt: skip


def expected_trial(number: int, **changes: Any) -> Trial:
    origin = Origin("llm+transfer", "bo")
    trial = Trial(number, State.RUNNING, Proposal({"lr": 0.1}, origin, seed=5), seed=1)
    return trial.to(changes.pop("state"), queued_at=1.0, started_at=2.0, **changes)


TRIALS = [
    expected_trial(
        0,
        state=State.COMPLETE,
        values=(0.75,),
        measurements=tuple(Measurement(*row) for row in ROWS),
        usage=Usage(wall_s=2.5, gpu_utilization=0.25),
    ),
    expected_trial(1, state=State.FAILED, failure=Failure(Cause.TIMEOUT, "too long")),
    expected_trial(
        2,
        state=State.COMPLETE,
        values=(-0.0,),
        proposal=Proposal({"lr": 0.1}, Origin("external"), seed=5),
    ),
]


def write_lines(path: Path, *lines: object) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


@pytest.fixture
def folder(home: Path) -> Path:
    """The folder of a study with a journal of format 1, and a torn last line."""
    folder = home / "studies" / NAME
    folder.mkdir(parents=True)
    write_lines(folder / "spool.jsonl", *LINES)
    with (folder / "spool.jsonl").open("a") as file:
        file.write('{"trial":{"number":3,"sta')
    return folder


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"lock"}


# Readers.


def test_an_old_journal_is_read_without_being_changed(home: Path, folder: Path) -> None:
    before = (folder / "spool.jsonl").read_bytes()
    store = Store(home)
    assert store.studies() == [store.study(NAME)] == [RECORD]
    assert repr(store.trials(NAME)) == repr(TRIALS)
    assert [event.message for event in store.events(NAME)] == ["hello"]
    assert store.verify() == []
    assert (folder / "spool.jsonl").read_bytes() == before
    assert files(folder) == {"spool.jsonl"}


@pytest.mark.parametrize("line", ["not json", "{}", '{"trial":{"number":0,"proposal":{}}}'])
def test_a_damaged_old_journal_is_named_and_left_alone(home: Path, folder: Path, line: str) -> None:
    path = folder / "spool.jsonl"
    path.write_bytes(path.read_bytes().replace(b'{"event"', line.encode() + b'\n{"event"'))
    before = path.read_bytes()
    for use in (Store(home).trials, Store(home).writer):
        with pytest.raises(StoreError, match=r"spool\.jsonl is damaged at line 7") as caught:
            use(NAME)
        assert "keep the file" in caught.value.hint
    assert path.read_bytes() == before
    assert files(folder) == {"spool.jsonl"}


# Conversion.


def test_a_writer_replaces_an_old_journal_and_goes_on(home: Path, folder: Path) -> None:
    store = Store(home)
    new = expected_trial(3, state=State.COMPLETE, values=(0.1, 0.2), violations=(1.0,))
    with store.writer(NAME) as writer:
        assert files(folder) == {"journal.jsonl"}
        assert repr(store.trials(NAME)) == repr(TRIALS)
        writer.write_trial(new)
    assert repr(store.trials(NAME)) == repr([*TRIALS, new])
    assert store.study(NAME) == RECORD
    assert store.verify() == []
    assert b"score" not in (folder / "journal.jsonl").read_bytes()


def test_a_program_that_runs_the_study_keeps_it_from_being_converted(
    home: Path, folder: Path
) -> None:
    """The lock is that of 0.1.0: `flock` on the file `lock` in the folder of the study."""
    code = f"""
        import fcntl, sys
        file = open({str(folder / "lock")!r}, "a+")
        fcntl.flock(file, fcntl.LOCK_EX)
        print("ready", flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StudyLockedError):
            Store(home).writer(NAME)
        assert files(folder) == {"spool.jsonl"}
        process.communicate()


CONVERT = """
    import os, pathlib, sys
    from localhpo.store import Store, conversion

    folder, left = pathlib.Path(sys.argv[1]), int(sys.argv[2])

    def dying(step, before):
        def call(*args, **kwargs):
            global left
            left -= before
            if left < 0:
                os._exit(1)
            result = step(*args, **kwargs)
            left -= not before
            if left < 0:
                os._exit(1)
            return result
        return call

    for before in (True, False):
        os.fsync = dying(os.fsync, before)
        for name in ("open", "replace", "unlink"):
            setattr(pathlib.Path, name, dying(getattr(pathlib.Path, name), before))
    conversion.convert_old_journal(folder)
"""


def test_a_kill_at_any_step_of_the_conversion_loses_nothing(home: Path, folder: Path) -> None:
    original = (folder / "spool.jsonl").read_bytes()
    for steps in range(100):
        for path in folder.iterdir():
            path.unlink()
        (folder / "spool.jsonl").write_bytes(original)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(CONVERT), str(folder), str(steps)], check=False
        )
        store = Store(home)
        assert repr(store.trials(NAME)) == repr(TRIALS), steps
        before = files(folder)
        store.writer(NAME).close()
        assert "spool.jsonl" not in files(folder)
        assert repr(store.trials(NAME)) == repr(TRIALS), steps
        assert store.verify() == []
        if done.returncode == 0:
            assert before == {"journal.jsonl"}
            break
    else:
        raise AssertionError("it never came to an end")
    assert steps > 8


class Stopped(BaseException):
    pass


def interrupt(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Convert the old journal, up to its removal."""
    from localhpo.store import conversion

    def stop(path: Path) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_remove", stop)
        with pytest.raises(Stopped):
            conversion.convert_old_journal(folder)
    assert files(folder) == {"spool.jsonl", "journal.jsonl"}


def test_what_an_older_program_appends_after_a_kill_is_not_lost(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, folder)
    old = folder / "spool.jsonl"
    old.write_bytes(old.read_bytes().rpartition(b"\n")[0] + b"\n")  # as its writer does
    assert repr(Store(home).trials(NAME)) == repr(TRIALS)
    write_lines(old, {"trial": {**TRIAL, "number": 3, "state": "complete", "score": 0.5}})
    grown = [*TRIALS, expected_trial(3, state=State.COMPLETE, values=(0.5,))]
    assert repr(Store(home).trials(NAME)) == repr(grown)
    Store(home).writer(NAME).close()
    assert files(folder) == {"journal.jsonl"}
    assert repr(Store(home).trials(NAME)) == repr(grown)


@pytest.mark.parametrize("how", ["another study", "an older copy", "both have grown"])
def test_two_journals_that_do_not_belong_together_are_both_kept(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    interrupt(monkeypatch, folder)
    old, new = folder / "spool.jsonl", folder / "journal.jsonl"
    if how == "another study":
        old.write_text(old.read_text().replace('"id":"old"', '"id":"other"'))
    elif how == "an older copy":
        old.write_bytes(b"".join(old.read_bytes().splitlines(keepends=True)[:3]))
    else:
        old.write_bytes(old.read_bytes().rpartition(b"\n")[0] + b"\n")
        write_lines(old, LINES[-1])
        writer = JournalWriter(new)
        writer.append("event", LINES[-1]["event"])
        writer.close()
    before = old.read_bytes(), new.read_bytes()
    store = Store(home)
    store.create_study(StudyRecord("other/main", "other", {}, 1.0, "0.2.0"))
    for use in (store.trials, store.writer):
        with pytest.raises(StoreError, match="two journals") as caught:
            use(NAME)
        assert "keep both" in caught.value.hint
    assert (old.read_bytes(), new.read_bytes()) == before
    store.writer("other/main").close()  # no other study is affected
    assert "other/main" in [record.name for record in store.studies()]


# Tables.


def make_old_tables(path: Path, journal_bytes: int, trials: int = 3) -> None:
    """Write what 0.1.0 had in its tables after the last line of `LINES`."""
    bodies = [line["trial"] for line in (LINES[1], LINES[4], LINES[5])][:trials]
    with duckdb.connect(str(path)) as connection:
        schema.migrate(connection, "0.1.0", schema.MIGRATIONS[:2])
        for body in bodies:
            proposal: dict[str, Any] = body["proposal"]
            number = body["number"]
            if number == 0:
                body = {**body, **LINES[3]["trial"]}
            failure = body["failure"] or dict.fromkeys(FAILURE)
            insert(connection, "trials", {
                "study": NAME, "trial": number, "state": body["state"], "score": body["score"],
                "config": json.dumps(proposal["config"]), **failure, "summary": "", "seed": 1,
                "restarts": 0, "user_attrs": "{}", "queued_at": "1970-01-01 00:00:01+00",
                "started_at": "1970-01-01 00:00:02+00",
            })  # fmt: skip
            proposal = {key: value for key, value in proposal.items() if key != "config"}
            proposal["engine_state"] = "{}"
            insert(connection, "proposals", {"study": NAME, "trial": number, **proposal})
            insert(connection, "resources", {"study": NAME, "trial": number, **body["usage"]})
        for step, name, value, _ in ROWS:
            time = f"1970-01-01 00:00:0{step + 2}+00"
            row = {"study": NAME, "trial": 0, "step": step, "name": name, "value": value}
            insert(connection, "metrics", {**row, "time": time})
        event = {"kind": "note", "message": "hello", "data": "{}"}
        insert(connection, "events", {"study": NAME, "time": "1970-01-01 00:00:05+00", **event})
        insert(connection, "studies", {
            "study": NAME, "task": "water", "created_at": "2026-09-21 14:13:20.5+00",
            "version": "0.1.0", "settings": '{"metric":"f1"}', "spool_id": "old",
            "spool_bytes": journal_bytes,
        })  # fmt: skip


def insert(connection: duckdb.DuckDBPyConnection, table: str, row: dict[str, Any]) -> None:
    marks = ", ".join("?" * len(row))
    connection.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values())
    )


@pytest.fixture
def with_tables(home: Path, folder: Path) -> Iterator[Callable[..., Path]]:
    """Return a maker of the tables of 0.1.0 beside its journal."""

    def make(**options: Any) -> Path:
        *_, (_, end) = journal.read_lines(folder / paths.OLD_JOURNAL)
        make_old_tables(home / "store.duckdb", end, **options)
        return home / "store.duckdb"

    yield make


def test_old_tables_are_read_without_being_changed(
    home: Path, folder: Path, with_tables: Callable[..., Path]
) -> None:
    database = with_tables()
    before = database.read_bytes()
    store = Store(home)
    assert store.verify() == []
    assert store.studies() == [RECORD]
    (folder / "spool.jsonl").unlink()  # only the tables are left
    assert store.studies() == [RECORD]
    assert repr(store.trials(NAME)) == repr(TRIALS)
    assert [event.message for event in store.events(NAME)] == ["hello"]
    assert database.read_bytes() == before


def test_old_tables_are_migrated_by_the_next_writer_of_any_study(
    home: Path, folder: Path, with_tables: Callable[..., Path]
) -> None:
    database = with_tables()
    store = Store(home)
    store.create_study(StudyRecord("other/main", "other", {}, 1.0, "0.2.0"))
    store.writer("other/main").close()
    assert files(folder) == {"spool.jsonl"}
    assert store.verify() == []
    with duckdb.connect(str(database)) as connection:
        rows = connection.execute(
            'SELECT "values", violations, origin, gpu_utilization, journal_id, feasible, score '
            'FROM overview JOIN trials USING (study, trial, state, "values") '
            "JOIN resources USING (study, trial) JOIN studies USING (study) "
            "WHERE study = 'water/main' ORDER BY trial"
        ).fetchall()
        assert rows == [
            ([0.75], [], "bo+llm+transfer", 0.25, "old", True, 0.75),
            ([], [], "bo+llm+transfer", None, "old", None, None),
            ([-0.0], [], "external", None, "old", True, -0.0),
        ]
        columns = connection.execute("SELECT column_name FROM duckdb_columns()").fetchall()
        for old in ("spool_id", "spool_bytes", "gpu_utilisation"):
            assert (old,) not in columns
    (folder / "spool.jsonl").unlink()
    assert repr(store.trials(NAME)) == repr(TRIALS)


@pytest.mark.parametrize("trials", [1, 3])
def test_tables_of_an_old_journal_are_handed_over_to_the_new_one(
    home: Path, folder: Path, with_tables: Callable[..., Path], trials: int
) -> None:
    with_tables(trials=trials)
    if trials == 1:  # as after a kill: the tables are behind
        with duckdb.connect(str(home / "store.duckdb")) as connection:
            lines = (folder / "spool.jsonl").read_bytes().splitlines(keepends=True)
            connection.execute("UPDATE studies SET spool_bytes = ?", [len(b"".join(lines[:4]))])
            connection.execute("DELETE FROM events")
    store = Store(home)
    assert store.verify() == []
    store.writer(NAME).close()
    assert store.verify() == []
    (folder / "journal.jsonl").unlink()
    assert repr(store.trials(NAME)) == repr(TRIALS)
    store.writer(NAME).close()
    assert repr(store.trials(NAME)) == repr(TRIALS)
    assert files(folder) == {"journal.jsonl"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_who_may_only_read_reads_an_old_study(home: Path, folder: Path) -> None:
    folder.chmod(0o500)
    try:
        assert repr(Store(home).trials(NAME)) == repr(TRIALS)
    finally:
        folder.chmod(0o700)
