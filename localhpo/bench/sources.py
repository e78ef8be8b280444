"""A hash of the source that decides what a Creator proposes.

It covers the modules that are reachable by imports from the one in which the Creator lives,
as far as they belong to the parts below; so a changed engine makes the results of the engines
stale, and a changed prompt those of the Creators that ask a model. Comments and layout do not
count.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import localhpo

PARTS = ("creator", "experience", "space", "grammar", "llm")
"""Of the package: what is elsewhere runs studies, and does not propose."""

_ROOT = Path(localhpo.__file__).parent


@cache
def digest(module: str) -> str:
    """Return the hash for a module, e.g. `localhpo.creator.engines.engine`."""
    lines = [f"{name} {_digest_of(_path(name))}" for name in sorted(reachable(module))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def reachable(module: str) -> set[str]:
    """Return the modules of `PARTS` that a module imports, directly or not, and itself."""
    found, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(_path(name))
    return found


def _imports(path: Path | None) -> Iterator[str]:
    """Yield the modules of `PARTS` that a file names in its imports."""
    if path is None:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [part if _path(part) else node.module for part in parts]
        yield from (name for name in names if _is_part(name))


def _is_part(name: str) -> bool:
    return any(f"{name}.".startswith(f"localhpo.{part}.") for part in PARTS)


@cache
def _path(module: str) -> Path | None:
    """Return the file of a module of this package."""
    package, *parts = module.split(".")
    if package != "localhpo":
        return None
    places = (_ROOT.joinpath(*parts, "__init__.py"), _ROOT.joinpath(*parts).with_suffix(".py"))
    return next((place for place in places if place.is_file()), None)


def _digest_of(path: Path | None) -> str:
    if path is None:
        return ""
    tree = ast.dump(ast.parse(path.read_text(encoding="utf-8")))
    return hashlib.sha256(tree.encode()).hexdigest()
