"""What every ready task keeps to, whoever wrote it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from localhpo import tasks
from localhpo.cli import main
from localhpo.cli.init.argparse_reader import read_script
from localhpo.executor import check_command
from localhpo.task import Task, load_task, parse_task, to_table

TASKS = [load_task(tasks.find(name)) for name in tasks.available()]
WITH_DATA = [task for task in TASKS if task.data is not None]
SECTIONS_OF_DATA = ("folder", "files", "source", "license")


@pytest.fixture(params=TASKS, ids=lambda task: task.name)
def task(request: pytest.FixtureRequest) -> Task:
    found: Task = request.param
    return found


@pytest.fixture(params=WITH_DATA, ids=lambda task: task.name)
def wanting(request: pytest.FixtureRequest) -> Task:
    found: Task = request.param
    return found


def test_it_is_named_as_its_folder_and_told(task: Task) -> None:
    assert task.name == task.folder.name
    assert len(task.background) > 400
    assert task.metric in task.background
    assert all(parameter.help for parameter in task.space)
    assert parse_task(to_table(task), folder=task.folder, source=task.source) == task


def test_its_command_takes_every_hyperparameter(task: Task) -> None:
    check_command(task.command, task.space.names)
    options = {
        option.name: option
        for path in (task.folder / "train.py", *shared_modules(task))
        for option in read_script(path.read_text(), str(path)).options
    }
    for parameter in task.space:
        option = options[parameter.name]
        assert option.appendable
        assert parameter.canonical(option.default) == option.default, "the default is in the space"
    assert "seed" in options
    if task.data is not None:
        assert {"data", "small"} <= options.keys()


def shared_modules(task: Task) -> list[Path]:
    """Return the modules of the package that read the options for the script."""
    script = (task.folder / "train.py").read_text()
    names = re.findall(r"from localhpo.tasks import (\w+)", script)
    paths = [task.folder.parent / f"{name}.py" for name in names]
    return [path for path in paths if "add_argument" in path.read_text()]


def test_momentum_is_for_sgd_alone(task: Task) -> None:
    if "momentum" in task.space.names:
        assert task.space.to_table()["momentum"]["when"] == {"optimizer": ["sgd"]}


def test_it_says_what_it_wants_before_the_first_trial(
    wanting: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    assert wanting.data is not None
    assert main(["run", wanting.name, "--data", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    for name, what in wanting.data.files.items():
        assert f"{name} ({what})" in said
    assert wanting.data.source in said
    assert wanting.data.license in said
    assert f"DIR/{wanting.data.folder[0]}" in said
    assert not home.exists(), "no study was begun"
