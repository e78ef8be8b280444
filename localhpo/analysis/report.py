"""The report of a study, as Markdown.

Whatever a user or a script wrote is escaped: a pipe in a value does not break a table, and a
line of standard error does not become a heading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localhpo.analysis import formatting
from localhpo.analysis.summary import Summary, find_improvements

if TYPE_CHECKING:
    from jinja2 import Template

_TEXTS: tuple[Callable[..., Any], ...] = (
    formatting.value,
    formatting.duration,
    formatting.memory,
    formatting.energy,
    formatting.waiting_times,
    formatting.percent,
    formatting.trial_numbers,
    formatting.count,
    formatting.origin_text,
    formatting.goals_text,
    formatting.config_texts,
    formatting.fixed_texts,
    formatting.assignments,
    formatting.violations_text,
    formatting.constraint_text,
)
"""What the template spells with, as filters and as functions."""

_SPECIAL = re.compile(r"([\\`*|\[\]<>#~]|(?<!\w)_|_(?!\w))")


def render_report(summary: Summary, *, reruns: Mapping[int, str] | None = None) -> str:
    """Return the report as Markdown.

    Args:
        summary: The facts of the study.
        reruns: The shell command that runs a best trial again, by its number.
    """
    values = [value for _, value in summary.incumbent]
    return _template().render(
        summary=summary,
        task=summary.task,
        best_numbers={trial.number for trial in summary.best_trials},
        improvements=find_improvements(summary.incumbent),
        curve=formatting.sparkline(values),
        origin_of={trial.number: trial.proposal.origin for trial in summary.trials},
        reruns=reruns or {},
    )


def escape_cell(text: object) -> str:
    """Return text for one line of Markdown, such as the cell of a table."""
    return _SPECIAL.sub(r"\\\1", formatting.printable(str(text)))


def fence_block(text: str, language: str = "") -> str:
    """Return text as a block of code; its fence is longer than any within."""
    runs = re.findall(r"`{3,}", text)
    fence = "`" * max([3, *(len(run) + 1 for run in runs)])
    return f"{fence}{language}\n{formatting.printable_lines(text)}\n{fence}"


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    # Markdown, not HTML: each value from outside goes through `escape_cell` or `fence_block`.
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    texts = {function.__name__: function for function in _TEXTS}
    environment.filters.update(texts, cell=escape_cell, fenced=fence_block)
    environment.globals.update(texts)
    source = Path(__file__).with_name("report.md.j2").read_text(encoding="utf-8")
    return environment.from_string(source)
