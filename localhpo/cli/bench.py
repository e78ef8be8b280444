"""`localhpo bench`: compare Creators on problems whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localhpo.cli import _bench_agenthpo, _bench_runs
from localhpo.cli._help import Command, Group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localhpo.bench.comparison import Comparison
    from localhpo.bench.pool import Failed
    from localhpo.bench.suites import Suite


@click.group(
    "bench",
    cls=Group,
    examples=(
        "localhpo bench list",
        "localhpo bench run quadratics --creators random,tpe --seeds 2",
        "localhpo bench show quadratics",
    ),
)
def command() -> None:
    """Compare Creators on problems whose answers are known.

    The loop is the real one, the trials are simulated. A suite is a fixed list of problems.
    Results are kept in bench/ in the home, and a run goes on where an earlier one stopped.
    """


command.add_command(_bench_agenthpo.command)


@command.command(
    "list",
    cls=Command,
    examples=(
        "localhpo bench list",
        "localhpo bench list functions --json",
    ),
)
@click.argument("suite", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_(suite: str | None, as_json: bool) -> None:
    """List the suites, or the problems of one.

    Suites for `settings` are for trying things out; those for `final` tables share no data
    set with them, nor with what a shipped model was trained on.
    """
    from localhpo.bench import suites
    from localhpo.cli import _output

    if suite is None:
        _list_suites(list(suites.all_suites().values()), as_json)
        return
    problems = suites.find(suite).problems
    if as_json:
        _output.print_json(list(problems))
    else:
        click.echo("\n".join(problems))


@command.command(
    "run",
    cls=Command,
    examples=(
        "localhpo bench run quadratics --creators random,tpe --seeds 2",
        "localhpo bench run function/branin/1 --creators center+cmaes,random --seeds 2 --json",
    ),
)
@click.argument("suite")
@click.option(
    "--creators", "names", help="Comma-separated; the first is tested against the others."
)
@click.option("--trials", type=click.IntRange(1), default=10, show_default=True, help="Per study.")
@click.option(
    "--seeds", type=click.IntRange(1), default=8, show_default=True,
    help="Repetitions, with the same luck for every creator.",
)  # fmt: skip
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True,
    help="Processes, of one thread each.",
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
    """Run what is missing of a suite, then compare.

    SUITE is a name of `localhpo bench list`, the name of a problem, or a CSV file of evaluated
    configurations with its task file beside it. Creators: hybrid, agent, random, tpe, gp,
    cmaes; center+gp and the like (the default or the center first); hybrid-lessons (no model),
    hybrid-no-model (no lessons either); hybrid@PATH (another model), hybrid:anonymous (no
    names), hybrid:no-history. Ctrl-C stops it; the same command goes on.
    """
    from localhpo.bench import comparison, creators, runner, suites
    from localhpo.bench.problems.opening import Places
    from localhpo.errors import InputError
    from localhpo.store.results import Results, bench_folder

    folder = bench_folder()
    results = Results(folder)
    wanted = _bench_runs.listed(names, "--creators")
    plan = runner.Plan(
        suite=suites.find(suite),
        creators=tuple(map(creators.parse, wanted or creators.DEFAULT)),
        seeds=seeds,
        trials=trials,
        jobs=jobs,
        places=Places(data, folder / "trainings"),
    )
    selection, failed = runner.run(plan, results, _bench_runs.teller())
    try:
        made = comparison.compare(selection, results)
    except InputError:
        _bench_runs.raise_first(failed)  # which is why there is nothing to compare
        raise
    _conclude(made, folder, as_json, failed)
    _bench_runs.raise_first(failed)


@command.command(
    "show",
    cls=Command,
    examples=(
        "localhpo bench show quadratics",
        "localhpo bench show quadratics --creators tpe,random --json",
    ),
)
@click.argument("suite")
@click.option("--creators", "names", help="Comma-separated; all that have results by default.")
@click.option("--trials", type=click.IntRange(1), help="Of the studies; those most were run with.")
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
def show(suite: str, names: str | None, trials: int | None, as_json: bool) -> None:
    """Compare what is stored of a suite; nothing is run.

    The latest results of each creator count: those of an earlier version of it, or of another
    model, are left out.
    """
    from localhpo.bench import comparison, suites
    from localhpo.store.results import Results, bench_folder

    folder = bench_folder()
    results = Results(folder)
    selection = comparison.latest(
        suites.find(suite), results, creators=_bench_runs.listed(names, "--creators"), trials=trials
    )
    _conclude(comparison.compare(selection, results), folder, as_json, [])


def _list_suites(suites: Sequence[Suite], as_json: bool) -> None:
    import dataclasses

    from localhpo.cli import _output, _views

    if as_json:
        _output.print_json([dataclasses.asdict(suite) for suite in suites])
        return
    table = _views.plain_table("suite", "for", "problems", "what it is", right=("problems",))
    for suite in suites:
        table.add_row(suite.name, suite.use, str(len(suite.problems)), suite.title)
    _output.show(table)


def _conclude(
    comparison: Comparison, folder: Path, as_json: bool, failed: Sequence[Failed]
) -> None:
    """Draw the figure and print the numbers."""
    from localhpo.bench import figure
    from localhpo.bench.comparison import record
    from localhpo.cli import _conclusion, _output

    path = folder / f"{comparison.suite.name}.svg"
    _conclusion.save(path, figure.draw(comparison))
    if as_json:
        lost: list[dict[str, Any]] = [{"what": f.what, "error": str(f.error)} for f in failed]
        _output.print_json({**record(comparison), "figure": str(path), "failed": lost})
        return
    from localhpo.cli._bench_views import comparison_view

    _output.show(comparison_view(comparison, path, _output.console().width))
