"""Suites: named, fixed lists of problems. `suites.toml` defines them, with the use of each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from localhpo.errors import InputError, did_you_mean

_FILE = Path(__file__).parent / "suites.toml"


@dataclass(frozen=True, slots=True)
class Suite:
    """A list of problems."""

    name: str
    title: str
    use: Literal["final", "settings", "own"]
    """`settings`: for choosing methods and settings; `final`: for final tables; `own`: a problem or
    a table that a user named."""
    problems: tuple[str, ...]
    raw_values: bool = False
    """Whether the values of its problems are on one scale, so that their mean is shown too."""


@cache
def all_suites() -> Mapping[str, Suite]:
    """Return every suite by its name, in the order of the file."""
    table = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return {
        name: Suite(
            name, row["title"], row["use"], tuple(row["problems"]), row.get("raw_values", False)
        )
        for name, row in table.items()
    }


def find_suite(target: str) -> Suite:
    """Return a suite by name, or a suite of one problem, by its name or its CSV file.

    Raises:
        InputError: no suite, problem or file has that name.
    """
    suites = all_suites()
    if target in suites:
        return suites[target]
    if target.endswith(".csv"):
        path = Path(target).absolute()
        if not path.is_file():
            raise InputError(f"{target}: no such table")
        return Suite(path.stem, f"The table {path.name}", "own", (f"table/{path}",))
    if "/" in target:
        return Suite(target.replace("/", "-"), f"The problem {target}", "own", (target,))
    raise InputError(
        f"a suite must be one of {', '.join(suites)}; got {target!r}",
        hint=did_you_mean(target, suites)
        or "or give the name of a problem (`python -m scripts.benchmarks list SUITE`) or "
        "a CSV file",
    )
