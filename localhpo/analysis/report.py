"""The report of a study, as Markdown.

Whatever a user or a script wrote is escaped: a pipe in a value does not break a table, and a
line of standard error does not become a heading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from localhpo.analysis import formatting
from localhpo.analysis.progress import find_improvements
from localhpo.analysis.summary import Summary

if TYPE_CHECKING:
    from jinja2 import Template

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
    environment.filters.update(
        cell=escape_cell,
        fenced=fence_block,
        value=formatting.value,
        duration=formatting.duration,
        memory=formatting.memory,
        energy=formatting.energy,
        waiting_times=formatting.waiting_times,
        percent=formatting.percent,
        trial_numbers=formatting.trial_numbers,
        count=formatting.count,
        origin=formatting.origin_text,
        goals=formatting.goals_text,
    )
    environment.globals.update(
        config_texts=formatting.config_texts,
        fixed_texts=formatting.fixed_texts,
        assignments=formatting.assignments,
        violations=formatting.violations_text,
        constraint_text=formatting.constraint_text,
        values_text=formatting.values_text,
    )
    source = Path(__file__).with_name("report.md.j2").read_text(encoding="utf-8")
    return environment.from_string(source)
