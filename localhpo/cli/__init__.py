"""The command line. `main` is the one place where an error becomes an exit.

One file per command; each imports click alone at its top, and whatever it needs in the
function that needs it, so that `localhpo --help` loads nothing else. Results go to standard
output, progress and errors to standard error.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

import click

import localhpo
from localhpo.cli._help import Group
from localhpo.errors import LocalHPOError

COMMANDS = (
    "init", "run", "watch", "trials", "report", "enqueue", "experience", "import", "finetune",
    "tasks", "models", "bench", "doctor",
)  # fmt: skip
"""In the order in which a user meets them; each is `command` of the module of its name."""

INTERRUPTED = 130


class LazyGroup(Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        """Return the names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click calls it so
        cmd_name: str,
    ) -> click.Command | None:
        """Return a command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        name = "import_" if cmd_name == "import" else cmd_name  # which no module can be called
        module: Any = importlib.import_module(f"localhpo.cli.{name}")
        command: click.Command = module.command
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=(
        "localhpo run breast-cancer-xgboost    # a ready task, as a first look",
        "localhpo init train.py                # writes a task.toml for a script of yours",
        "localhpo run task.toml                # tunes it; run it again to continue",
    ),
)
@click.version_option(localhpo.__version__, prog_name="localhpo")
def cli() -> None:
    """Tune the hyperparameters of a training script on this machine, without a network.

    Everything is kept in ./.localhpo, or in the folder that LOCALHPO_HOME names.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    _never_fail_on_characters()
    try:
        code = cli.main(args=arguments, prog_name="localhpo", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return INTERRUPTED
    except LocalHPOError as error:
        return _failed(error)
    except Exception as error:  # noqa: BLE001 - whatever is left is a bug, and is said to be one
        return _crashed(error)
    return code if isinstance(code, int) else 0


def script() -> NoReturn:
    """Be the process: run the command line and end, whatever a thread is still at.

    A model that thinks in its thread would outlive the interpreter's end, and Python ends such
    a thread by unwinding it: through native code that allows no such thing, so the process
    would abort instead of telling its exit code.
    """
    code = main()
    if threading.active_count() > 1:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _never_fail_on_characters() -> None:
    """Let a terminal without Unicode show question marks, rather than end a study."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _failed(error: LocalHPOError) -> int:
    """Say what went wrong and what to do."""
    _say(f"{click.style('error:', fg='red', bold=True)} {error}")
    if error.hint:
        _say(f"{click.style('hint:', fg='cyan')} {error.hint}")
    return error.exit_code


def _crashed(error: Exception) -> int:
    """Say that this is a bug, briefly; the traceback is for those who ask."""
    if os.environ.get("LOCALHPO_DEBUG"):
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    _say(f"{click.style('unexpected error:', fg='red', bold=True)} {type(error).__name__}: {error}")
    _say(f"{click.style('hint:', fg='cyan')} set LOCALHPO_DEBUG=1 to see where it comes from")
    return 1


def _say(message: str) -> None:
    click.echo(message, err=True)
