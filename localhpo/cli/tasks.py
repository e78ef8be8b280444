"""`localhpo tasks`: the tasks that come with LocalHPO."""

from __future__ import annotations

import click

from localhpo.cli import output
from localhpo.cli.command import Command, Group


@click.group(
    "tasks",
    invoke_without_command=True,
    cls=Group,
    examples=(
        "localhpo tasks",
        "localhpo tasks --json",
        "localhpo tasks show breast-cancer-xgboost",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print the tasks as JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the tasks that come with LocalHPO.

    They are training scripts with a task file; `localhpo run NAME` tunes one. Most need data: the
    list shows which are on this machine, and `localhpo tasks show NAME` which files are needed,
    where to download them, and their license. LOCALHPO_DATA, or `run --data`, names their folder.
    """
    if context.invoked_subcommand is None:
        _list(as_json)


@command.command(
    "show",
    cls=Command,
    examples=(
        "localhpo tasks show breast-cancer-xgboost",
        "localhpo tasks show breast-cancer-xgboost --json",
    ),
)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the task as JSON.")
def show(name: str, as_json: bool) -> None:
    """Show a ready task: its data, what to install, its search space."""
    from localhpo import tasks
    from localhpo.cli.task_views import task_record, task_view
    from localhpo.task import load_task

    task = load_task(tasks.find(name))
    if as_json:
        output.print_json({**task_record(task), "space": task.space.to_table()})
    else:
        output.show(task_view(task))


def _list(as_json: bool) -> None:
    from localhpo import tasks
    from localhpo.cli.task_views import task_record, tasks_table
    from localhpo.task import load_task

    found = [load_task(tasks.find(name)) for name in tasks.available()]
    if as_json:
        output.print_json(
            [{**task_record(task), "parameters": list(task.space.names)} for task in found]
        )
    else:
        output.show(tasks_table(found))
