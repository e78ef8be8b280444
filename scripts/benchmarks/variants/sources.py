"""A hash of the source code that decides what a Creator proposes.

It covers the modules of the package that the module of the Creator imports when it runs, directly
or not. So a changed engine makes the results of the engines stale, and a changed prompt those of
the Creators that ask a model; a change elsewhere leaves them valid. Comments and layout do not
count, nor do imports for type checkers.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import localhpo

_ROOT = Path(localhpo.__file__).parent


@cache
def hash_modules(module: str) -> str:
    """Return the hash of a module and its imports, e.g. `localhpo.creator.optuna.engine`."""
    lines = [f"{name} {_digest_of(_path(name))}" for name in sorted(find_reachable(module))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def find_reachable(module: str) -> set[str]:
    """Return a module and the modules of the package that it imports, directly or not."""
    found, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(_path(name))
    return found


def _imports(path: Path | None) -> Iterator[str]:
    """Yield the modules of the package that a file imports."""
    if path is None:
        return
    for node in _walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [part if _path(part) else node.module for part in parts]
        yield from (name for name in names if name.startswith("localhpo."))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it, but for what stands under `if TYPE_CHECKING`."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


@cache
def _path(module: str) -> Path | None:
    """Return the file of a module of this package."""
    package, *parts = module.split(".")
    if package != "localhpo":
        return None
    candidates = (_ROOT.joinpath(*parts, "__init__.py"), _ROOT.joinpath(*parts).with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)


def _digest_of(path: Path | None) -> str:
    if path is None:
        return ""
    tree = ast.dump(ast.parse(path.read_text(encoding="utf-8")))
    return hashlib.sha256(tree.encode()).hexdigest()
