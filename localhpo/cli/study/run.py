"""`localhpo run`: tune a task, or continue its study."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localhpo.cli.command import Command, RegisteredName
from localhpo.cli.output import console, print_json, show
from localhpo.cli.study.report import study_record, summarize, write_report
from localhpo.cli.target import find_task

if TYPE_CHECKING:
    from localhpo.scheduler.events import Observer
    from localhpo.study import Study


@click.command(
    "run",
    cls=Command,
    examples=(
        "localhpo run breast-cancer-xgboost --trials 3",
        "localhpo run task.toml --creator tpe --seed 1",
        "localhpo run task.toml --study wide --creator random --parallel 2 --json",
    ),
)
@click.argument("task")
@click.option("--study", default="main", show_default=True, help="Name of the study of this task.")
@click.option("--trials", type=int, help="Number of trials of the study, over all runs.")
@click.option(
    "--creator", "name", type=RegisteredName("localhpo.creator:CREATORS"),
    help="Method that proposes.",
)  # fmt: skip
@click.option(
    "--backend", type=RegisteredName("localhpo.llm:BACKENDS"), help="Where the model runs."
)
@click.option(
    "--model", help="Name of a model (`localhpo models`), a folder, or its name on the server."
)
@click.option(
    "--model-gpus", type=int, help="Number of GPUs to split the model over (--backend vllm)."
)
@click.option("--url", help="Address of the server (--backend openai).")
@click.option(
    "--transfer",
    help="Use of past studies: off, retrieve (similar ones guide the search), finetuned (a model "
    "that was trained on them).",
)
@click.option("--experience", hidden=True, help="The name of --transfer in version 0.1.0.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the task's data, or with a folder for each data set; default: LOCALHPO_DATA.",
)
@click.option("--seed", type=int, help="Seed of all random choices.")
@click.option("--parallel", type=int, help="Number of trials that run at a time.")
@click.option(
    "--sharing",
    help="How trials and the model share memory: auto, resident, sleep, device, stop, cpu.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    task: str, study: str, data: Path | None, as_json: bool, quiet: bool,
    experience: str | None, **overrides: Any,
) -> None:  # fmt: skip
    """Tune a task, or continue its study.

    TASK is a task file, a folder with a task.toml, or the name of a ready task. Running it
    again continues the study. Options replace settings of the task file. Ctrl-C ends running
    trials and stops; a second Ctrl-C kills them.
    """
    from localhpo.errors import NoGoodTrialError, StudyInterruptedError
    from localhpo.study import Study
    from localhpo.task import with_data, with_overrides

    overrides["transfer"] = overrides["transfer"] or experience
    settings = with_overrides(find_task(task), **overrides)
    opened = Study.open(with_data(settings, data), study)
    before = len(opened.trials)
    ended = None
    try:
        with show_progress(opened.key, quiet) as observers:
            opened.run(observers=observers)
    except (NoGoodTrialError, StudyInterruptedError) as error:
        ended = error  # the results are shown first
    _conclude(opened, as_json)
    if ended is not None:
        raise ended
    if before and before == len(opened.trials):
        click.echo(
            "nothing to do: the budget of the study is used up; --trials N raises it", err=True
        )


@contextmanager
def show_progress(key: str, quiet: bool) -> Iterator[list[Observer]]:
    """Show progress on standard error: rows on a terminal, lines anywhere else."""
    if quiet:
        yield []
    elif sys.stderr.isatty():
        from localhpo.cli.study.live import LiveDisplay

        with LiveDisplay(console(stderr=True), key) as display:
            yield [display]
    else:
        from localhpo.cli.study.live import EventLog

        yield [EventLog()]


def _conclude(study: Study, as_json: bool) -> None:
    """Write the report and print the summary."""
    from localhpo.cli.study.views import summary_view

    summary = summarize(study)
    if not summary.trials:
        return
    path = write_report(study, summary)
    if as_json:
        print_json({**study_record(study, summary), "report": str(path)})
    else:
        show(summary_view(summary, path))
