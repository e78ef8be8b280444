"""The one table, in words: rows of text that the terminal and Markdown share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from localhpo.analysis import wording
from localhpo.bench.agenthpo import paper
from localhpo.bench.agenthpo.results import Line, Result, Spread, TaskResult, gap, spread

COST_HEADERS = (
    "proposals", "prompt", "answer", "seconds", "redrawn", "repeated", "invalid", "failed",
    "stand-ins",
)  # fmt: skip
"""Tokens are of a run, seconds of a proposal; what follows are shares."""


Speller = Callable[[float, int], str]
"""Spells a score with so many digits, where it is not spelled as in the paper."""


@dataclass(frozen=True, slots=True)
class Row:
    """Who, and what came of it."""

    who: str
    best: tuple[str, ...]
    """By column: the best so far."""
    ahead: str = ""
    """By how much the first Creator is ahead of it at the end."""
    p: str = ""
    test: str = ""
    is_ours: bool = True
    is_best: bool = False
    """At the end, of our Creators."""

    @property
    def cells(self) -> tuple[str, ...]:
        """All of it, for `headers`."""
        return (self.who, *self.best, self.ahead, self.p, self.test)


def headers(result: Result) -> list[str]:
    """Return what stands above the rows."""
    return ["best so far", *(f"@{trial}" for trial in result.columns), "gap", "p", "test"]


def title(result: Result, task: TaskResult) -> str:
    """Return what a task's rows are about."""
    aim = task.subject.task
    size = f"{wording.count(len(task.runs), 'run')} x {wording.count(result.trials, 'trial')}"
    unit = ", in %" if _scale(task) != 1.0 else ""
    return f"{wording.plain(aim.metric)}, {aim.direction}d{unit}; {size}"


def rows(result: Result, task: TaskResult, *, brief: bool = False) -> Iterator[Row]:
    """Yield the rows of a task: Creators, the best of random search, and the paper's.

    Args:
        result: of which the task is a part.
        task: which.
        brief: leave out the deviations, but those at the end and of the test.
    """
    say = _speller(task)
    last = {line.creator: spread(line.best[:, -1]).mean for line in task.lines}
    there = [mean for mean in last.values() if mean is not None]
    pick = max if task.subject.task.direction == "maximize" else min
    for c, line in enumerate(task.lines):
        cells = [_cell(spread(line.best[:, t - 1]), say, len(task.runs)) for t in result.columns]
        yield Row(
            line.creator,
            _shown(cells, brief),
            *_against(task, c, result.trials, say),
            test=_cell(spread(line.test), say, len(task.runs)),
            is_best=bool(there) and last[line.creator] == pick(there),
        )
    if task.human is not None:
        yield Row(f"best of {task.human_trials}", _at_end(result, say(task.human, 4)))
    yield from _reported(result, task, brief)


def _shown(cells: Sequence[str], brief: bool) -> tuple[str, ...]:
    *early, last = cells
    return (*(cell.partition(" ±")[0] if brief else cell for cell in early), last)


def _against(task: TaskResult, other: int, trial: int, say: Speller) -> tuple[str, str]:
    if not other:
        return "", ""
    found = gap(task, other, trial)
    if found.ahead is None:
        return "-", "-"
    p = found.duel.p_value
    sign = "+" if found.ahead >= 0 else "-"
    return f"{sign}{say(abs(found.ahead), 2)}", "-" if p is None else f"{p:.2g}"


def _reported(result: Result, task: TaskResult, brief: bool) -> Iterator[Row]:
    reported = task.subject.reported
    if reported is None:
        return
    for method in paper.METHODS:
        there = reported.best[method]
        cells = [
            f"{there[t][0]:.2f} ±{there[t][1]:.2f}" if t in there else "" for t in result.columns
        ]
        yield Row(f"paper: {method}", _shown(cells, brief), is_ours=False)
    yield Row("paper: human", _at_end(result, f"{reported.human:.2f}"), is_ours=False)


def _at_end(result: Result, text: str) -> tuple[str, ...]:
    return ("",) * (len(result.columns) - 1) + (text,)


def _cell(values: Spread, say: Speller, runs: int) -> str:
    if values.mean is None:
        return "-"
    deviation = "" if values.deviation is None else f" ±{say(values.deviation, 2)}"
    return f"{say(values.mean, 4)}{deviation}" + (f" ({values.runs})" if values.runs < runs else "")


def _scale(task: TaskResult) -> float:
    reported = task.subject.reported
    return 1.0 if reported is None else reported.scale


def _speller(task: TaskResult) -> Speller:
    """Return how scores of a task are spelled: as in the paper, where it has the task."""
    if task.subject.reported is None:
        return lambda value, digits: f"{value:.{digits}g}"
    scale = _scale(task)
    return lambda value, _: f"{scale * value:.2f}"


# What proposals cost, and how they were.


def cost_rows(result: Result) -> Iterator[tuple[str, ...]]:
    """Yield, for `COST_HEADERS`, means over all tasks, and the paper's Table 4."""
    for c, name in enumerate(result.creators):
        lines = [task.lines[c] for task in result.tasks]
        yield (
            name,
            _thousands(_mean(lines, lambda line: line.prompt_tokens)),
            _thousands(_mean(lines, lambda line: line.completion_tokens)),
            f"{_mean(lines, lambda line: line.conduct.seconds_mean):.2f}",
            *(_share(_mean(lines, share)) for share in _SHARES.values()),
        )
    for name, cost in sorted(paper.costs().items(), reverse=True):
        blank = ("",) * (1 + len(_SHARES))
        yield (f"paper: {name}", f"{cost.prompt:.2f} k", f"{cost.completion:.2f} k", *blank)


_SHARES: Mapping[str, Callable[[Line], float]] = {
    "redrawn": lambda line: line.conduct.redrawn,
    "repeated": lambda line: line.conduct.repeated,
    "invalid": lambda line: line.conduct.invalid,
    "failed": lambda line: line.conduct.failed,
    "stand-ins": lambda line: line.conduct.stand_ins,
}


def _mean(lines: list[Line], value: Callable[[Line], float]) -> float:
    return sum(map(value, lines)) / len(lines)


def _thousands(tokens: float) -> str:
    return f"{tokens / 1000:.2f} k"


def _share(share: float) -> str:
    return "-" if share == 0 else f"{100 * share:.1f} %"


def footnotes(result: Result) -> list[str]:
    """Return how to read the rows."""
    first = result.creators[0]
    return [
        "mean ± standard deviation over runs; (n) where only n runs had a score by then",
        f"gap: by how much {first} is ahead @{result.trials}; p: Wilcoxon over the paired runs",
        "best of n: of random search in n trials, which stands for a human",
        "test: held-out score of the configuration that was best on validation",
        "paper: arXiv 2402.01881, GPT-4 in 5 runs, the others in 10; its splits are not known",
    ]


def markdown(result: Result) -> str:
    """Return the table as Markdown."""
    names = headers(result)
    lines = [_line(["task", *names]), _line(["---"] * (1 + len(names)))]
    for task in result.tasks:
        for row in rows(result, task):
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
