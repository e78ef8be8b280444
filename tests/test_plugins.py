"""Plug-ins: packages with entry points for creators, backends and pruners."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from manual import DOCS, read_blocks

from localhpo.errors import InputError, PluginError, TaskError
from localhpo.plugins import PluginWarning, Registry
from localhpo.study import Study
from localhpo.task import CreatorSettings, PrunerSettings, Task
from localhpo.trial import State

CREATOR = '''
"""Walks down from the top of the ranges; every reason is what the model says."""

import json
from localhpo.llm.protocol import AnswerConstraint, GenerationRequest, Message
from localhpo.creator.registry import open_task_backend
from localhpo.trial import Origin, Proposal


class Ladder:
    name = "ladder"

    def __init__(self, task, backend):
        self.task = task
        self.backend = backend

    def propose(self, history, n):
        depth = 9 - history.next_number
        constraint = AnswerConstraint("start: /.+/", {})
        request = GenerationRequest([Message("user", "why?")], constraint)
        (answer,) = self.backend.generate(request)
        config = self.task.space.canonical({"depth": depth})
        return [Proposal(config, Origin(engine="ladder"), json.loads(answer.text)["why"])]

    def close(self):
        self.backend.close()


def open_creator(task, placer):
    return Ladder(task, open_task_backend(task, placer))
'''
BACKEND = """
from localhpo.llm.scripted import ScriptedBackend


def open_backend(model):
    return ScriptedBackend(lambda messages, constraint, seed: '{"why":"' + model + '"}')
"""
PRUNER = """
class StopAtOnce:
    def __init__(self, task):
        self.metric = task.metric

    def __call__(self, trial, trials):
        return f"its {self.metric} was reported" if trial.number == 1 else None
"""
ENTRY_POINTS = """
[localhpo.creators]
ladder = ladder_plugin.creator:open_creator
broken = ladder_plugin.missing:nothing
tpe = ladder_plugin.creator:open_creator

[localhpo.backends]
echo = ladder_plugin.backend:open_backend

[localhpo.pruners]
stop-at-once = ladder_plugin.pruner:StopAtOnce
"""
FAULTY = """
import sys


class Faulty:
    name = "faulty"
    backend = None

    def propose(self, history, n):
        raise KeyError("no trials")

    def close(self):
        pass


class Exits(Faulty):
    def propose(self, history, n):
        sys.exit("enough")


class Unclosable:
    name = "unclosable"
    backend = None

    def propose(self, history, n):
        return []


def open_nothing():
    return {}["nothing"]


class FaultyPruner:
    def __call__(self, trial, trials):
        return trial.best


class TruePruner:
    def __call__(self, trial, trials):
        return True


class UnmadePruner:
    def __init__(self, task):
        self.patience = task.pruner.patience
"""
FAULTY_ENTRY_POINTS = """
[localhpo.creators]
faulty = faulty:Faulty
exits = faulty:Exits
unclosable = faulty:Unclosable
unmade = faulty:open_nothing
exits-at-import = faulty_exit:open_creator

[localhpo.pruners]
faulty = faulty:FaultyPruner
true = faulty:TruePruner
unmade = faulty:UnmadePruner
"""
TRAIN = """
import sys
import time
from localhpo.reporter import report

is_pruned = sys.argv[2] == "8"
for step in range(1000 if is_pruned else 2):
    if report(step=step, loss=float(sys.argv[2])):
        break
    time.sleep(0.01)
"""
TASK = """
[task]
name = "plugged"
command = ["{python}", "train.py"]
metric = "loss"
direction = "minimize"

[space]
depth = {{ type = "int", low = 1, high = 9 }}

[budget]
trials = 3

[creator]
name = "ladder"
backend = "echo"
model = "because"

[pruner]
name = "stop-at-once"
"""


CONTRACT = """
from localhpo.testing import CreatorContract, PrunerContract


class TestStopAtOnce(PrunerContract):
    name = "stop-at-once"


class TestPatience(PrunerContract):
    name = "patience"


class TestSweep(CreatorContract):
    name = "sweep"
"""
BROKEN_LAW = """
from localhpo.testing import HISTORIES, SPACES, check_proposals, make_history, make_task


def test_a_proposal_is_new():
    history = make_history(make_task(SPACES["plain"]), HISTORIES["few"])
    check_proposals([history.trials[0].proposal], history, frozenset())
