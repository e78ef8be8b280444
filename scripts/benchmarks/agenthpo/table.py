"""The tables of the experiment: as rows of text, for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from localhpo.analysis import formatting
from localhpo.cli.output import plain_table
from scripts.benchmarks.agenthpo import paper
from scripts.benchmarks.agenthpo.results import (
    CreatorResult,
    ExperimentResult,
    RunStatistics,
    TaskResult,
    compute_gap,
    describe_runs,
)
from scripts.benchmarks.views import format_share

COST_HEADERS = (
    "proposals", "prompt", "answer", "seconds", "redrawn", "repeated", "invalid", "failed",
    "fallbacks",
)  # fmt: skip
"""Headers of the costs: tokens per run, seconds per proposal; the rest are shares."""


_BETWEEN = 3
"""Largest number of spaces between two columns of a table."""

ValueFormatter = Callable[[float, int], str]
"""Formats a value with some significant digits, or as the paper does, where it has the task."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of the table: a Creator, a baseline, or a method of the paper."""

    who: str
    best: tuple[str, ...]
    """The best value so far, by column."""
    ahead: str = ""
    """How far the first Creator is ahead of it after the last trial."""
    p: str = ""
    test: str = ""
    is_ours: bool = True
    is_best: bool = False
    """Whether it is the best Creator after the last trial."""

    @property
    def cells(self) -> tuple[str, ...]:
        """All cells, under `headers`."""
        return (self.who, *self.best, self.ahead, self.p, self.test)


def headers(result: ExperimentResult) -> list[str]:
    """Return the headers of the table."""
    return ["best so far", *(f"@{trial}" for trial in result.columns), "gap", "p", "test"]


def title(result: ExperimentResult, task: TaskResult) -> str:
    """Return the metric and size of a task's results."""
    aim = task.subject.task
    size = f"{formatting.count(len(task.runs), 'run')} x {formatting.count(result.trials, 'trial')}"
    unit = ", in %" if _scale(task) != 1.0 else ""
    return f"{formatting.printable(aim.metric)}, {aim.direction}d{unit}; {size}"


def make_rows(
    result: ExperimentResult, task: TaskResult, *, brief: bool = False
) -> Iterator[TableRow]:
    """Yield the rows of a task: Creators, the best of random search, and the paper's.

    Args:
        result: the results of all tasks.
        task: the task.
        brief: leave out deviations, except of the last column and of the test.
    """
    format_value = _value_formatter(task)
    last = {line.creator: describe_runs(line.best[:, -1]).mean for line in task.lines}
    there = [mean for mean in last.values() if mean is not None]
    pick = max if task.subject.task.direction == "maximize" else min
    for c, line in enumerate(task.lines):
        cells = [
            _cell(describe_runs(line.best[:, t - 1]), format_value, len(task.runs))
            for t in result.columns
        ]
        yield TableRow(
            line.creator,
            _shown(cells, brief),
            *_against(task, c, result.trials, format_value),
            test=_cell(describe_runs(line.test), format_value, len(task.runs)),
            is_best=bool(there) and last[line.creator] == pick(there),
        )
    if task.human is not None:
        yield TableRow(f"best of {task.human_trials}", _at_end(result, format_value(task.human, 4)))
    yield from _reported(result, task, brief)


def _shown(cells: Sequence[str], brief: bool) -> tuple[str, ...]:
    *early, last = cells
    return (*(cell.partition(" ±")[0] if brief else cell for cell in early), last)


def _against(
    task: TaskResult, other: int, trial: int, format_value: ValueFormatter
) -> tuple[str, str]:
    if not other:
        return "", ""
    found = compute_gap(task, other, trial)
    if found.ahead is None:
        return "-", "-"
    p = found.test.p_value
    sign = "+" if found.ahead >= 0 else "-"
    return f"{sign}{format_value(abs(found.ahead), 2)}", "-" if p is None else f"{p:.2g}"


def _reported(result: ExperimentResult, task: TaskResult, brief: bool) -> Iterator[TableRow]:
    reported = task.subject.reported
    if reported is None:
        return
    for method in paper.METHODS:
        there = reported.best[method]
        cells = [
            f"{there[t][0]:.2f} ±{there[t][1]:.2f}" if t in there else "" for t in result.columns
        ]
        yield TableRow(f"paper: {method}", _shown(cells, brief), is_ours=False)
    yield TableRow("paper: human", _at_end(result, f"{reported.human:.2f}"), is_ours=False)


def _at_end(result: ExperimentResult, text: str) -> tuple[str, ...]:
    return ("",) * (len(result.columns) - 1) + (text,)


def _cell(values: RunStatistics, format_value: ValueFormatter, runs: int) -> str:
    if values.mean is None:
        return "-"
    deviation = "" if values.deviation is None else f" ±{format_value(values.deviation, 2)}"
    return f"{format_value(values.mean, 4)}{deviation}" + (
        f" ({values.runs})" if values.runs < runs else ""
    )


