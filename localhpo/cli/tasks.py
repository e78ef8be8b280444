"""`localhpo tasks`: the ready tasks."""

from __future__ import annotations

import click

from localhpo.cli._help import Command


@click.command(
    "tasks",
    cls=Command,
    examples=(
        "localhpo tasks",
        "localhpo tasks --json",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print the tasks as JSON.")
def command(as_json: bool) -> None:
    """List the ready tasks.

    They are real training scripts that come with LocalHPO; `localhpo run NAME` tunes one.
    """
    from localhpo import tasks
    from localhpo.cli import _output, _views
    from localhpo.task import load

    found = [load(tasks.find(name)) for name in tasks.available()]
    if as_json:
        _output.print_json(
            [
                {
                    "name": task.name,
                    "metric": task.metric,
                    "direction": task.direction,
                    "parameters": list(task.space.names),
                    "trials": task.budget.trials,
                    "background": task.background.strip(),
                    "path": str(task.source),
                }
                for task in found
            ]
        )
        return
    table = _views.plain_table("task", "metric", "direction", "parameters", right=("parameters",))
    for task in found:
        table.add_row(task.name, task.metric, task.direction, str(len(task.space)))
    _output.show(table)
