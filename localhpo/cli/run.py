"""`localhpo run`: tune a task, or continue its study."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localhpo.cli._help import Command

if TYPE_CHECKING:
    from localhpo.plugins import Registry
    from localhpo.scheduler.observer import Observer
    from localhpo.study import Study


class RegisteredName(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A name of a registry, which is imported when a value or the help is asked for."""

    name = "name"

    def __init__(self, registry: str) -> None:
        """Take the place of a registry, as "module:attribute"."""
        self._place = registry

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """Return the name. Raises as `Registry.check`."""
        self._registry.check(value)
        return value

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002
        """Return all names."""
        return f"[{'|'.join(self._registry.names)}]"

    @property
    def _registry(self) -> Registry[Any]:
        registry: Registry[Any] = pkgutil.resolve_name(self._place)
        return registry


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
    "--creator",
    "name",
    type=RegisteredName("localhpo.creator:CREATORS"),
    help="Method that proposes.",
)
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
    overrides["transfer"] = overrides["transfer"] or experience
    opened = _open(task, study, data, overrides)
    before = len(opened.trials)
    ended = _run(opened, quiet)
    _conclude(opened, as_json)
    if ended is not None:
        raise ended
    if before and before == len(opened.trials):
        click.echo(
            "nothing to do: the budget of the study is used up; --trials N raises it", err=True
        )


def _open(target: str, name: str, data: Path | None, overrides: dict[str, Any]) -> Study:
    from localhpo.cli._target import find_task
    from localhpo.study import Study
    from localhpo.task import with_data, with_overrides

    task = with_overrides(find_task(target), **overrides)
    return Study.open(with_data(task, data), name)


def _run(study: Study, quiet: bool) -> Exception | None:
    """Run the study; return the error of an end that leaves results to show, else None."""
    from localhpo.errors import NoGoodTrialError, StudyInterruptedError

    try:
        with show_progress(study.key, quiet) as observers:
            study.run(observers=observers)
    except (NoGoodTrialError, StudyInterruptedError) as ended:
        return ended
    return None


@contextmanager
def show_progress(key: str, quiet: bool) -> Iterator[list[Observer]]:
    """Show progress on standard error: rows on a terminal, lines anywhere else."""
    if quiet:
        yield []
    elif sys.stderr.isatty():
        from localhpo.cli._live import LiveDisplay
        from localhpo.cli._output import console

        with LiveDisplay(console(stderr=True), key) as display:
            yield [display]
    else:
        from localhpo.cli._event_log import EventLog

        yield [EventLog()]


def _conclude(study: Study, as_json: bool) -> None:
    """Write the report and print the summary."""
    from localhpo.cli import _output, _study_output

    summary = _study_output.summary_of(study)
    if not summary.trials:
        return
    path = _study_output.write_report(study, summary)
    if as_json:
        record = _study_output.record_of(study, summary)
        _output.print_json({**record, "report": str(path)})
        return
    from localhpo.cli._views import summary_view

    _output.show(summary_view(summary, path))
