"""The programs and sessions of the README work, and its numbers are true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from localhpo.llm.models import registry as model_registry

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language; "" for those that name none."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.M | re.S)
    return [text for name, text in fences if name == language]


SCRIPT, *PROGRAMS = blocks("python")
SESSION, FRONT_SESSION = blocks("console")
(GOALS,) = blocks("toml")
TREE = blocks("")[-1]


def commands(session: str) -> list[tuple[str, str]]:
    """Return each command of a session and its output."""
    parts = re.split(r"^\$ (.*)\n", session, flags=re.M)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def shape(line: str) -> str:
    """Return the part of a line that is the same in every run: its first word, if not a number."""
    first = line.split(maxsplit=1)[:1]
    word = first[0] if first else ""
    return "" if re.search(r"\d", word) or not word[:1].isalpha() else word


def replay(session: str, folder: Path) -> None:
    """Run the commands of a session, and compare what they print with what is shown."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LOCALHPO_HOME": str(folder / "home"),
        "COLUMNS": "100",
    }
    for command, shown in commands(session):
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        seen = {shape(line) for line in done.stdout.splitlines()}
        expected = {shape(line) for line in shown.splitlines()}
        assert expected <= seen, command


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder with the script of the README."""
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    return folder


@pytest.mark.slow
def test_the_session_prints_what_is_shown(digits: Path) -> None:
    replay(SESSION, digits)


@pytest.mark.slow
def test_the_session_with_several_objectives_prints_what_is_shown(digits: Path) -> None:
    replay(SESSION[: SESSION.index("$ localhpo run")], digits)
    text = (digits / "task.toml").read_text()
    text = re.sub(r"^metric = .*\ndirection = .*\n", "", text, flags=re.M)
    (digits / "task.toml").write_text(text.replace("\n[space]\n", f"\n{GOALS}\n[space]\n"))
    replay(FRONT_SESSION, digits)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_run(program: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_numbers_are_those_of_the_card() -> None:
    card = model_registry.read_card(model_registry.find_model(model_registry.DEFAULT))
    rows = re.findall(r"^\| `([\w-]+)` \| `([\w+-]+)` \|((?: \d*\.\d+ \|)+)$", README, flags=re.M)
    assert len(rows) > 6
    for suite, creator, cells in rows:
        name = f"{suite}_{creator}".replace("-", "_").replace("+", "_")
        shown = [float(cell) for cell in cells.split("|")[:-1]]
        measured = [card.measured[f"{name}_{trial}"] for trial in (1, 3, 5, 10)]
        assert shown == pytest.approx(measured, abs=0.0006), (suite, creator)


def test_the_tree_names_all_modules() -> None:
    root = Path(__file__).resolve().parent.parent
    inside = ""
    for line in TREE.splitlines():
        name = line.split()[0]
        inside = inside if line.startswith(" ") else (name if name == "localhpo/" else "")
        assert (root / (inside if line.startswith(" ") else "") / name).exists(), name
    shown = {line.split()[0].rstrip("/") for line in TREE.splitlines() if line.startswith("  ")}
    there = {
        path.name
        for path in (root / "localhpo").iterdir()
        if not path.name.startswith("_") and path.name != "py.typed"
    }
    assert shown == there
