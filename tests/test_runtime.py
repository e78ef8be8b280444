"""Where studies and servers of a user meet, and who of them lives."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from localhpo import runtime
from localhpo.errors import LocalHPOError

NAME = f"localhpo-{os.getuid()}"


def test_the_variable_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_OF_USERS", tmp_path)
    (tmp_path / str(os.getuid())).mkdir()
    assert runtime.folder() == Path(os.environ["XDG_RUNTIME_DIR"]) / NAME


def test_a_job_of_cron_meets_the_studies_of_the_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_OF_USERS", tmp_path)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime.folder() == Path(tempfile.gettempdir()) / NAME
    own = tmp_path / str(os.getuid())
    own.mkdir()
    assert runtime.folder() == own / NAME
    other = os.getuid() + 1
    own.rename(tmp_path / str(other))  # it is not theirs
    monkeypatch.setattr(os, "getuid", lambda: other)
    assert runtime.folder().parent == Path(tempfile.gettempdir())


def test_a_folder_is_private(tmp_path: Path) -> None:
    runtime.make_private(tmp_path / "a" / "b")
    runtime.make_private(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("made", ["open", "link", "file"])
def test_a_folder_that_others_could_use_is_refused(tmp_path: Path, made: str) -> None:
    folder = tmp_path / made
    if made == "open":
        folder.mkdir()
        folder.chmod(0o750)
    elif made == "link":
        (tmp_path / "own").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "own")
    else:
        folder.write_text("")
    with pytest.raises(LocalHPOError) as caught:
        runtime.make_private(folder)
    assert "XDG_RUNTIME_DIR" in caught.value.hint


def test_a_process_keeps_its_start_until_it_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = runtime.process_start(child.pid)
        assert started >= runtime.process_start(os.getpid()) > 0
        assert runtime.process_start(child.pid) == started
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert runtime.process_start(child.pid) == 0  # nobody has asked how it ended
