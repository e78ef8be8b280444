"""`localhpo bench agenthpo`: the protocol of the AgentHPO paper, on real trainings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from localhpo.cli._help import Command
from scripts.benchmarks import output as _bench_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.benchmarks.agenthpo.runner import ExperimentPlan, Studies
    from scripts.benchmarks.pool import FailedCall

_CREATORS = "hybrid,agent,tpe,random"


@click.command(
    "agenthpo",
    cls=Command,
    examples=(
        "localhpo bench agenthpo --tasks quadratic-2-3 --creators tpe,random --runs 2 --best-of 10",
        "localhpo bench agenthpo --tasks breast-cancer-xgboost --creators random --runs 1 "
        "--trials 2 --best-of 2",
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
    names = _bench_runs.parse_names(creators, "--creators") or []
    plan = runner.ExperimentPlan(
        tasks=tuple(_bench_runs.parse_names(tasks, "--tasks") or subjects.default_names(data)),
        creators=tuple(map(known.parse_name, names)),
        runs=runs,
        trials=trials,
        best_of=best_of,
        jobs=jobs,
        home=home,
        data=data,
        small=small,
    )
    studies, failed = runner.run_missing(plan, _bench_runs.progress_printer())
    _show_results(plan, studies, failed, out or home, as_json)
    _bench_runs.raise_first(failed)


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

    from localhpo.cli import _output, _study_output
    from localhpo.errors import InputError, StoreError
    from scripts.benchmarks.agenthpo import figure, results, table

    try:
        result = results.collect(plan, studies)
    except InputError:
        _bench_runs.raise_first(failed)  # the reason why there is nothing to show
        raise
    failures = [{"what": one.what, "error": str(one.error)} for one in failed]
    record = {**results.to_record(result), "failed": failures}
    files = {
        "agenthpo.md": table.markdown(result),
        "agenthpo.json": json.dumps(record, indent=2, allow_nan=False) + "\n",
        "agenthpo.svg": figure.trajectories(result),
        "agenthpo-quadratics.svg": figure.contours(plan, studies),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made: {error.strerror}") from error
    written = {folder / name: text for name, text in files.items() if text is not None}
    for path, text in written.items():
        _study_output.save(path, text)
    if as_json:
        _output.print_json({**record, "files": [str(path) for path in written]})
        return
    from scripts.benchmarks.agenthpo.views import result_view

    _output.show(result_view(result, written, _output.console().width))
