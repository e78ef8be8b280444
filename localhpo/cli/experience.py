"""`localhpo experience`: which studies a new one may learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from localhpo.cli._help import Command

if TYPE_CHECKING:
    from localhpo.store import Store
    from localhpo.task import Task


@click.command(
    "experience",
    cls=Command,
    examples=(
        "localhpo experience",
        "localhpo experience task.toml --json",
    ),
)
@click.argument("task", required=False)
@click.option("--exclude", multiple=True, metavar="STUDY", help="Make a study private.")
@click.option("--include", multiple=True, metavar="STUDY", help="Let it count again.")
@click.option("--json", "as_json", is_flag=True, help="Print the studies as JSON.")
def command(
    task: str | None, exclude: tuple[str, ...], include: tuple[str, ...], as_json: bool
) -> None:
    """List which past studies count, and why others do not.

    With TASK (a task file, a folder with a task.toml, or a ready task's name) also how similar
    each is to it: `localhpo run TASK --experience retrieve` remembers the best configurations
    of the similar ones. A private study is shown to no other, and trains no model.
    """
    from localhpo.cli import _output
    from localhpo.cli._target import find_task
    from localhpo.store import Store, default_home
    from localhpo.study.pasts import set_private

    store = Store(default_home())
    for names, private in ((exclude, True), (include, False)):
        for name in names:
            set_private(store, _key(name), private)
    rows = _rows(store, None if task is None else find_task(task))
    if as_json:
        _output.print_json(rows)
    elif rows:
        _print(rows, with_similarity=task is not None)
    else:
        click.echo(f"no studies in {default_home()} yet: `localhpo run TASK` makes one")


def _key(name: str) -> str:
    from localhpo.store import study_name

    return name if "/" in name else study_name(name)


def _rows(store: Store, task: Task | None) -> list[dict[str, Any]]:
    """Return a row per study; with a task, the most similar first."""
    from localhpo.experience import LEAST_SIMILAR, refusal, similarity
    from localhpo.study.pasts import past_studies

    pasts, unreadable = past_studies(store)
    rows = []
    for past in pasts:
        row: dict[str, Any] = {
            "study": past.study,
            "trials": len(past.trials),
            "scored": len(past.scored),
            "refusal": refusal(past),
        }
        if task is not None:
            near = similarity(task, past.task)
            far = None if near.value >= LEAST_SIMILAR else "it is not similar enough"
            row["refusal"] = row["refusal"] or far
            row |= {"similarity": near.value, "reasons": list(near.reasons)}
        rows.append(row)
    rows += [
        {"study": one.study, "trials": None, "scored": None, "refusal": one.reason}
        for one in unreadable
    ]
    return sorted(rows, key=lambda row: -row.get("similarity", 0.0))


def _print(rows: list[dict[str, Any]], *, with_similarity: bool) -> None:
    from localhpo.cli import _output, _views

    headers = ["study", "trials", "scored", *(["similar"] if with_similarity else []), "counts"]
    table = _views.plain_table(*headers, right=("trials", "scored", "similar"))
    for row in rows:
        counts = "yes" if row["refusal"] is None else f"no: {row['refusal']}"
        if with_similarity and row["refusal"] is None:
            counts = f"yes: {'; '.join(row['reasons'])}"
        near = [f"{row['similarity']:.2f}" if "similarity" in row else "-"]
        numbers = ["-" if row[key] is None else str(row[key]) for key in ("trials", "scored")]
        table.add_row(row["study"], *numbers, *(near if with_similarity else []), counts)
    _output.show(table)
