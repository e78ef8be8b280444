"""The command line. `main` turns every error into a message and an exit code.

One file per command, in folders by topic, with what it shows beside it. The file of a command
imports only click at its top, and everything else in the functions that need it, so that
`localhpo --help` starts fast. Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import NoReturn, TextIO

import click

import localhpo
from localhpo.cli.command import Group
from localhpo.errors import LocalHPOError
from localhpo.plugins import PluginWarning

COMMANDS = {
    "init": "init.command",
    "run": "study.run",
    "watch": "study.watch",
    "trials": "study.trials",
    "report": "study.report",
    "enqueue": "study.enqueue",
    "similar": "study.similar",
    "import": "study.import_trials",
    "finetune": "models.finetune",
    "tasks": "tasks",
    "models": "models.command",
    "doctor": "doctor.command",
    "docs": "docs",
}
"""Name of a command -> its module in this package, which has it as `command`. `localhpo --help`
lists them in this order."""

RENAMED = {"experience": "similar"}
"""Name of a command in version 0.1.0, which still works -> its name today."""

INTERRUPTED = 130

_python_showwarning = warnings.showwarning


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
        name = RENAMED.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"localhpo.cli.{COMMANDS[name]}").command
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=(
        "localhpo run breast-cancer-xgboost    # tune an example that comes with LocalHPO",
        "localhpo init train.py                # write a task.toml for a script of yours",
        "localhpo run task.toml                # tune it; run it again to continue",
    ),
)
@click.version_option(localhpo.__version__, prog_name="localhpo")
def cli() -> None:
    """Tune the hyperparameters of a training script on this machine, without a network.

    Studies are kept in ./.localhpo, or in the folder that LOCALHPO_HOME names.
    """


def main(
    arguments: Sequence[str] | None = None,
    group: click.Group = cli,
    name: str = "localhpo",
) -> int:
    """Run a group of commands, turn its errors into messages, and return the exit code."""
    _replace_unprintable_characters()
    try:
        code = group.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _print_error("interrupted")
        return INTERRUPTED
    except LocalHPOError as error:
        return _report(error)
    except Exception as error:  # noqa: BLE001 - anything else is a bug, and is reported as one
        return _report_bug(error)
    return code if isinstance(code, int) else 0


def script() -> NoReturn:
    """Run the command line and end the process, even if threads still run.

    A model may still generate in its thread. At exit Python would unwind that thread through
    native code, which aborts the process and loses the exit code.
    """
    warnings.showwarning = _show_warning
    code = main()
    if threading.active_count() > 1:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _replace_unprintable_characters() -> None:
    """Print `?` on a terminal without Unicode, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    """Print a warning of a plug-in in a line, and any other as Python does."""
    if issubclass(category, PluginWarning):
        _print_error(f"{click.style('warning:', fg='yellow', bold=True)} {message}")
    else:
        _python_showwarning(message, category, filename, lineno, file, line)


def _report(error: LocalHPOError) -> int:
    """Print the error and its hint."""
    _print_error(f"{click.style('error:', fg='red', bold=True)} {error}")
    if error.hint:
        _print_error(f"{click.style('hint:', fg='cyan')} {error.hint}")
    return error.exit_code


def _report_bug(error: Exception) -> int:
    """Print an unexpected error in a line; the traceback only with LOCALHPO_DEBUG."""
    if os.environ.get("LOCALHPO_DEBUG"):
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    _print_error(
        f"{click.style('unexpected error:', fg='red', bold=True)} {type(error).__name__}: {error}"
    )
    _print_error(
        f"{click.style('hint:', fg='cyan')} this is a bug in LocalHPO; LOCALHPO_DEBUG=1 shows where"
    )
    return 1


def _print_error(message: str) -> None:
    click.echo(message, err=True)