"""


@pytest.fixture
def install(tmp_path: Path) -> Path:
    """Install a package with one plug-in of each kind into a folder, and return the folder."""
    site = tmp_path / "site"
    package = site / "ladder_plugin"
    package.mkdir(parents=True)
    for name, text in {"creator": CREATOR, "backend": BACKEND, "pruner": PRUNER}.items():
        (package / f"{name}.py").write_text(text)
    (package / "__init__.py").touch()
    info = site / "ladder_plugin-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ladder-plugin\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


@pytest.fixture
def localhpo(install: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "task.toml").write_text(TASK.format(python=sys.executable))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "localhpo", *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
            env={**os.environ, "PYTHONPATH": str(install), "LOCALHPO_HOME": "store"},
        )  # fmt: skip

    return run


def test_a_study_runs_with_plug_ins_beside_broken_ones(
    localhpo: Callable[..., Any], tmp_path: Path
) -> None:
    done = localhpo("run", "task.toml", "--creator", "ladder", "--json")
    assert done.returncode == 0, done.stderr
    trials = Study.find(home=tmp_path / "store").trials
    assert [trial.config["depth"] for trial in trials] == [9, 8, 7]
    assert {(str(t.proposal.origin), t.proposal.rationale) for t in trials} == {
        ("ladder", "because")
    }
    assert [trial.state for trial in trials] == [State.COMPLETE, State.PRUNED, State.COMPLETE]
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 2, done.stderr
    assert any("creator 'broken' of ladder-plugin 1.2 cannot be imported" in w for w in warnings)
    assert any("'tpe' of ladder-plugin 1.2 is ignored" in w for w in warnings)


def test_a_broken_plug_in_is_an_error_by_name_only(
    localhpo: Callable[..., Any], tmp_path: Path
) -> None:
    done = localhpo("run", "task.toml", "--creator", "broken")
    assert done.returncode == 1
    assert not (tmp_path / "store").exists()
    assert "No module named 'ladder_plugin.missing'" in done.stderr
    assert localhpo("--help").returncode == 0
    assert "ladder" in localhpo("run", "--help").stdout
    found = json.loads(localhpo("doctor", "--json").stdout)["checks"]
    about = {
        (c["state"], c["finding"].split(" cannot")[0]) for c in found if c["name"] == "plug-ins"
    }
    assert about == {
        ("note", "the creator 'broken' of ladder-plugin 1.2"),
        ("ok", "creators: ladder"),
        ("ok", "backends: echo"),
        ("ok", "pruners: stop-at-once"),
    }


@pytest.fixture
def faulty(install: Path) -> None:
    """Install a package whose plug-ins fail when they are used, and one that cannot be imported."""
    (install / "faulty.py").write_text(FAULTY)
    (install / "faulty_exit.py").write_text("import sys\nsys.exit(7)\n")
    info = install / "faulty-3.4.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 3.4\n")
    (info / "entry_points.txt").write_text(FAULTY_ENTRY_POINTS)


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("creator", "message"),
    [
        ("faulty", "failed: KeyError: 'no trials'"),
        ("exits", "failed: SystemExit: enough"),
        ("unclosable", "failed: AttributeError: 'Unclosable' object has no attribute 'close'"),
        ("unmade", "failed: KeyError: 'nothing'"),
        ("exits-at-import", "cannot be imported: SystemExit: 7"),
    ],
)
def test_a_creator_that_fails_is_an_error_that_names_the_plug_in(
    localhpo: Callable[..., Any], creator: str, message: str
) -> None:
    done = localhpo("run", "task.toml", "--creator", creator, "--quiet")
    assert done.returncode == 1, done.stderr
    assert f"error: the creator '{creator}' of faulty 3.4 {message}" in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("pruner", "message"),
    [
        ("faulty", "failed: AttributeError: 'Trial' object has no attribute 'best'"),
        ("true", "failed: TypeError: it must return a reason as text, or None; got true"),
    ],
)
def test_a_pruner_that_fails_is_warned_of_once(
    localhpo: Callable[..., Any], tmp_path: Path, pruner: str, message: str
) -> None:
    task = (tmp_path / "task.toml").read_text().replace("stop-at-once", pruner)
    (tmp_path / "task.toml").write_text(task.replace("high = 9", "high = 3"))
    done = localhpo("run", "task.toml", "--creator", "random")
    assert done.returncode == 0, done.stderr
    text = f"no trial is pruned from now on: the pruner '{pruner}' of faulty 3.4 {message}"
    assert done.stderr.count(text) == 1, done.stderr
    trials = Study.find(home=tmp_path / "store").trials
    assert [trial.state for trial in trials] == [State.COMPLETE] * 3


@pytest.mark.usefixtures("faulty")
def test_a_pruner_that_cannot_be_made_is_an_error_that_names_it(
    localhpo: Callable[..., Any], tmp_path: Path
) -> None:
    task = (tmp_path / "task.toml").read_text().replace("stop-at-once", "unmade")
    (tmp_path / "task.toml").write_text(task)
    done = localhpo("run", "task.toml", "--creator", "random")
    assert done.returncode == 1
    assert "error: the pruner 'unmade' of faulty 3.4 failed: AttributeError" in done.stderr


def run_pytest(install: Path, folder: Path, test: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(
        'import pytest\n\npytest.register_assert_rewrite("localhpo.testing")\n'
    )
    (folder / "test_mine.py").write_text(test)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"],
        cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(install)},
    )  # fmt: skip


def test_an_author_runs_the_contracts_of_plug_ins_and_those_of_the_manual_hold(
    install: Path, tmp_path: Path
) -> None:
    programs = [block.text for block in read_blocks(DOCS / "architecture.md", "python")]
    (install / "my_package.py").write_text("\n\n".join(programs))
    info = install / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[localhpo.pruners]\npatience = my_package:Patience\n"
        "[localhpo.creators]\nsweep = my_package:Sweep\n"
    )
    done = run_pytest(install, tmp_path, CONTRACT)
    assert done.returncode == 0, done.stdout
    assert "183 passed" in done.stdout


def test_a_law_that_does_not_hold_shows_its_values(install: Path, tmp_path: Path) -> None:
    done = run_pytest(install, tmp_path, BROKEN_LAW)
    assert done.returncode == 1, done.stdout
    assert re.search("AssertionError: assert '[0-9a-f]+' not in {", done.stdout), done.stdout


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], Registry[Any]]:
    """Return a function that makes a registry of two built-in names, with plug-ins."""

    def make(plugins: Mapping[str, str]) -> Registry[Any]:
        points = EntryPoints(EntryPoint(n, v, "localhpo.things") for n, v in plugins.items())
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
        built_in = {"dictionary": "builtins:dict", "range": "builtins:enumerate"}
        return Registry("thing", built_in, ["iterable", "start"])

    return make


def test_names_are_built_in_ones_and_those_of_plug_ins(registry: Callable[..., Any]) -> None:
    things = registry({"broken": "no_such_module:it", "reader": "csv:DictReader"})
    assert things.names == ("dictionary", "range", "reader", "broken")
    assert list(things.make("range", iterable="ab", start=1)) == [(1, "a"), (2, "b")]


def test_only_what_a_plug_in_raises_is_renamed(registry: Callable[..., Any]) -> None:
    things = registry({"reader": "csv:DictReader"})
    message = "'reader' of csv:DictReader failed: TypeError: 3"
    with pytest.raises(PluginError, match=message), things.naming_plugin("reader"):
        raise TypeError(3)
    with pytest.raises(TypeError, match="4"), things.naming_plugin("range"):
        raise TypeError(4)
    with pytest.raises(InputError, match="5"), things.naming_plugin("reader"):
        raise InputError("5")


def test_a_built_in_name_wins(registry: Callable[..., Any]) -> None:
    things = registry({"range": "no_such_module:it"})
    with pytest.warns(PluginWarning, match="'range' of no_such_module:it is ignored"):
        assert things.names == ("dictionary", "range")
    things.check("range")


def test_checking_a_name_warns_of_other_plug_ins_that_are_broken(
    registry: Callable[..., Any],
) -> None:
    things = registry({"broken": "no_such_module:it", "greedy": "difflib:context_diff"})
    with pytest.warns(PluginWarning) as warned:
        things.check("range")
    greedy, broken = (str(warning.message) for warning in warned)
    assert "its parameters must be among iterable, start; got 'a'" in greedy
    assert "'broken' of no_such_module:it cannot be imported: ModuleNotFoundError" in broken
    with pytest.warns(PluginWarning, match="greedy"), pytest.raises(PluginError, match="broken"):
        things.check("broken")


def test_an_unknown_name_is_an_error_with_the_nearest_one(registry: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="a thing must be one of dictionary, range") as caught:
        registry({}).check("rnge")
    assert caught.value.hint == "did you mean 'range'?"


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (
            {"creator": CreatorSettings(name="hybird")},
            r"\[creator\] name: .*got 'hybird'",
            "hybrid",
        ),
        ({"creator": CreatorSettings(backend="vlm")}, r"\[creator\] backend: .*got 'vlm'", "vllm"),
        ({"pruner": PrunerSettings(name="medan")}, r"\[pruner\] name: .*got 'medan'", "median"),
    ],
)
def test_a_study_checks_names_before_it_writes(
    make_task: Callable[..., Task], home: Path, changes: Any, message: str, hint: str
) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        Study.open(replace(make_task(), **changes), home=home)
    assert caught.value.hint == f"did you mean {hint!r}?"
    assert not home.exists()
