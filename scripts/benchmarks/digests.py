"""Hashes of what decides a Creator's proposals: results under another hash are stale.

A hash covers the modules of the package that the Creator's module imports when it runs, directly
or not, as their source says. So a changed engine makes the results of the engines stale, and a
changed prompt those of the Creators that ask a model; a change elsewhere leaves them valid.
Comments and layout do not count, nor do imports for type checkers.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from localhpo import assets
from localhpo.creator import CREATORS
from localhpo.llm.models import registry as model_registry
from scripts.benchmarks.creators import CENTER, META, CreatorChoice

_ROOT = Path(assets.__file__).parents[1]
_PACKAGES = ("localhpo", "scripts")

_BACKEND = "localhpo.llm.transformers.backend"
"""What `creators.Backends` opens: the registry of backends names it in a text."""
_CONTROLS = "scripts.benchmarks.controls"
_MODELS = "localhpo.llm"
"""Decides nothing where no model is asked, although the hybrid imports it for the other case."""


def compute_digest(choice: CreatorChoice) -> str:
    """Return the hash of what decides a Creator's proposals.

    It covers the source, the version of Optuna, the built-in model for its meta-data and, where a
    model is asked, the prompts and the model.
    """
    words = [choice.base, hash_source(choice), f"optuna {metadata.version('optuna')}"]
    if choice.uses_model:
        words += [_prompts_digest(), compute_model_digest(choice), *choice.modifiers]
    if choice.uses_model or choice.base == META:
        words.append(_digest_model(model_registry.DEFAULT))
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def compute_model_digest(choice: CreatorChoice) -> str:
    """Return the digest of the files of a Creator's model; empty where it asks none.

    Raises:
        InputError: there is no such model.
    """
    return _digest_model(choice.model or model_registry.DEFAULT) if choice.uses_model else ""


def _digest_model(name: str) -> str:
    return model_registry.compute_digest(model_registry.find_model(name))


@cache
def _prompts_digest() -> str:
    texts = [path.read_bytes() for path in sorted(assets.folder("prompts").glob("*.j2"))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


# The source.


@cache
def hash_source(choice: CreatorChoice) -> str:
    """Return the hash of the modules that decide what a Creator proposes."""
    lines = [f"{name} {_read(name)[0]}" for name in sorted(find_modules(choice))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def find_modules(choice: CreatorChoice) -> set[str]:
    """Return the modules that decide what a Creator proposes: its own and what they import."""
    name = choice.base.removeprefix(CENTER)
    factory = CREATORS.load(name if name in CREATORS.built_in else "hybrid")
    roots = [factory.__module__]
    if choice.base != name or choice.modifiers:
        roots.append(_CONTROLS)
    if choice.uses_model:
        return _find_reachable(*roots, _BACKEND)
    return _find_reachable(*roots, without=_MODELS)


def _find_reachable(*modules: str, without: str = "") -> set[str]:
    """Return some modules and those that they import, directly or not.

    Args:
        modules: such as `localhpo.creator.optuna.engine`.
        without: a package that is left out, with what only it imports.
    """
    found, waiting = set[str](), list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and not (without and f"{name}.".startswith(f"{without}.")):
            found.add(name)
            for base, part in _read(name)[1]:
                inner = f"{base}.{part}"  # a module, or a name in one
                waiting.append(inner if _path(inner) else base)
    return found


def _path(module: str) -> Path | None:
    """Return the file of a module of this repository."""
    base = _ROOT.joinpath(*module.split("."))
    return next(
        (path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None
    )


def _read(module: str) -> tuple[str, Sequence[tuple[str, str]]]:
    """Return the hash of a module, and what it imports of this repository: module and name."""
    path = _path(module)
    return ("", ()) if path is None else _parse(path.read_text(encoding="utf-8"))


@cache
def _parse(source: str) -> tuple[str, Sequence[tuple[str, str]]]:
    tree = ast.parse(source)
    imported = [pair for pair in _imports(tree) if pair[0].partition(".")[0] in _PACKAGES]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imported


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of what a module imports when it runs: not for type checkers."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, "") for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from ((node.module, alias.name) for alias in node.names)
    elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        for child in ast.iter_child_nodes(node):
            yield from _imports(child)
