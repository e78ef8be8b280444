import json
import subprocess
import sys

import click
import pytest

from localhpo import __version__
from localhpo.cli import COMMANDS, cli, main
from localhpo.errors import LocalHPOError, NoGoodTrialError, StudyInterruptedError, TaskError

HEAVY = {
    "torch", "transformers", "optuna", "duckdb", "jinja2", "rich", "numpy", "scipy", "sklearn",
    "xgboost", "llguidance", "psutil", "httpx",
}  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["models", "--help"]]
)
def test_help_loads_click_alone(arguments):
    code = (
        "import sys; from localhpo.cli import main; main(sys.argv[1:]);"
        "print('loaded', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split()[1:])
    assert "click" in loaded
    assert not loaded & HEAVY


def test_every_command_is_listed_with_a_help_and_an_example(capsys):
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in listed
        command = cli.get_command(click.Context(cli), name)
        assert command.examples
        assert "..." not in command.get_short_help_str(60)


def test_every_option_has_a_help():
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        for parameter in command.params:
            assert isinstance(parameter, click.Argument) or parameter.help, (name, parameter.name)


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nonsense"], ["run"], ["trials", "--sort", "age"]])
def test_wrong_usage_is_2(arguments, capsys):
    assert main(arguments) == 2
    assert "Usage: localhpo" in capsys.readouterr().err


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes `localhpo tasks` raise."""

    def make(error: BaseException) -> None:
        @click.command("tasks")
        def command():
            raise error

        monkeypatch.setattr("localhpo.cli.tasks.command", command)

    return make


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LocalHPOError("it broke", hint="mend it"), 1),
        (TaskError("it broke", hint="mend it"), 2),
        (NoGoodTrialError("it broke", hint="mend it"), 3),
        (StudyInterruptedError("it broke", hint="mend it"), 130),
    ],
)
def test_an_error_becomes_its_exit_code_message_and_hint(failing, capsys, error, code):
    failing(error)
    assert main(["tasks"]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "error: it broke\nhint: mend it\n"


def test_ctrl_c_is_130(failing, capsys):
    failing(KeyboardInterrupt())
    assert main(["tasks"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_bug_is_reported_without_its_traceback(failing, capsys, monkeypatch):
    failing(ZeroDivisionError("by zero"))
    assert main(["tasks"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("unexpected error: ZeroDivisionError: by zero\n")
    assert "LOCALHPO_DEBUG=1" in told
    monkeypatch.setenv("LOCALHPO_DEBUG", "1")
    assert main(["tasks"]) == 1
    assert "Traceback" in capsys.readouterr().err


def localhpo(*arguments, **more):
    return [sys.executable, "-m", "localhpo", *arguments]


def test_a_closed_pipe_is_no_error(tmp_path):
    shell = f"{sys.executable} -m localhpo doctor --json | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout == "{\n"
    assert done.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_is_no_error(tmp_path, encoding, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    (tmp_path / "train.py").write_text(
        "import argparse\nargparse.ArgumentParser().add_argument('--größe', action='store_true')\n"
    )
    done = subprocess.run(localhpo("init", "train.py"), capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_json_is_all_of_standard_output(capsys):
    assert main(["doctor", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["checks"]


def test_a_command_under_its_old_name_still_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["similar", "--help"]) == 0
    today = capsys.readouterr().out
    assert main(["experience", "--help"]) == 0
    assert capsys.readouterr().out.split(maxsplit=3)[3] == today.split(maxsplit=3)[3]
