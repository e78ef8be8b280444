"""`localhpo docs`: the manual."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from localhpo.cli import output
from localhpo.cli.command import Command

if TYPE_CHECKING:
    from pathlib import Path

FIRST = ("getting-started", "task-file", "python", "creators", "models", "trials", "past-studies")
"""Topics that are listed first, in the order in which one reads them; others follow by name."""

_WIDTH = 100
"""Columns of a page at most: longer lines are hard to read."""
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\(([\w-]+)\.md(?:#[\w-]*)?\)")


class Page(NamedTuple):
    """A page of the manual: a title, and a paragraph of one sentence that says what it is about."""

    topic: str
    title: str
    summary: str
    path: Path


@click.command(
    "docs",
    cls=Command,
    examples=(
        "localhpo docs                         # the topics",
        "localhpo docs getting-started",
        "localhpo docs task-file --plain",
    ),
)
@click.argument("topic", required=False)
@click.option("--plain", is_flag=True, help="Print the page as it is, in Markdown.")
@click.option("--path", "only_path", is_flag=True, help="Print where the page or the manual is.")
@click.option("--json", "as_json", is_flag=True, help="Print the topics as JSON.")
def command(topic: str | None, plain: bool, only_path: bool, as_json: bool) -> None:
    """Read the manual, or list its topics.

    A terminal shows a page in a pager, the one that PAGER names; a pipe or a file gets Markdown.
    """
    from localhpo import assets

    folder = assets.folder("docs")
    pages = read_pages(folder)
    page = find_page(topic, pages) if topic else None
    if only_path:
        click.echo(page.path if page else folder)
    elif as_json:
        wanted = [page] if page else pages
        output.print_json([{**each._asdict(), "path": str(each.path)} for each in wanted])
    elif page is None:
        table = output.plain_table("topic", "about")
        table.columns[0].no_wrap = True
        for each in pages:
            table.add_row(each.topic, each.summary)
        output.show(table)
        click.echo("\nRead a page: localhpo docs TOPIC")
    else:
        text = page.path.read_text(encoding="utf-8")
        if plain or not sys.stdout.isatty():
            click.echo(text, nl=False)
        else:
            click.echo_via_pager(render(text))


def read_pages(folder: Path) -> list[Page]:
    """Return the pages of a folder, in the order in which one reads them."""
    pages = []
    for path in sorted(folder.glob("*.md")):
        title, summary, *_ = path.read_text(encoding="utf-8").split("\n\n", maxsplit=2)
        pages.append(Page(path.stem, title.lstrip("# "), " ".join(summary.split()), path))
    order = {topic: place for place, topic in enumerate(FIRST)}
    return sorted(pages, key=lambda page: order.get(page.topic, len(order)))


def find_page(topic: str, pages: list[Page]) -> Page:
    """Return the page on a topic.

    Raises:
        InputError: there is none; it names topics that are spelled like it.
    """
    from localhpo.errors import InputError, did_you_mean

    known = {page.topic: page for page in pages}
    name = topic.lower().removesuffix(".md").replace("_", "-").replace(" ", "-")
    if name in known:
        return known[name]
    hint = did_you_mean(name, known) or f"the topics are {', '.join(known)}"
    raise InputError(f"the manual has no page {topic!r}", hint=hint)


def render(markdown: str) -> str:
    """Return a page for a terminal, with its styles as escape sequences."""
    from rich.markdown import Markdown

    screen = output.console()
    screen.width = min(screen.width, _WIDTH)
    with screen.capture() as drawn:
        screen.print(Markdown(name_topics(markdown), hyperlinks=False))
    return "".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines())


def name_topics(markdown: str) -> str:
    """Return Markdown in which a link to another page says the command that shows the page."""
    parts = _FENCE.split(markdown)  # every other one is a block of code
    parts[::2] = [_LINK.sub(r"\1 (`localhpo docs \2`)", part) for part in parts[::2]]
    return "".join(parts)
