"""`python -m scripts.benchmarks agenthpo`: the AgentHPO paper's protocol, on real trainings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from localhpo.cli import output
from localhpo.cli.command import Command
from scripts.benchmarks.output import parse_names, progress_printer, raise_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.benchmarks.agenthpo.runner import ExperimentPlan, Studies
    from scripts.benchmarks.pool import FailedCall

_CREATORS = "hybrid,agent,tpe,random"


@click.command(
    "agenthpo",
    cls=Command,
    examples=(
        "python -m scripts.benchmarks agenthpo --tasks quadratic-2-3 --creators tpe,random "
        "--runs 2 --best-of 10",
        "python -m scripts.benchmarks agenthpo --tasks breast-cancer-xgboost --creators random "
        "--runs 1 --trials 2 --best-of 2",
    ),
)
@click.option(
    "--tasks",
    help="Ready tasks and task files, separated by commas; default: the paper's with data here.",
)
@click.option(
    "--creators", default=_CREATORS, show_default=True,
    help="Separated by commas; the first is compared with each of the others.",
)  # fmt: skip
@click.option(
    "--runs", type=click.IntRange(1), default=10, show_default=True,
    help="Studies of each creator, with the same seeds.",
)  # fmt: skip
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Trials of a study.",
)
@click.option(
    "--best-of", type=click.IntRange(1), default=100, show_default=True,
    help="Trials of random search whose best is the baseline for a human.",
)  # fmt: skip
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True,
    help="Studies that run at a time, as far as this machine has resources.",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="LOCALHPO_DATA", show_envvar=True, help="Folder with the data of the tasks.",
)  # fmt: skip
@click.option("--small", is_flag=True, help="Train a small version of each task that has one.")
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False),
    help="Folder for table and figures; default: the folder of the results.",
)  # fmt: skip
def command(
    tasks: str | None,
    creators: str,
    runs: int,
    trials: int,
    best_of: int,
    jobs: int,
    data: Path | None,
    small: bool,
    as_json: bool,
    out: Path | None,
) -> None:
    """Repeat the AgentHPO paper's experiment.

    Each run is an ordinary study with real trainings, in bench/agenthpo/ in the folder of the
    studies. The paper's two quadratic functions are the tasks quadratic-2-3 and quadratic-3-5.
    Ctrl-C stops it; the same command continues, and no training runs twice.
    """
    from scripts.benchmarks import creators as known
    from scripts.benchmarks.agenthpo import runner, subjects
    from scripts.benchmarks.results import bench_folder

    home, data = bench_folder() / "agenthpo", data and data.absolute()
    names = parse_names(creators, "--creators") or []
    plan = runner.ExperimentPlan(
        tasks=tuple(parse_names(tasks, "--tasks") or subjects.default_names(data)),
        creators=tuple(map(known.parse_name, names)),
        runs=runs,
        trials=trials,
        best_of=best_of,
        jobs=jobs,
        home=home,
        data=data,
        small=small,
    )
    studies, failed = runner.run_missing(plan, progress_printer())
    _show_results(plan, studies, failed, out or home, as_json)
    raise_first(failed)


def _show_results(
    plan: ExperimentPlan,
    studies: Studies,
    failed: Sequence[FailedCall],
    folder: Path,
    as_json: bool,
) -> None:
    """Write the table and the figures, and print the numbers.

    Raises:
        StoreError: the folder cannot be written.
    """
    import json

    from localhpo.cli.study.report import save
    from localhpo.errors import InputError
    from scripts.benchmarks import figures
    from scripts.benchmarks.agenthpo import results, table

    try:
        result = results.collect(plan, studies)
    except InputError:
        raise_first(failed)  # the reason why there is nothing to show
        raise
    failures = [{"what": one.what, "error": str(one.error)} for one in failed]
    record = {**results.to_record(result), "failed": failures}
    files = {
        "agenthpo.md": table.markdown(result),
        "agenthpo.json": json.dumps(record, indent=2, allow_nan=False) + "\n",
    }
    drawn = {
        "agenthpo.html": figures.draw_trajectories(result),
        "agenthpo-quadratics.html": figures.draw_contours(plan, studies),
    }
    written: list[Path] = []
    for name, figure in drawn.items():
        if figure is not None:
            figures.save(figure, folder / name)
            written.append(folder / name)
    for name, text in files.items():
        save(folder / name, text)
        written.append(folder / name)
    if as_json:
        output.print_json({**record, "files": [str(path) for path in written]})
        return
    from scripts.benchmarks.agenthpo.views import result_view

    output.show(result_view(result, written, output.console().width))
