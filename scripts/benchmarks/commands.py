"""`python -m scripts.benchmarks`: compare creators on benchmark problems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localhpo.cli import output
from localhpo.cli.command import Command, Group
from scripts.benchmarks.agenthpo.commands import command as agenthpo
from scripts.benchmarks.output import parse_names, progress_printer, raise_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.benchmarks.comparison import CreatorComparison
    from scripts.benchmarks.pool import FailedCall
    from scripts.benchmarks.suites import Suite


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


command.add_command(agenthpo)


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
    from scripts.benchmarks import suites

    if suite is None:
        _list_suites(list(suites.all_suites().values()), as_json)
        return
    problems = suites.find_suite(suite).problems
    if as_json:
        output.print_json(list(problems))
    else:
        click.echo("\n".join(problems))


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
    from scripts.benchmarks import comparison, creators, runner, suites
    from scripts.benchmarks.problems.registry import DataFolders
    from scripts.benchmarks.results import Results, bench_folder

    folder = bench_folder()
    results = Results(folder)
    wanted = parse_names(names, "--creators")
    plan = runner.BenchPlan(
        suite=suites.find_suite(suite),
        creators=tuple(map(creators.parse_name, wanted or creators.DEFAULT)),
        seeds=seeds,
        trials=trials,
        jobs=jobs,
        folders=DataFolders(data, folder / "trainings"),
    )
    selection, failed = runner.run_suite(plan, results, progress_printer())
    try:
        made = comparison.compare(selection, results)
    except InputError:
        raise_first(failed)  # the reason why there is nothing to compare
        raise
    _show_results(made, folder, as_json, failed)
    raise_first(failed)


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
    from scripts.benchmarks import comparison, suites
    from scripts.benchmarks.results import Results, bench_folder

    folder = bench_folder()
    results = Results(folder)
    selection = comparison.select_latest(
        suites.find_suite(suite),
        results,
        creators=parse_names(names, "--creators"),
        trials=trials,
    )
    _show_results(comparison.compare(selection, results), folder, as_json, [])


def _list_suites(suites: Sequence[Suite], as_json: bool) -> None:
    import dataclasses

    if as_json:
        output.print_json([dataclasses.asdict(suite) for suite in suites])
        return
    table = output.plain_table("suite", "use", "problems", "description", right=("problems",))
    for suite in suites:
        table.add_row(suite.name, suite.use, str(len(suite.problems)), suite.title)
    output.show(table)


def _show_results(
    comparison: CreatorComparison, folder: Path, as_json: bool, failed: Sequence[FailedCall]
) -> None:
    """Write the figure and print the numbers."""
    from scripts.benchmarks import figures
    from scripts.benchmarks.comparison import to_record

    path = folder / f"{comparison.suite.name}.html"
    figures.save(figures.draw_comparison(comparison), path)
    if as_json:
        failures: list[dict[str, Any]] = [{"what": f.what, "error": str(f.error)} for f in failed]
        output.print_json({**to_record(comparison), "figure": str(path), "failed": failures})
        return
    from scripts.benchmarks.views import comparison_view

    output.show(comparison_view(comparison, path, output.console().width))
