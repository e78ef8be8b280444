"""Errors for bad input on the command line, end to end.

Each error says what must hold, where, and what to do, has the exit code of its class, and leaves
nothing in the store.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from localhpo.assets import folder
from localhpo.cli import main
from localhpo.store import Store

HEAD = """
[task]
name = "t"
command = ["python", "train.py"]
metric = "loss"
direction = "minimize"
"""
SPACE = '[space]\nx = { type = "float", low = 0.0, high = 1.0 }\n'
REST = '[creator]\nname = "random"\n[budget]\ntrials = 2\n'
REPORT = "import localhpo\nlocalhpo.report(loss=1.0)\n"

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task that runs."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


def write(
    project: Path,
    *,
    head: str = HEAD,
    space: str = SPACE,
    rest: str = REST,
    script: str = REPORT,
) -> None:
    (project / "task.toml").write_text(head + space + rest, encoding="utf-8")
    (project / "train.py").write_text(script, encoding="utf-8")


def run(*options: str) -> int:
    return main(["run", "task.toml", "--quiet", *options])


def states(home: Path) -> list[str]:
    return [trial.state.value for trial in Store(home).trials("t/main")]


def parameters(*lines: str) -> dict[str, str]:
    return {"space": "[space]\n" + "\n".join(lines) + "\n"}


def goals(text: str) -> dict[str, str]:
    """Return a task file whose objectives are the given tables."""
    head = HEAD.replace('metric = "loss"\ndirection = "minimize"\n', "")
    return {"head": head, "rest": f"{REST}{text}\n"}


def command(*arguments: str) -> dict[str, str]:
    return {"head": HEAD.replace('["python", "train.py"]', str(list(arguments)))}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rest": "[budget]\ntrails = 3"}, ["task.toml [budget]", "'trails'", "mean 'trials'"]),
        (
            parameters('x = { type = "float", lo = 0, high = 1 }'),
            ["task.toml [space] x", '"lo"', "did you mean 'low'?"],
        ),
        (
            parameters('x = { type = "float", low = 3, high = 1 }'),
            ["task.toml [space] x", "low must not be above high", "low = 3 and high = 1"],
        ),
        (
            parameters('x = { type = "float", low = 0, high = 1, log = true }'),
            ["task.toml [space] x", "above 0 where log = true", "got 0", "remove log"],
        ),
        (
            parameters('x = { type = "float", low = 0, high = 1, default = 2 }'),
            ["task.toml [space] x", "default must be", "from 0 to 1", "got 2"],
        ),
        (
            parameters('x = { type = "int", low = 0, high = 1, when = { boster = ["a"] } }'),
            ["task.toml [space] x", '"boster"', "not a parameter of the space"],
        ),
        (
            parameters(
                "a = { type = 'int', low = 0, high = 1, when = { b = [1] } }",
                "b = { type = 'int', low = 0, high = 1, when = { a = [1] } }",
            ),
            ["task.toml [space] a", "a needs b needs a", "remove one of these conditions"],
        ),
        (
            command("no-such-program"),
            ["task.toml [task] command", "'no-such-program'", "PATH"],
        ),
        (command("./run.sh"), ["task.toml [task] command", "'./run.sh'", "there is no"]),
        (
            command("python", "tain.py"),
            ["task.toml [task] command", "'tain.py'", "folder of the task file"],
        ),
        (
            command("python", "train.py", "{y}"),
            ["task.toml [task] command", "{y}", "neither a parameter nor"],
        ),
        ({"rest": REST + "[resources]\ncpus = 100000"}, ["task.toml [resources] cpus"]),
        (
            {"rest": REST + '[[objective]]\nname = "f1"\ndirection = "maximize"'},
            [
                "objectives must be given in one form",
                "[task] metric and direction",
                "delete metric",
            ],
        ),
        (
            goals('[[objective]]\nname = "f1"\ndirecton = "maximize"'),
            ["task.toml [[objective]] 1", "'directon'", "mean 'direction'"],
        ),
        (
            goals('[[objective]]\nname = "f1"\ndirection = "up"'),
            ["task.toml [[objective]] 1 direction", "minimize", "maximize", "'up'"],
        ),
        (
            goals(2 * '[[objective]]\nname = "f1"\ndirection = "maximize"\n'),
            ["task.toml [[objective]]", "each name must occur once", "'f1' twice"],
        ),
        (
            {"rest": REST + '[[constraint]]\nname = "size"\nmin = 3.0\nmax = 1.0'},
            ["task.toml [[constraint]] 1", "min <= max must hold", "min = 3, max = 1"],
        ),
        (
            {"rest": REST + '[[constraint]]\nname = "size"\nmaxx = 1.0'},
            ["task.toml [[constraint]] 1", "'maxx'", "mean 'max'"],
        ),
        (
            {"rest": REST + '[[constraint]]\nname = "energy_j"\nmax = 1.0'},
            ["task.toml [[constraint]] energy_j", "trials must hold a GPU", "[resources] gpus"],
        ),
        (
            {"rest": REST + '[[constraint]]\nname = "size"'},
            ["task.toml [[constraint]] 1", "must bound 'size' by min, max or both", "max = 200.0"],
        ),
        (
            {"rest": REST + '[[constraint]]\nname = "size"\nmax = "large"'},
            ["task.toml [[constraint]] 1 max", "a finite number", "'large'"],
        ),
    ],
)
def test_an_invalid_task_is_refused(
    project: Path, home: Path, capsys: Captured, change: dict[str, str], says: list[str]
) -> None:
    write(project, **change)
    assert run() == 2
    told = capsys.readouterr().err
    for part in says:
        assert part in told
    assert not home.exists()


@pytest.mark.parametrize(
    ("script", "cause", "says"),
    [
        ("pass", "nothing reported", "did not report loss; how to: `from localhpo import report`"),
        ("import localhpo\nlocalhpo.report(los=1)", "nothing reported", "did you mean 'los'?"),
        (
            "import localhpo\nlocalhpo.report(loss=float('nan'))",
            "non-finite metric",
            "last loss is nan",
        ),
        (
            "import os, sys\nsys.stdout.buffer.write(os.urandom(100_000))\n"
            "open(os.environ['LOCALHPO_METRICS'], 'wb').write(b'\\xff{{\\n[1]\\n')",
            "nothing reported",
            "2 of its lines could not be read",
        ),
    ],
)
def test_a_script_without_usable_reports_fails(
    project: Path, home: Path, capsys: Captured, script: str, cause: str, says: str
) -> None:
    write(project, script=script)
    assert run() == 3
    shown = capsys.readouterr()
    assert says in shown.out
    assert "localhpo trials t/main --failed" in shown.err
    failures = [trial.failure for trial in Store(home).trials("t/main")]
    assert [failure and failure.cause.value for failure in failures] == [cause] * 2


OBJECTIVES = """[[objective]]
name = "loss"
direction = "minimize"
[[objective]]
name = "latency"
direction = "minimize"
"""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (goals(OBJECTIVES), ["did not report latency", "it reported loss"]),
        (
            {"rest": REST + '[[constraint]]\nname = "los"\nmax = 1.0\n'},
            ["did not report los", "it reported loss"],
        ),
    ],
    ids=["an objective", "a constraint on an unknown name"],
)
def test_a_trial_without_a_value_for_a_goal_fails_with_its_name(
    project: Path, home: Path, capsys: Captured, change: dict[str, str], says: list[str]
) -> None:
    write(project, **change)
    assert run() == 3
    shown = capsys.readouterr()
    for part in says:
        assert part in shown.out
    assert "localhpo trials t/main --failed" in shown.err


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("import time\ntime.sleep(600)", "timeout"),
        ("while True: print('loss is 1\\n' * 100_000)", "timeout"),
        pytest.param(
            "import os\nfile = open(os.environ['LOCALHPO_METRICS'], 'a')\n"
            "while True: file.write('{\"loss\": 1}\\n' * 100_000)",
            "timeout",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["silent", "printing", "reporting"],
)
def test_a_script_that_never_ends_is_ended(
    project: Path, home: Path, script: str, cause: str
) -> None:
    rest = REST.replace("trials = 2", "trials = 1\ntimeout_s = 1\ngrace_s = 0.2")
    write(project, script=script, rest=rest)
    assert run() == 3
    (trial,) = Store(home).trials("t/main")
    assert trial.failure is not None
    assert trial.failure.cause.value == cause


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda model: (model / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda model: (model / "tokenizer.json").write_text("{}"), "sha256 must be"),
        (shutil.rmtree, "no model"),
    ],
    ids=["missing file", "wrong hash", "no folder"],
)
def test_a_damaged_model_is_refused(
    project: Path, home: Path, capsys: Captured, damage: object, says: str
) -> None:
    model = project / "model"
    shutil.copytree(folder("models") / "sprout", model)
    damage(model)  # type: ignore[operator]
    code = run("--creator", "agent", "--model", str(model))
    told = capsys.readouterr().err
    assert code == (1 if model.exists() else 2)
    assert says in told
    assert str(model) in told
    assert not home.exists()


def test_a_database_of_a_newer_version_is_left_alone(
    project: Path, home: Path, capsys: Captured
) -> None:
    import duckdb

    assert run() == 0
    database = home / "store.duckdb"
    with duckdb.connect(str(database)) as connection:
        connection.execute("INSERT INTO migrations VALUES (99, 'm099', '9.9.0', now())")
    before = database.read_bytes()
    write(project, head=HEAD.replace('"t"', '"other"'))
    for again in (["run", "task.toml"], ["trials"], ["run", "task.toml", "--study", "two"]):
        assert main(again) == 1
        told = capsys.readouterr().err
        assert f"{database} has schema 99, written by LocalHPO 9.9.0" in told
        assert "update LocalHPO" in told
    assert database.read_bytes() == before
    assert not list(home.glob("studies/other/*/trials"))


def test_a_study_continues_with_its_own_settings_only(
    project: Path, home: Path, capsys: Captured
) -> None:
    assert run() == 0
    write(project, **parameters("x = { type = 'float', low = 0.0, high = 2.0 }"))
    assert run("--trials", "4") == 2
    told = capsys.readouterr().err
    assert "space 'x' was" in told
    assert "--study NEW" in told
    assert states(home) == ["complete"] * 2


def test_a_study_starts_while_a_shell_uses_the_database(project: Path, home: Path) -> None:
    assert run() == 0
    code = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home / "store.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        assert run("--study", "two") == 0
        assert main(["trials", "t/two"]) == 0
        shell.communicate(b"\n")
    assert len(Store(home).trials("t/two")) == 2


def test_a_second_run_of_a_study_is_refused(project: Path, home: Path, capsys: Captured) -> None:
    write(project, script="import pathlib, time\npathlib.Path('here').touch()\ntime.sleep(600)")
    first = subprocess.Popen(
        [sys.executable, "-m", "localhpo", "run", "task.toml", "--quiet"],
        stderr=subprocess.PIPE,
    )
    try:
        while not (project / "here").exists():
            assert first.poll() is None
        assert run() == 1
        told = capsys.readouterr().err
        assert f"process {first.pid}" in told
        assert "--study NEW" in told
    finally:
        first.terminate()
        first.communicate(timeout=30)
    assert first.returncode == 130
    assert states(home) == ["interrupted"]


def user_namespaces_work() -> bool:
    unshare = shutil.which("unshare")
    return bool(unshare) and subprocess.run([str(unshare), "-rm", "true"]).returncode == 0


@pytest.mark.skipif(not user_namespaces_work(), reason="user namespaces are not allowed here")
def test_the_error_of_a_full_disk_names_the_disk(home: Path) -> None:
    home.mkdir()
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && shift && exec "$@"'
    full = ["unshare", "-rm", "sh", "-c", script, "sh", str(home)]
    done = subprocess.run(
        [*full, sys.executable, "-m", "localhpo", "run", "task.toml", "--quiet"],
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    assert done.returncode == 1
    assert str(home) in done.stderr
    assert "No space left on device" in done.stderr
    assert "hint: free space on that disk" in done.stderr
