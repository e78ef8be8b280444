"""Views of a comparison for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from localhpo.analysis import formatting
from localhpo.cli.output import plain_table
from scripts.benchmarks.comparison import CreatorComparison, best_values
from scripts.benchmarks.statistics import RegretSummary

_REGRET_WIDTH, _REST_WIDTH = 15, 28
"""Columns of a regret with its error, and of the rank with the test."""
_ROOM_FOR_ORIGINS = 120
"""Columns of a terminal below which the origins of proposals are left out."""


def comparison_view(comparison: CreatorComparison, figure: Path, width: int) -> RenderableType:
    """Return the tables of a comparison for so many columns, and the path of its figure."""
    names = max(map(len, comparison.creators))
    roomy = names + _REST_WIDTH + _REGRET_WIDTH * len(comparison.columns) <= width
    parts: list[RenderableType] = [*_headlines(comparison), "", _regrets(comparison, roomy)]
    parts += [*_footnotes(comparison, roomy)]
    if best_values(comparison):
        parts += ["", _values(comparison)]
    parts += ["", _proposals(comparison, width >= _ROOM_FOR_ORIGINS), "", Text(f"figure  {figure}")]
    return Group(*parts)


def _headlines(comparison: CreatorComparison) -> Iterator[Text]:
    suite, there = comparison.suite, len(comparison.problems)
    wanted = len(suite.problems)
    problems = (
        f"{there} of {wanted} problems" if there < wanted else formatting.count(there, "problem")
    )
    seeds = formatting.count(len(comparison.seeds), "seed")
    yield Text.assemble((suite.name, "bold"), f"  {suite.title}")
    yield Text(f"{problems} x {seeds} x {formatting.count(comparison.trials, 'trial')}")


def _footnotes(comparison: CreatorComparison, roomy: bool) -> Iterator[Text]:
    last, first = comparison.columns[-1], comparison.creators[0]
    error = "; ± standard error over seeds" if roomy and len(comparison.seeds) > 1 else ""
    best = "the best known value (these results included)" if roomy else "the best known value"
    yield Text(f"regret: 0 is {best}, 1 the median of random configurations{error}", "dim")
    if last.critical_difference is not None:
        yield Text(
            f"rank @{last.trial}: differences below {last.critical_difference:.2f} are not "
            f"significant (Nemenyi); w-t-l: problems won, tied, lost by {first} (p: Wilcoxon)",
            "dim",
        )


def _regrets(comparison: CreatorComparison, roomy: bool) -> Table:
    last = comparison.columns[-1]
    regrets = [f"@{column.trial}" for column in comparison.columns]
    paired_tests = ["w-t-l", "p"] if last.paired_tests else []
    table = plain_table(
        "creator", *regrets, "rank", *paired_tests, right=[*regrets, "rank", *paired_tests]
    )
    for numbers in table.columns[1:]:
        numbers.no_wrap = True
    best = [min(entry.mean for entry in column.entries) for column in comparison.columns]
    for c, name in enumerate(comparison.creators):
        entries = [column.entries[c] for column in comparison.columns]
        cells = [
            _regret(entry, roomy, is_best=entry.mean == low)
            for entry, low in zip(entries, best, strict=True)
        ]
        table.add_row(
            name, *cells, f"{last.entries[c].rank:.2f}", *_compare_with_first(comparison, c)
        )
    return table


def _regret(entry: RegretSummary, roomy: bool, *, is_best: bool) -> Text:
    there = roomy and entry.error_seeds is not None
    error = f" ±{entry.error_seeds:.3f}" if there else ""
    return Text(f"{entry.mean:.3f}{error}", style="bold green" if is_best else "")


def _compare_with_first(comparison: CreatorComparison, c: int) -> list[str]:
    paired_tests = comparison.columns[-1].paired_tests
    if not c:
        return [""] * 2 if paired_tests else []
    test = paired_tests[c - 1]
    p_value = "-" if test.p_value is None else f"{test.p_value:.2g}"
    return [f"{test.wins}-{test.ties}-{test.losses}", p_value]


def _values(comparison: CreatorComparison) -> Table:
    means = best_values(comparison)
    headers = ["best value so far", *(f"@{column.trial}" for column in comparison.columns)]
    table = plain_table(*headers, right=headers[1:])
    for name, values in means.items():
        table.add_row(name, *(formatting.value(value) for value in values.values()))
    return table


def _proposals(comparison: CreatorComparison, roomy: bool) -> Table:
    shares = ("redrawn", "repeated", "invalid", "failed", "fallbacks")
    aside = ("made by",) if roomy else ()
    table = plain_table("proposals", "seconds", "tokens", *shares, *aside,
                        right=("seconds", "tokens", *shares))  # fmt: skip
    for numbers in table.columns[1:8]:
        numbers.no_wrap = True
    for name, proposals in zip(comparison.creators, comparison.proposals, strict=True):
        values = (
            proposals.redrawn,
            proposals.repeated,
            proposals.invalid,
            proposals.failed,
            proposals.fallbacks,
        )
        origins = ", ".join(
            f"{formatting.printable(origin)} {formatting.percent(count / max(1, proposals.trials))}"
            for origin, count in proposals.origins.items()
        )
        table.add_row(
            name,
            f"{proposals.seconds:.3f}",
            f"{proposals.tokens:,.0f}",
            *(format_share(value) for value in values),
            *([origins] if roomy else []),
        )
    return table


def format_share(share: float) -> str:
    """Return a share in percent; a dash for none."""
    return "-" if share == 0 else f"{100 * share:.1f} %"