def _scale(task: TaskResult) -> float:
    reported = task.subject.reported
    return 1.0 if reported is None else reported.scale


def _value_formatter(task: TaskResult) -> ValueFormatter:
    """Return the formatter of a task's values: as in the paper, where it has the task."""
    if task.subject.reported is None:
        return lambda value, digits: f"{value:.{digits}g}"
    scale = _scale(task)
    return lambda value, _: f"{scale * value:.2f}"


# The costs and shares of proposals.


def cost_rows(result: ExperimentResult) -> Iterator[tuple[str, ...]]:
    """Yield rows for `COST_HEADERS`: means over all tasks, and the paper's Table 4."""
    for c, name in enumerate(result.creators):
        lines = [task.lines[c] for task in result.tasks]
        yield (
            name,
            _thousands(_mean(lines, lambda line: line.prompt_tokens)),
            _thousands(_mean(lines, lambda line: line.completion_tokens)),
            f"{_mean(lines, lambda line: line.proposals.seconds_mean):.2f}",
            *(format_share(_mean(lines, share)) for share in _SHARES.values()),
        )
    for name, cost in sorted(paper.costs().items(), reverse=True):
        blank = ("",) * (1 + len(_SHARES))
        yield (f"paper: {name}", f"{cost.prompt:.2f} k", f"{cost.completion:.2f} k", *blank)


_SHARES: Mapping[str, Callable[[CreatorResult], float]] = {
    "redrawn": lambda line: line.proposals.redrawn,
    "repeated": lambda line: line.proposals.repeated,
    "invalid": lambda line: line.proposals.invalid,
    "failed": lambda line: line.proposals.failed,
    "fallbacks": lambda line: line.proposals.fallbacks,
}


def _mean(lines: list[CreatorResult], value: Callable[[CreatorResult], float]) -> float:
    return sum(map(value, lines)) / len(lines)


def _thousands(tokens: float) -> str:
    return f"{tokens / 1000:.2f} k"


def footnotes(result: ExperimentResult) -> list[str]:
    """Return footnotes that explain the table."""
    first = result.creators[0]
    return [
        "mean ± standard deviation over runs; (n): only n runs had a value by then",
        f"gap: how far {first} is ahead after {result.trials} trials; "
        "p: Wilcoxon test over the paired runs",
        "best of n: the best of n random trials, the baseline for a human",
        "test: test value of the configuration that was best on validation",
        "paper: arXiv 2402.01881, GPT-4 in 5 runs, the others in 10; its splits are not known",
    ]


def markdown(result: ExperimentResult) -> str:
    """Return the table as Markdown."""
    names = headers(result)
    lines = [_line(["task", *names]), _line(["---"] * (1 + len(names)))]
    for task in result.tasks:
        for row in make_rows(result, task):
            lines.append(_line([f"`{task.subject.name}`", *row.cells]))
    sizes = [f"`{task.subject.name}`: {title(result, task)}" for task in result.tasks]
    costs = [
        _line(COST_HEADERS),
        _line(["---"] * len(COST_HEADERS)),
        *map(_line, cost_rows(result)),
    ]
    notes = [*sizes, *footnotes(result)]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), "", *costs, ""])


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


# The terminal.


def result_view(result: ExperimentResult, files: Iterable[Path], width: int) -> RenderableType:
    """Return a table for each task, the cost of proposals, and the paths of the files."""
    parts: list[RenderableType] = []
    for task in result.tasks:
        name = Text(task.subject.name, "bold")
        parts += [Text.assemble(name, f"  {title(result, task)}")]
        parts += [_values(result, task, width), ""]
    parts += [Text(note, "dim") for note in footnotes(result)]
    parts += ["", _plain(COST_HEADERS, cost_rows(result)), ""]
    parts += [Text(f"{path.suffix[1:]:5}{path}") for path in files]
    return Group(*parts)


def _values(result: ExperimentResult, task: TaskResult, width: int) -> Table:
    names = headers(result)
    rows = list(make_rows(result, task))
    if _width([names, *(row.cells for row in rows)]) > width:
        rows = list(make_rows(result, task, brief=True))
    made = _plain(names, [])
    for row in rows:
        cells = [Text(cell) for cell in row.cells]
        if row.is_best:
            cells[len(row.best)].stylize("bold green")  # the last column of the values
        made.add_row(*cells, style="" if row.is_ours else "dim")
    return made


def _width(lines: Iterable[Sequence[str]]) -> int:
    columns = list(zip(*lines, strict=True))
    return sum(max(map(len, column)) for column in columns) + _BETWEEN * (len(columns) - 1)


def _plain(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    made = plain_table(*names, right=names[1:])
    for column in made.columns:
        column.no_wrap = True
    for cells in rows:
        made.add_row(*cells)
    return made
