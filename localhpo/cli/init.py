"""`localhpo init`: a task file for a script."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from localhpo.cli._help import Command

if TYPE_CHECKING:
    from localhpo.cli._argparse_reader import Script
    from localhpo.cli._task_writer import Plan


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
    help="Where to write.",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def command(script: Path | None, output: Path, force: bool) -> None:
    """Write a commented task.toml, from an argparse script.

    SCRIPT is read, not run: its options, their types, choices and defaults become
    parameters with proposed ranges, by the habits of the field. Look at each before you run.
    Without a script a template is written.
    """
    from localhpo.cli import _task_writer

    _refuse_to_overwrite(output, force)
    plan = _plan(script, output)
    _save(output, _task_writer.write(plan))
    _tell(plan, output)


def _refuse_to_overwrite(output: Path, force: bool) -> None:
    from localhpo.errors import InputError

    if output.exists() and not force:
        raise InputError(
            f"{output} is there already", hint="--force writes over it, --output names another"
        )


def _plan(script: Path | None, output: Path) -> Plan:
    import os

    from localhpo.cli import _task_writer

    if script is None:
        return _task_writer.Plan(script="", name="my-task")
    read = _read(script)
    path = os.path.relpath(script, output.parent)
    return _task_writer.plan(read, path, _task_writer.task_name(script))


def _read(script: Path) -> Script:
    import tokenize

    from localhpo.cli._argparse_reader import read
    from localhpo.errors import InputError

    if not script.is_file():
        raise InputError(f"{script}: no such script", hint="name the file that trains your model")
    try:
        with tokenize.open(script) as stream:  # heeds the encoding that a script declares
            source = stream.read()
    except (OSError, UnicodeDecodeError, SyntaxError) as exc:
        raise InputError(f"{script}: cannot be read: {exc}") from exc
    return read(source, str(script))


def _save(output: Path, text: str) -> None:
    from localhpo.errors import InputError

    try:
        output.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise InputError(f"{output}: cannot be written: {exc.strerror}") from exc


def _tell(plan: Plan, output: Path) -> None:
    from localhpo.analysis.wording import count

    click.echo(f"{output} written: {count(len(plan.tuned), 'parameter')}")
    for proposed in plan.left_out:
        click.echo(f"  left out {proposed.option.flag or proposed.option.name}: {proposed.why}")
    for text in plan.unread:
        click.echo(f"  not understood, {text}")
    if plan.script and not plan.proposed:
        click.echo(f"  no options could be read from {plan.script}: the parameters are examples")
    if plan.to_fill_in:
        names = ", ".join(option.name for option in plan.to_fill_in)
        click.echo(f"  fill in `command`: the script needs {names}")
    if not plan.metrics:
        click.echo(
            "  fill in `metric`: no call of report(...) was found; the file says how to report"
        )
    click.echo(f"Look at the ranges, say something in `background`, then: localhpo run {output}")
