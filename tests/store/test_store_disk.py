"""Disks that are full, or may not be written: a small file system of our own, mounted in a
user namespace, where this machine allows one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PRELUDE = """
    import sys
    from pathlib import Path
    from localhpo.errors import StoreError
    from localhpo.store import Store, StudyRecord
    from localhpo.trial import USER, Measurement, Proposal, State, Trial

    NAME = "water/main"
    home = Path(sys.argv[1])
    store = Store(home / "home")

    def trial(number):
        return Trial(number, State.QUEUED, Proposal({"x": "x" * 1000}, USER))
"""


def namespaces_work() -> bool:
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode == 0
    )


pytestmark = pytest.mark.skipif(
    not namespaces_work(), reason="this machine does not allow user namespaces (unshare -rm)"
)


def on_small_disk(folder: Path, code: str, *, options: str = "size=1m") -> None:
    """Run code with a small file system mounted at a folder."""
    folder.mkdir(exist_ok=True)
    program = textwrap.dedent(PRELUDE) + textwrap.dedent(code)
    script = f'mount -t tmpfs -o {options} tmpfs "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", folder, sys.executable, program],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_full_disk_stops_the_journal_and_keeps_what_was_written(tmp_path: Path) -> None:
    on_small_disk(
        tmp_path / "disk",
        """
        store.create_study(StudyRecord(NAME, "water", {}, 1.0, "0.1.0"))
        from localhpo.store.journal import JournalWriter
        writer = JournalWriter(store.study_folder(NAME) / "journal.jsonl")
        written = 0
        try:
            while True:
                writer.append("event", {"time": 1.0, "kind": "k", "message": "x" * 5000})
                written += 1
        except StoreError as error:
            assert "cannot append to" in str(error) and "journal.jsonl" in str(error), error
            assert "No space left" in str(error)
            assert "free space" in error.hint
        assert len(store.events(NAME)) == written > 10
        data = (store.study_folder(NAME) / "journal.jsonl").read_bytes()
        assert data.endswith(b"}\\n")
        """,
    )


def test_a_study_goes_on_once_there_is_space_again(tmp_path: Path) -> None:
    on_small_disk(
        tmp_path / "disk",
        """
        ballast = home / "ballast"
        store.create_study(StudyRecord(NAME, "water", {}, 1.0, "0.1.0"))
        written = 0
        try:
            with store.writer(NAME) as writer:
                ballast.write_bytes(b"x" * 10_000_000)
                while True:
                    writer.write_trial(trial(written))
                    written += 1
        except StoreError as error:
            assert "free space" in error.hint, (error, error.hint)
        else:
            raise AssertionError
        assert [t.number for t in store.trials(NAME)] == list(range(written))
        ballast.unlink()
        with store.writer(NAME) as writer:
            writer.write_trial(trial(written))
        assert len(store.trials(NAME)) == written + 1
        assert store.verify() == []
        """,
        options="size=14m",
    )


def test_a_disk_too_full_for_a_study_leaves_none(tmp_path: Path) -> None:
    on_small_disk(
        tmp_path / "disk",
        """
        try:
            (home / "ballast").write_bytes(b"x" * 2_000_000)
        except OSError:
            pass
        try:
            store.create_study(StudyRecord(NAME, "water", {"x": "x" * 5000}, 1.0, "0.1.0"))
        except StoreError as error:
            assert "free space" in error.hint
        else:
            raise AssertionError
        assert store.studies() == []
        (home / "ballast").unlink()
        store.create_study(StudyRecord(NAME, "water", {}, 1.0, "0.1.0"))
        assert [s.name for s in store.studies()] == [NAME]
        """,
    )


def test_on_a_disk_too_full_for_the_tables_the_journal_goes_on(tmp_path: Path) -> None:
    on_small_disk(
        tmp_path / "disk",
        """
        ballast = home / "ballast"
        store.create_study(StudyRecord(NAME, "water", {}, 1.0, "0.1.0"))
        with store.writer(NAME) as writer:
            writer.write_trial(trial(0))
            assert writer.flush(now=True)
            size = store.home.joinpath("store.duckdb").stat().st_size
            for number in range(1, 200):
                writer.write_trial(trial(number))
            try:
                ballast.write_bytes(b"x" * 100_000_000)
            except OSError:
                pass
            try:
                writer.flush(now=True)
            except StoreError as error:
                assert "store.duckdb" in str(error), error
                assert "free space" in error.hint, error.hint
            else:
                raise AssertionError("there was space")
            assert len(store.trials(NAME)) == 200
            ballast.unlink()
            assert writer.flush(now=True)
        assert store.verify() == []
        """,
        options="size=12m",
    )


def test_a_disk_too_full_for_the_first_table_is_no_lasting_harm(tmp_path: Path) -> None:
    on_small_disk(
        tmp_path / "disk",
        """
        store.create_study(StudyRecord(NAME, "water", {}, 1.0, "0.1.0"))
        ballast = home / "ballast"
        try:
            ballast.write_bytes(b"x" * 10_000_000)
        except OSError:
            pass
        try:
            store.flush()
        except StoreError as error:
            assert "store.duckdb" in str(error), error
            assert "free space" in error.hint, error.hint
        else:
            raise AssertionError("there was space")
        assert [s.name for s in store.studies()] == [NAME]
        ballast.unlink()
        with store.writer(NAME) as writer:
            writer.write_trial(trial(0))
        assert store.verify() == []
        """,
        options="size=4m",
    )


def test_a_home_that_may_only_be_read_can_be_read(tmp_path: Path) -> None:
    on_small_disk(
        tmp_path / "disk",
        """
        import os, subprocess
        for name in (NAME, "gone/main"):
            store.create_study(StudyRecord(name, name.split("/")[0], {}, 1.0, "0.1.0"))
            with store.writer(name) as writer:
                writer.write_trial(trial(0))
        os.unlink(store.study_folder("gone/main") / "journal.jsonl")
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        assert [s.name for s in store.studies()] == ["gone/main", NAME]
        assert len(store.trials(NAME)) == len(store.trials("gone/main")) == 1
        assert store.verify() == []
        for act in (
            lambda: store.writer(NAME),
            lambda: store.create_study(StudyRecord("new/main", "new", {}, 1.0, "0.1.0")),
        ):
            try:
                act()
            except StoreError as error:
                assert str(store.home) in str(error) and "LOCALHPO_HOME" in error.hint, error.hint
            else:
                raise AssertionError
        """,
        options="size=32m",
    )
