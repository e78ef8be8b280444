"""`localhpo init`: write a task file for a script."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from localhpo.cli.command import Command

if TYPE_CHECKING:
    from localhpo.cli.init.argparse_reader import Script
    from localhpo.cli.init.task_writer import TaskFilePlan


@click.command(
    "init",
    cls=Command,
    examples=(
        "localhpo init train.py",
        "localhpo init --output template.toml",
    ),
)
@click.argument("script", required=False, type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    default="task.toml",
    show_default=True,
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(script: Path | None, output: Path, force: bool) -> None:
    """Write a commented task.toml for a script that uses argparse.

    SCRIPT is read, not run. Its options become parameters with proposed ranges, derived from their
    names, types, choices and defaults. Check the ranges before you run. Without a script a template
    is written.
    """
    from localhpo.cli.init import task_writer

    _refuse_to_overwrite(output, force)
    plan = _plan(script, output)
    _save(output, task_writer.write(plan))
    _print_result(plan, output)


def _refuse_to_overwrite(output: Path, force: bool) -> None:
    from localhpo.errors import InputError

    if output.exists() and not force:
        raise InputError(
            f"{output} exists already",
            hint="--force overwrites it; --output writes to another file",
        )


def _plan(script: Path | None, output: Path) -> TaskFilePlan:
    import os

    from localhpo.cli.init import task_writer

    if script is None:
        return task_writer.TaskFilePlan(script="", name="my-task")
    read = _read(script)
    path = os.path.relpath(script, output.parent)
    return task_writer.plan(read, path, task_writer.task_name(script))


def _read(script: Path) -> Script:
    import tokenize

    from localhpo.cli.init.argparse_reader import read_script
    from localhpo.errors import InputError

    if not script.is_file():
        raise InputError(
            f"{script}: no such script", hint="give the path of the script that trains your model"
        )
    try:
        with tokenize.open(script) as stream:  # in the encoding that the script declares
            source = stream.read()
    except (OSError, UnicodeDecodeError, SyntaxError) as exc:
        raise InputError(f"{script}: cannot be read: {exc}") from exc
    return read_script(source, str(script))


def _save(output: Path, text: str) -> None:
    from localhpo.errors import InputError

    try:
        output.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise InputError(f"{output}: cannot be written: {exc.strerror}") from exc


def _print_result(plan: TaskFilePlan, output: Path) -> None:
    from localhpo.analysis.formatting import count

    click.echo(f"wrote {output} with {count(len(plan.tuned), 'parameter')}")
    for proposed in plan.left_out:
        click.echo(f"  not tuned: {proposed.option.flag or proposed.option.name} ({proposed.why})")
    for text in plan.unread:
        click.echo(f"  could not be read: {text}")
    if plan.script and not plan.proposed:
        click.echo(f"  no options could be read from {plan.script}: the parameters are examples")
    if plan.to_fill_in:
        names = ", ".join(option.name for option in plan.to_fill_in)
        click.echo(f"  fill in `command`: the script requires {names}")
    if not plan.metrics:
        click.echo(
            "  fill in `metric`: no call of report(...) was found; the file shows how to add one"
        )
    click.echo(f"Check the ranges, describe the task in `background`, then: localhpo run {output}")
