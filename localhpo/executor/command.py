"""Builds the argument list of a trial from the task's command and a configuration, without a shell.

Every active parameter is appended as `--name value`, unless a placeholder in the command says
how the configuration gets there: `{name}` a value, `{config}` the path of the JSON file.
`{trial.dir}`, `{trial.number}` and `{seed}` are known too and leave appending on; `{{` and `}}`
are braces. An argument that holds an inactive parameter is dropped, with the flag before it.
"""

from __future__ import annotations

import difflib
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from localhpo.errors import TaskError
from localhpo.trial import Config, Value

KNOWN = ("config", "trial.dir", "trial.number", "seed")
"""Placeholders besides the parameters; a parameter of the same name takes precedence."""

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
# What argparse takes for a value although it starts with a dash (argparse.py,
# _negative_number_matcher). It takes -1e-05 for a flag.
_NEGATIVE_NUMBER = re.compile(r"-\d+|-\d*\.\d+")


def check_command(command: Sequence[str], names: Sequence[str]) -> None:
    """Check a command against the names that it may insert: what is tuned, and what is fixed.

    Raises:
        TaskError: it is empty, or holds a brace or a placeholder that means nothing.
    """
    if not command or not command[0]:
        raise TaskError(
            "[task] command must name a program",
            hint='for example: command = ["python", "train.py"]',
        )
    for argument in command:
        for name in _placeholders(argument):
            if name not in names and name not in KNOWN:
                raise TaskError(
                    f"[task] command: {argument!r} holds {{{name}}}, which is neither a"
                    f" parameter nor one of {', '.join(KNOWN)}",
                    hint=_hint_for(name, [*names, *KNOWN]),
                )
    for name in _placeholders(command[0]):
        if name in names:
            raise TaskError(
                f"[task] command: the program {command[0]!r} must not depend on the parameter"
                f" {name}",
                hint="start a script that chooses the program",
            )


def check_program(command: Sequence[str], folder: Path, search: str | None) -> None:
    """Check that the program of a command is there, and the script that Python is given.

    Args:
        command: as in the task; `check_command` has passed it.
        folder: where it will run.
        search: the folders of programs, as in PATH.

    Raises:
        TaskError: it is not there.
    """
    program, script = command[0], next(iter(command[1:]), "")
    hint = ""
    if program == "python":
        if not script.endswith(".py") or _placeholders(script) or (folder / script).is_file():
            return
        missing, why = script, f"there is no {folder / script}"
        hint = "a path in a command is relative to the folder of the task file, or to [task] cwd"
    elif _placeholders(program):
        return
    elif "/" in program:
        if (folder / program).exists():
            return
        missing, why = program, f"there is no {folder / program}"
    else:
        if shutil.which(program, path=search):
            return
        missing, why = program, "no folder of PATH holds such a program"
        if (folder / program).is_file():
            hint = f'for a program in the folder of the task, write "./{program}"'
    raise TaskError(f"[task] command: {missing!r} cannot be run: {why}", hint=hint)


def build_arguments(
    command: Sequence[str], values: Config, names: Sequence[str], known: Mapping[str, str]
) -> list[str]:
    """Return the argument list of one trial.

    Args:
        command: as in the task.
        values: what is fixed, and the active parameters.
        names: of all parameters, active or not, and of what is fixed.
        known: the values of `KNOWN`.

    Raises:
        TaskError: see `check_command`.
    """
    check_command(command, names)
    texts = {**known, **{name: spell_argument(value) for name, value in values.items()}}
    inactive = {name for name in names if name not in values}
    filled = [_fill(argument, texts) for argument in _active(command, inactive)]
    if filled[0] == "python":
        filled[0] = sys.executable
    asked = {name for argument in command for name in _placeholders(argument)}
    if asked.isdisjoint({*names, "config"}):
        for name, value in values.items():
            filled += _flag(name, spell_argument(value))
    return filled


def spell_argument(value: Value) -> str:
    """Return a value as a script reads it: Python's `repr`, true and false, text as it is.

    Negative numbers have no exponent, for argparse would take one with an exponent for a flag.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value < 0.0:
        return f"{Decimal(repr(value)):f}"
    return value if isinstance(value, str) else repr(value)


def _flag(name: str, value: str) -> list[str]:
    if value.startswith("-") and not _NEGATIVE_NUMBER.fullmatch(value):
        return [f"--{name}={value}"]  # else argparse would take the value for a flag
    return [f"--{name}", value]


def _placeholders(argument: str) -> list[str]:
    names = []
    for piece in _PIECE.finditer(argument):
        if piece[0] in ("{", "}"):
            raise TaskError(
                f"[task] command: the braces of {argument!r} do not match",
                hint="a brace that is meant as such is doubled: {{ or }}",
            )
        if piece[1] is not None:
            names.append(piece[1])
    return names


def _active(command: Iterable[str], inactive: set[str]) -> list[str]:
    kept: list[str] = []
    for argument in command:
        if inactive.isdisjoint(_placeholders(argument)):
            kept.append(argument)
        elif kept and _is_open_flag(kept[-1]):
            kept.pop()
    return kept


def _is_open_flag(argument: str) -> bool:
    """Return whether an argument is a flag that the next one may be the value of."""
    return argument.startswith("-") and argument != "--" and "=" not in argument


def _fill(argument: str, values: Mapping[str, str]) -> str:
    def fill(piece: re.Match[str]) -> str:
        return piece[0][0] if piece[1] is None else values[piece[1]]

    return _PIECE.sub(fill, argument)


def _hint_for(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {{{near[0]}}}? " if near else ""
    return f"{meant}A brace that is meant as such is doubled: {{{{ or }}}}"
