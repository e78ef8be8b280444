"""The report of a study, as Markdown.

Whatever a user or a script wrote is escaped: a pipe in a value does not break a table, and a
line of standard error does not become a heading.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from localhpo.analysis import wording
from localhpo.analysis.progress import improvements
from localhpo.analysis.summary import Summary

if TYPE_CHECKING:
    from jinja2 import Template

_SPECIAL = re.compile(r"([\\`*|\[\]<>#~]|(?<!\w)_|_(?!\w))")


def render(summary: Summary, *, rerun: str = "") -> str:
    """Return the report as Markdown; `rerun` is the command line that runs the winner again."""
    scores = [score for _, score in summary.incumbent]
    return _template().render(
        summary=summary,
        task=summary.task,
        improvements=improvements(summary.incumbent),
        curve=wording.sparkline(scores),
        origin_of={t.number: t.proposal.origin for t in summary.trials},
        rerun=rerun,
    )


def cell(text: object) -> str:
    """Return text for one line of Markdown, a table's cell included."""
    return _SPECIAL.sub(r"\\\1", wording.plain(str(text)))


def fenced(text: str, language: str = "") -> str:
    """Return text as a block of code; its fence is longer than any within."""
    runs = re.findall(r"`{3,}", text)
    fence = "`" * max([3, *(len(run) + 1 for run in runs)])
    return f"{fence}{language}\n{wording.plain_lines(text)}\n{fence}"


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    # Markdown, not HTML: each value from outside goes through `cell` or `fenced`.
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(
        cell=cell,
        fenced=fenced,
        score=wording.score,
        duration=wording.duration,
        memory=wording.memory,
        energy=wording.energy,
        waits=wording.waits,
        percent=wording.percent,
        numbers=wording.numbers,
        count=wording.count,
    )
    environment.globals.update(
        values=wording.values, fixed=wording.fixed, assignments=wording.assignments
    )
    source = Path(__file__).with_name("report.md.j2").read_text(encoding="utf-8")
    return environment.from_string(source)
