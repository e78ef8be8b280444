"""`localhpo similar`: which past studies a new one can use, and how similar they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from localhpo.cli.command import Command
from localhpo.cli.output import plain_table, print_json, show
from localhpo.cli.target import find_task

if TYPE_CHECKING:
    from localhpo.store import Store
    from localhpo.task import Task


@click.command(
    "similar",
    cls=Command,
    examples=(
        "localhpo similar",
        "localhpo similar task.toml --json",
    ),
)
@click.argument("task", required=False)
@click.option(
    "--exclude", multiple=True, metavar="STUDY",
    help="Make a study private: no other study uses it, and no model is trained on it.",
)  # fmt: skip
@click.option("--include", multiple=True, metavar="STUDY", help="Make a study usable again.")
@click.option("--json", "as_json", is_flag=True, help="Print the studies as JSON.")
def command(
    task: str | None, exclude: tuple[str, ...], include: tuple[str, ...], as_json: bool
) -> None:
    """List the past studies that a new study can use.

    Others are listed with the reason. With TASK (a task file, a folder with a task.toml, or a ready
    task's name) also how similar each is to it: `localhpo run TASK --transfer retrieve` starts from
    the best configurations of the similar ones.
    """
    from localhpo.store import Store, default_home, study_name
    from localhpo.study.past_studies import set_private

    store = Store(default_home())
    for names, private in ((exclude, True), (include, False)):
        for name in names:
            set_private(store, name if "/" in name else study_name(name), private)
    rows = _rows(store, None if task is None else find_task(task))
    if as_json:
        print_json(rows)
    elif rows:
        _print(rows, with_similarity=task is not None)
    else:
        click.echo(f"there are no studies in {default_home()} yet: `localhpo run TASK` starts one")


def _rows(store: Store, task: Task | None) -> list[dict[str, Any]]:
    """Return a row for each study; with a task, the most similar first."""
    from localhpo.study.past_studies import read_past_studies
    from localhpo.transfer import MIN_SIMILARITY, similarity, to_single_objective, unusable_reason

    found, unreadable = read_past_studies(store)
    if task is not None:  # several objectives are compared by one of them
        found = [to_single_objective(past, task.objectives[0]) for past in found]
    rows = []
    for past in found:
        row = _row(past.study, unusable_reason(past), len(past.trials), len(past.ranked_trials))
        if task is not None:
            similar = similarity(task, past.task)
            if similar.value < MIN_SIMILARITY:
                row["refusal"] = row["refusal"] or "it is not similar enough"
            row |= {"similarity": similar.value, "reasons": list(similar.reasons)}
        rows.append(row)
    rows += [_row(one.study, one.reason) for one in unreadable]
    return sorted(rows, key=lambda row: -row.get("similarity", 0.0))


def _row(
    study: str, refusal: str | None, trials: int | None = None, with_values: int | None = None
) -> dict[str, Any]:
    return {
        "study": study,
        "trials": trials,
        "with_values": with_values,
        "scored": with_values,  # its name before; kept for this version
        "refusal": refusal,
    }


def _print(rows: list[dict[str, Any]], *, with_similarity: bool) -> None:
    similar = ["similarity"] if with_similarity else []
    headers = ["study", "trials", "with values", *similar, "used"]
    table = plain_table(*headers, right=("trials", "with values", "similarity"))
    for row in rows:
        used = "yes" if row["refusal"] is None else f"no: {row['refusal']}"
        if with_similarity and row["refusal"] is None:
            used = f"yes: {'; '.join(row['reasons'])}"
        value = f"{row['similarity']:.2f}" if "similarity" in row else "-"
        numbers = ["-" if row[key] is None else str(row[key]) for key in ("trials", "with_values")]
        table.add_row(row["study"], *numbers, *([value] if similar else []), used)
    show(table)
