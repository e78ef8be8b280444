"""Every example in a help works as it stands."""

import json
import shlex
import subprocess
import sys

import click
import pytest
from tiny_model import make_model

from localhpo.cli import cli, main
from localhpo.study import Study
from localhpo.task import load_task

TRAIN = """
import argparse
from localhpo.reporter import report
p = argparse.ArgumentParser()
p.add_argument("--lr", type=float, default=0.1)
p.add_argument("--batch-size", type=int, default=64)
a = p.parse_args()
report(val_loss=(a.lr - 0.03) ** 2 + a.batch_size)
"""


def commands(command, context):
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), context)


def examples():
    found = [line for each in commands(cli, click.Context(cli)) for line in each.examples]
    for line in dict.fromkeys(found):
        slow = [pytest.mark.slow] if "breast-cancer" in line else []
        yield pytest.param(line, marks=slow, id=line)


def make_project(folder):
    """Make a folder as the examples have it: a script, a task file, a configuration."""
    (folder / "train.py").write_text(TRAIN)
    (folder / "config.json").write_text(json.dumps({"lr": 0.01, "batch-size": 32}))
    command = [sys.executable, "-m", "localhpo", "init", "train.py"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    task = folder / "task.toml"
    task.write_text(task.read_text().replace("trials = 20", "trials = 2"))


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A project with one study, to read from."""
    folder = tmp_path_factory.mktemp("studied")
    make_project(folder)
    study = Study.open(load_task(folder / "task.toml"), home=folder / "home")
    for value in (0.5, 0.25):
        study.add_trial({"lr": value / 10, "batch-size": 64}, value)
    study.add_trial({"lr": 0.1, "batch-size": 64}, failure="it was too much")
    return folder


def test_examples_are_shown_as_they_are(capsys):
    for command in commands(cli, click.Context(cli)):
        assert command.examples, command.name
        shown = command.get_help(click.Context(command))
        assert all(f"\n  {line}\n" in f"{shown}\n" for line in command.examples)


@pytest.mark.parametrize("example", list(examples()))
def test_an_example_works(example, request, tmp_path, monkeypatch, capsys):
    verb = example.split()[1]
    if "my-model" in example:
        make_model(tmp_path / "my-model")
        monkeypatch.chdir(tmp_path)
    elif verb in ("run", "enqueue", "import"):
        make_project(tmp_path)
        (tmp_path / "trials.csv").write_text("lr,batch-size,val_loss\n0.1,32,0.5\n0.2,64,0.4\n")
        monkeypatch.chdir(tmp_path)
    elif verb == "init":
        (tmp_path / "train.py").write_text(TRAIN)
        monkeypatch.chdir(tmp_path)
    else:
        folder = request.getfixturevalue("studied")
        monkeypatch.setenv("LOCALHPO_HOME", str(folder / "home"))
        monkeypatch.chdir(folder)
    assert main(shlex.split(example, comments=True)[1:]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert told
    if "--json" in example:
        json.loads(told)
