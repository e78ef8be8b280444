"""Other processes at the store: second writers, shells, readers, other studies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from localhpo.errors import StudyLockedError, StudyNotFoundError
from localhpo.store import DatabaseBusyError, Store, StudyRecord
from localhpo.store.database import Database
from localhpo.trial import Measurement, Origin, Proposal, State, Trial

NAME = "water/main"
Shell = Callable[[bool], AbstractContextManager[object]]
Start = Callable[[str], AbstractContextManager[subprocess.Popen[str]]]


def trial(number: int) -> Trial:
    return Trial(number, State.RUNNING, Proposal({"x": number}, Origin.parse("random")))


def hold(home: Path) -> str:
    return f"""
        import sys
        from localhpo.store import Store
        from pathlib import Path
        writer = Store(Path({str(home)!r})).writer({NAME!r})
        print("ready", flush=True)
        sys.stdin.read()
    """


# The lock of a study.


def test_a_second_process_is_told_who_runs_the_study(store: Store, start: Start) -> None:
    with start(hold(store.home)) as other:
        with pytest.raises(StudyLockedError, match=rf"{NAME} .* process {other.pid} .* UTC") as e:
            store.writer(NAME)
        assert "--study NEW" in e.value.hint
        assert store.trials(NAME) == []
        other.send_signal(signal.SIGKILL)
        other.wait()
        store.writer(NAME).close()


def test_a_lock_without_a_readable_holder_is_still_a_lock(store: Store) -> None:
    with store.writer(NAME):
        (store.study_folder(NAME) / "lock").write_bytes(b"")
        with pytest.raises(StudyLockedError, match="another process"):
            store.writer(NAME)


def test_whether_a_study_is_taken_can_be_asked_at_any_time(store: Store) -> None:
    assert not store.is_taken(NAME)
    with store.writer(NAME):
        assert store.is_taken(NAME)
    assert not store.is_taken(NAME)
    assert not store.is_taken("nobody/main")


def test_a_study_that_another_process_runs_is_refused_without_being_taken(
    store: Store, start: Start
) -> None:
    store.check_free(NAME)
    store.check_free("nobody/main")
    with start(hold(store.home)) as other:
        with pytest.raises(StudyLockedError, match=rf"{NAME} .* process {other.pid} .* UTC") as e:
            store.check_free(NAME)
        assert "--study NEW" in e.value.hint
        other.send_signal(signal.SIGKILL)
        other.wait()
        store.check_free(NAME)
        assert not store.is_taken(NAME)


def test_who_asks_keeps_nobody_from_taking_it(store: Store) -> None:
    asking = threading.Event()

    def ask() -> None:
        while not asking.is_set():
            store.is_taken(NAME)
            time.sleep(0.001)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(50):
            store.writer(NAME).close()
    finally:
        asking.set()
        thread.join()


@pytest.mark.parametrize(
    "spawn",
    [
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])",
        "os.fork() or time.sleep(60)",
    ],
)
def test_children_do_not_keep_the_lock(store: Store, start: Start, spawn: str) -> None:
    code = f"""
        import os, subprocess, sys, time
        from pathlib import Path
        from localhpo.store import Store
        writer = Store(Path({str(store.home)!r})).writer({NAME!r})
        child = {spawn}
        print(getattr(child, "pid", child), flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        time.sleep(0.05)  # a forked child needs a moment to get to its handler
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        store.writer(NAME).close()
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


# A shell that a user left open.


@pytest.mark.parametrize("read_only", [False, True])
def test_a_shell_left_open_neither_fails_nor_holds_up_a_study(
    store: Store, shell: Shell, record: Callable[..., StudyRecord], read_only: bool
) -> None:
    store.writer(NAME).close()
    with shell(read_only):
        with pytest.raises(StudyNotFoundError):
            store.trials("new/main")
        store.create_study(record("new/main"))
        for name in (NAME, "new/main"):
            with store.writer(name) as writer:
                writer.write_trial(trial(0))
                writer.write_measurements(0, [Measurement(1, "f1", 0.5, 1.0)])
                assert not writer.flush(now=True)
                assert not writer.flush(wait_s=0.05, now=True)
                writer.write_trial(trial(1))
            assert [t.number for t in store.trials(name)] == [0, 1]
        assert {s.name for s in store.studies()} == {NAME, "new/main"}
        assert not store.flush()
    assert store.verify() == []
    assert store.flush()
    assert store.verify() == []
    assert in_tables(store, "SELECT count(*) FROM trials") == 4


def in_tables(store: Store, query: str) -> Any:
    with duckdb.connect(str(store.home / "store.duckdb"), read_only=True) as connection:
        [(value,)] = connection.execute(query).fetchall()
    return value


def test_what_a_shell_held_up_comes_in_while_the_study_runs(store: Store, shell: Shell) -> None:
    store.writer(NAME).close()
    with store.writer(NAME) as writer:
        with shell(False):
            writer.write_trial(trial(0))
            assert not writer.flush(now=True)
        assert writer.flush(now=True)
        assert in_tables(store, "SELECT count(*) FROM trials") == 1


def test_a_connection_of_this_very_process_does_no_harm(store: Store) -> None:
    store.writer(NAME).close()
    with store.writer(NAME) as writer:
        with duckdb.connect(str(store.home / "store.duckdb")) as connection:
            writer.write_trial(trial(0))
            assert not writer.flush(now=True)
            assert connection.execute("SELECT count(*) FROM trials").fetchall() == [(0,)]
        assert writer.flush(now=True)
    assert store.verify() == []


def test_flushing_often_costs_little_and_tells_what_became_of_the_last(
    store: Store, shell: Shell
) -> None:
    with store.writer(NAME) as writer:
        assert writer.flush()
        for number in range(3):
            writer.write_trial(trial(number))
            assert writer.flush()
        assert in_tables(store, "SELECT count(*) FROM trials") == 0  # it was not yet time
        assert [t.number for t in store.trials(NAME)] == [0, 1, 2]
        with shell(False):
            assert not writer.flush(now=True)
        assert not writer.flush()  # nor here
    assert in_tables(store, "SELECT count(*) FROM trials") == 3


def test_a_shell_can_look_between_two_flushes(store: Store) -> None:
    with store.writer(NAME) as writer:
        for number in range(3):
            writer.write_trial(trial(number))
            assert writer.flush(now=True)
            assert in_tables(store, "SELECT count(*) FROM trials") == number + 1


def test_a_study_that_only_the_tables_have_waits_for_the_shell(store: Store, shell: Shell) -> None:
    store.writer(NAME).close()
    (store.study_folder(NAME) / "journal.jsonl").unlink()
    with shell(False):
        with pytest.raises(DatabaseBusyError, match="in use") as caught:
            store.trials(NAME)
        assert "close the DuckDB shell" in caught.value.hint
        assert store.studies() == []
    with shell(True):
        assert store.trials(NAME) == []


def test_a_study_without_its_journal_is_not_begun_anew_while_a_shell_has_the_tables(
    store: Store, shell: Shell, record: Callable[..., StudyRecord]
) -> None:
    with store.writer(NAME) as writer:
        writer.write_trial(trial(0))
    store.trial_folder(NAME, 0).mkdir(parents=True)
    path = store.study_folder(NAME) / "journal.jsonl"
    path.rename(path.with_name("journal.jsonl.damaged"))
    with shell(False), pytest.raises(DatabaseBusyError):
        store.create_study(record())
    assert [t.number for t in store.trials(NAME)] == [0]


# Two studies and readers at once.

WRITE_MANY = """
    import sys, time
    from pathlib import Path
    from localhpo.store import Store
    from localhpo.trial import USER, Measurement, Proposal, State, Trial
    print("ready", flush=True)
    sys.stdin.readline()
    with Store(Path({home!r})).writer({name!r}) as writer:
        for number in range({trials}):
            writer.write_trial(Trial(number, State.RUNNING, Proposal({{"x": number}}, USER)))
            writer.write_measurements(number, [Measurement(1, "f1", 0.5, 1.0)])
            writer.flush(now=True)
"""


def test_two_studies_write_at_once_and_readers_never_fail(
    store: Store, start: Start, record: Callable[..., StudyRecord]
) -> None:
    store.create_study(record("other/main"))
    names, count = [NAME, "other/main"], 30
    codes = [WRITE_MANY.format(home=str(store.home), name=n, trials=count) for n in names]
    with start(codes[0]) as first, start(codes[1]) as second:
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        seen = dict.fromkeys(names, 0)
        while first.poll() is None or second.poll() is None:
            assert len(store.studies()) == 2
            for name in names:
                trials = store.trials(name)
                assert [t.number for t in trials] == list(range(len(trials)))
                assert len(trials) >= seen[name]
                seen[name] = len(trials)
            assert store.verify() == []
        assert (first.returncode, second.returncode) == (0, 0)
    assert [len(store.trials(name)) for name in names] == [count, count]
    store.flush()
    assert store.verify() == []
    assert in_tables(store, "SELECT count(*) FROM metrics") == 2 * count


def test_ctrl_c_in_the_middle_of_a_query_is_a_keyboard_interrupt(tmp_path: Path) -> None:
    database = Database(tmp_path / "store.duckdb")
    long = "SELECT sum(a.range * b.range) FROM range(100000) a, range(100000) b"
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), database.writing() as connection:
        timer.start()
        connection.execute(long)
    with database.writing():
        pass
