"""Reads the README and the pages of the manual: their blocks of code, sections and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "localhpo" / "docs"
PAGES = sorted(DOCS.glob("*.md"))
DOCUMENTS = [README, *PAGES]


class Block(NamedTuple):
    """A fenced block of code."""

    page: str
    language: str
    text: str


def read_blocks(path: Path, *languages: str) -> list[Block]:
    """Return the fenced blocks of a page in these languages."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S)
    return [Block(path.name, name, text) for name, text in fences if name in languages]


def read_prose(path: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def read_sections(path: Path) -> dict[str, str]:
    """Return the text below each heading, by the heading."""
    _, *parts = re.split(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def read_rows(text: str) -> list[list[str]]:
    """Return the rows of the first table in a text, without its head."""
    table = re.search(r"^\|.*?(?=^(?!\|)|\Z)", text, flags=re.M | re.S)
    lines = table.group().splitlines()[2:] if table else []
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def read_commands() -> Iterator[tuple[str, str]]:
    """Yield each localhpo command in a block or a code span, with its page."""
    for path in DOCUMENTS:
        for block in read_blocks(path, "sh", "console"):
            for line in block.text.splitlines():
                for part in line.removeprefix("$ ").split(" && "):
                    if part.startswith("localhpo "):
                        yield path.name, part.partition("  #")[0].strip()
        for span in re.findall(r"`(localhpo [^`]+)`", read_prose(path)):
            yield path.name, " ".join(span.split())
