"""The commands of `python -m scripts.benchmarks`: for the suites, and the paper's protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localhpo.cli import output
from localhpo.cli.command import Command, Group

if TYPE_CHECKING:
    from scripts.benchmarks.agenthpo.runner import ExperimentPlan, Studies
    from scripts.benchmarks.comparison import CreatorComparison
    from scripts.benchmarks.pool import FailedCall, RunProgress
    from scripts.benchmarks.problems.suites import Suite

_PROGRESS_INTERVAL_S = 5.0


@click.group(
    "benchmarks",
    cls=Group,
    examples=(
        "python -m scripts.benchmarks list",
        "python -m scripts.benchmarks run quadratics --creators random,tpe --seeds 2",
        "python -m scripts.benchmarks show quadratics",
    ),
)
def command() -> None:
    """Compare creators on benchmark problems.

    A creator is a method that proposes configurations. Studies run as usual, with simulated trials
    of known results. A suite is a fixed list of problems. Results are kept in bench/ in the folder
    of the studies (./.localhpo); a run continues where an earlier one stopped.
    """


@command.command(
    "list",
    cls=Command,
    examples=(
        "python -m scripts.benchmarks list",
        "python -m scripts.benchmarks list functions --json",
    ),
)
@click.argument("suite", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_(suite: str | None, as_json: bool) -> None:
    """List the suites, or the problems of one.

    Use the suites for `settings` to choose methods and settings. Those for `final` tables share
    no data set with them, nor with the training data of the built-in model.
    """
    from scripts.benchmarks.problems import suites

    if suite is None:
        _list_suites(list(suites.all_suites().values()), as_json)
        return
    problems = suites.find_suite(suite).problems
    if as_json:
        output.print_json(list(problems))
    else:
        click.echo("\n".join(problems))


def _list_suites(suites: Sequence[Suite], as_json: bool) -> None:
    import dataclasses

    if as_json:
        output.print_json([dataclasses.asdict(suite) for suite in suites])
        return
    table = output.plain_table("suite", "use", "problems", "description", right=("problems",))
    for suite in suites:
        table.add_row(suite.name, suite.use, str(len(suite.problems)), suite.title)
    output.show(table)


@command.command(
    "run",
    cls=Command,
    examples=(
        "python -m scripts.benchmarks run quadratics --creators random,tpe --seeds 2",
        "python -m scripts.benchmarks run function/branin/1 --creators random --seeds 2 --json",
    ),
)
@click.argument("suite")
@click.option(
    "--creators",
    "names",
    help="Separated by commas; the first is compared with each of the others.",
)
@click.option(
    "--trials", type=click.IntRange(1), default=10, show_default=True, help="Trials of a study."
)
@click.option(
    "--seeds", type=click.IntRange(1), default=8, show_default=True,
    help="Repetitions, with the same seeds for every creator.",
)  # fmt: skip
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True,
    help="Processes, with one thread each.",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(path_type=Path), envvar="LOCALHPO_DATA", show_envvar=True,
    help="Folder of public data, for the suites of YAHPO and TaskSet.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
def run(
    suite: str,
    names: str | None,
    trials: int,
    seeds: int,
    jobs: int,
    data: Path | None,
    as_json: bool,
) -> None:
    """Run the missing studies of a suite, then compare.

    SUITE is a suite or a problem of `python -m scripts.benchmarks list`, or a CSV file of evaluated
    configurations with its task file beside it. Creators: hybrid, agent, random, tpe, gp,
    cmaes; center+gp and the like (the default or the center first); hybrid-meta (no model),
    hybrid-no-model (no meta-data either); hybrid@PATH (another model), hybrid:anonymous (no
    names), hybrid:no-history. Ctrl-C stops it; the same command continues.
    """
    from localhpo.errors import InputError
    from scripts.benchmarks import comparison, creators, runner
    from scripts.benchmarks.problems import suites
    from scripts.benchmarks.problems.registry import DataFolders
    from scripts.benchmarks.results import Results, bench_folder

    folder = bench_folder()
    results = Results(folder)
    wanted = _parse_names(names, "--creators")
    plan = runner.BenchPlan(
        suite=suites.find_suite(suite),
        creators=tuple(map(creators.parse_name, wanted or creators.DEFAULT)),
        seeds=seeds,
        trials=trials,
        jobs=jobs,
        folders=DataFolders(data, folder / "trainings"),
    )
    selection, failed = runner.run_suite(plan, results, _progress_printer())
    try:
        made = comparison.compare(selection, results)
    except InputError:
        _raise_first(failed)  # the reason why there is nothing to compare
        raise
    _show_comparison(made, folder, as_json, failed)
    _raise_first(failed)


@command.command(
    "show",
    cls=Command,
    examples=(
        "python -m scripts.benchmarks show quadratics",
        "python -m scripts.benchmarks show quadratics --creators tpe,random --json",
    ),
)
@click.argument("suite")
@click.option("--creators", "names", help="Separated by commas; default: all that have results.")
@click.option(
    "--trials",
    type=click.IntRange(1),
    help="Trials of a study; default: the number that most results have.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
def show(suite: str, names: str | None, trials: int | None, as_json: bool) -> None:
    """Compare the stored results of a suite, without running anything.

    Only the latest results of each creator are used, not those of its earlier versions or of
    another model.
    """
    from scripts.benchmarks import comparison
    from scripts.benchmarks.problems import suites
    from scripts.benchmarks.results import Results, bench_folder

    folder = bench_folder()
    results = Results(folder)
    selection = comparison.select_latest(
        suites.find_suite(suite),
        results,
        creators=_parse_names(names, "--creators"),
        trials=trials,
    )
    _show_comparison(comparison.compare(selection, results), folder, as_json, [])


def _show_comparison(
    comparison: CreatorComparison, folder: Path, as_json: bool, failed: Sequence[FailedCall]
) -> None:
    """Write the figure and print the numbers."""
    from scripts.benchmarks import figures
    from scripts.benchmarks.comparison import to_record

    path = folder / f"{comparison.suite.name}.html"
    figures.save(figures.draw_comparison(comparison), path)
    if as_json:
        record = {**to_record(comparison), "figure": str(path), "failed": _failures(failed)}
        output.print_json(record)
        return
    from scripts.benchmarks.views import comparison_view

    output.show(comparison_view(comparison, path, output.console().width))


@command.command(
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
    "--creators", "names", default="hybrid,agent,tpe,random", show_default=True,
    help="Separated by commas; the first is compared with each of the others.",
)  # fmt: skip
@click.option(
    "--runs", type=click.IntRange(1), default=10, show_default=True,
    help="Studies of each creator, with the same seeds.",
)  # fmt: skip
@click.option(
    "--trials", type=click.IntRange(1), default=10, show_default=True, help="Trials of a study."
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
    help="Folder for table and figures; default: the folder of the studies.",
)  # fmt: skip
def agenthpo(
    tasks: str | None,
    names: str,
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
    from scripts.benchmarks import creators
    from scripts.benchmarks.agenthpo import runner, subjects
    from scripts.benchmarks.results import Results, bench_folder

    folder, data = bench_folder(), data and data.absolute()
    plan = runner.ExperimentPlan(
        tasks=tuple(_parse_names(tasks, "--tasks") or subjects.default_names(data)),
        creators=tuple(map(creators.parse_name, _parse_names(names, "--creators") or [])),
        runs=runs,
        trials=trials,
        best_of=best_of,
        jobs=jobs,
        home=folder / "agenthpo",
        data=data,
        small=small,
    )
    studies, failed = runner.run_experiment(plan, Results(folder), _progress_printer())
    _show_experiment(plan, studies, failed, out or plan.home, as_json)
    _raise_first(failed)


def _show_experiment(
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
        _raise_first(failed)  # the reason why there is nothing to show
        raise
    record = {**results.to_record(result), "failed": _failures(failed)}
    drawn = {
        "agenthpo.html": figures.draw_trajectories(result),
        "agenthpo-quadratics.html": figures.draw_contours(plan, studies),
    }
    files = {
        "agenthpo.md": table.markdown(result),
        "agenthpo.json": json.dumps(record, indent=2, allow_nan=False) + "\n",
    }
    written = [folder / name for name, figure in drawn.items() if figure is not None]
    written += [folder / name for name in files]
    for name, figure in drawn.items():
        if figure is not None:
            figures.save(figure, folder / name)
    for name, text in files.items():
        save(folder / name, text)
    if as_json:
        output.print_json({**record, "files": [str(path) for path in written]})
        return
    output.show(table.result_view(result, written, output.console().width))


# Shared by the commands.


def _parse_names(names: str | None, option: str) -> list[str] | None:
    """Return the names of a comma-separated list, each once; None where none was given."""
    if names is None:
        return None
    unique = dict.fromkeys(name.strip() for name in names.split(","))
    if "" in unique:
        raise click.BadParameter(
            f"must be names separated by commas, got {names!r}", param_hint=option
        )
    return list(unique)


def _progress_printer() -> Callable[[RunProgress], None]:
    """Return a function that prints the progress of a run to standard error, at intervals."""
    from localhpo.analysis import formatting

    printed_s = 0.0

    def print_progress(progress: RunProgress) -> None:
        nonlocal printed_s
        is_last = progress.done == progress.total
        if not is_last and progress.elapsed_s - printed_s < _PROGRESS_INTERVAL_S:
            return
        printed_s = progress.elapsed_s
        left_s = progress.elapsed_s / progress.done * (progress.total - progress.done)
        left = "" if is_last else f", about {formatting.duration(left_s)} left"
        click.echo(
            f"{progress.done:,} of {progress.total:,} studies after "
            f"{formatting.duration(progress.elapsed_s)}{left}: {progress.latest}",
            err=True,
        )

    return print_progress


def _failures(failed: Sequence[FailedCall]) -> list[dict[str, Any]]:
    return [{"what": one.what, "error": str(one.error)} for one in failed]


def _raise_first(failed: Sequence[FailedCall]) -> None:
    """Raise an error for the first of the failed studies, if there are any.

    Raises:
        LocalHPOError: with their number, and the cause of the first.
    """
    from localhpo.errors import LocalHPOError

    if failed:
        first = failed[0]
        hint = first.error.hint if isinstance(first.error, LocalHPOError) else ""
        raise LocalHPOError(
            f"{len(failed)} studies have no result; the first: {first.what}: "
            f"{type(first.error).__name__}: {first.error}",
            hint=hint or "the same command tries them again",
        )
