"""The subjects of the experiment: ready tasks, task files, and the paper's quadratic functions.

The digest of a subject covers everything that decides its values: its command, its script, the
packages that the script imports, and its data. Results of another digest are stale.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from localhpo import tasks
from localhpo.data import VARIABLE, file_in, find_data
from localhpo.errors import DataError, InputError, did_you_mean
from localhpo.task import Task, load_task, to_table
from scripts.benchmarks.agenthpo import paper
from scripts.benchmarks.problems import functions
from scripts.benchmarks.problems.problem import Problem

QUADRATICS = ("quadratic-2-3", "quadratic-3-5")
"""Functions of Section 5.2: the one for GPT-3.5 and the one for GPT-4."""


SMALL = "--small"
"""Option of ready tasks for a training at the size of a test."""


@dataclass(frozen=True)
class Subject:
    """A task of the experiment."""

    task: Task
    """The task; its trials run one after another, as in the paper."""
    function: Problem | None
    """The known function of a quadratic; None for tasks with trainings."""
    data: Path | None = None
    """Folder with the data of all tasks, where the user named one."""

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task.name

    @property
    def reported(self) -> paper.PaperResult | None:
        """The paper's results; None where it has none, or the training is a small one."""
        return None if SMALL in self.task.command else paper.tasks().get(self.name)

    @cached_property
    def training_digest(self) -> str:
        """Hash of everything that decides a training, except configuration and seed."""
        task = self.task
        parts = {
            "command": task.command,
            "env": dict(task.env),
            "reads": [task.metric, task.direction, task.value, task.stdout_regex],
            "scripts": {path.name: _hash(path) for path in _scripts(task.folder)},
            "packages": _packages(task.folder),
            "data": [stamp for path in self.files() for stamp in _stamps(path)],
        }
        return _digest(parts)

    def files(self) -> list[Path]:
        """Return the files and folders that the script reads, with those of its model.

        Raises:
            DataError: some do not exist; the message says where to get them.
        """
        if self.task.data is None:
            return []
        wanted = self.task.data.chosen(self.task.command)
        parts = [wanted] if wanted.weights is None else [wanted, wanted.weights]
        folders = [find_data(part, self.data or self.task.env.get(VARIABLE)) for part in parts]
        found = [
            file_in(folder, name)
            for folder, part in zip(folders, parts, strict=True)
            for name in part.files
        ]
        return [path for path in found if path is not None]

    @cached_property
    def digest(self) -> str:
        """Hash of everything that decides a study, except Creator, budget and seed."""
        if self.function is not None:
            return self.function.digest
        table = to_table(self.task)
        parts = [table["space"], table["pruner"], self.task.background, self.training_digest]
        return _digest(parts)


def default_names(data: Path | None = None) -> list[str]:
    """Return the names of the paper's functions and of its tasks whose data are here."""
    there = tasks.available()
    return [
        *(name for name in paper.tasks() if name in there and _has_data(name, data)),
        *QUADRATICS,
    ]


def _has_data(name: str, data: Path | None) -> bool:
    try:
        open_subject(name, data=data).files()
    except DataError:
        return False
    return True


def open_subject(name: str, *, data: Path | None = None, small: bool = False) -> Subject:
    """Open a ready task, a task file or a quadratic.

    Args:
        name: name of a ready task or of a quadratic, or path of a task file.
        data: folder with the data of all tasks.
        small: train at the size of a test; the scripts need the option `--small`.

    Raises:
        InputError: there is no such task, or it has no option `--small`.
        TaskError, SpaceError: the file does not describe a task.
    """
    if name in QUADRATICS:
        problem = functions.make(name, 0)
        return Subject(problem.task, problem)
    task = load_task(Path(name) if _is_path(name) else _ready(name))
    if small:
        task = dataclasses.replace(task, command=_small(task))
    resources = dataclasses.replace(task.resources, parallel=1)
    task = dataclasses.replace(task.single_objective, resources=resources)
    return Subject(task, None, data)


def _ready(name: str) -> Path:
    known = (*tasks.available(), *QUADRATICS)
    if name not in known:
        raise InputError(
            f"a task must be one of {', '.join(known)}, or the path of a task file; got {name!r}",
            hint=did_you_mean(name, known),
        )
    return tasks.find(name)


def _is_path(name: str) -> bool:
    path = Path(name)
    return path.suffix == ".toml" or (path / "task.toml").is_file()


def _small(task: Task) -> tuple[str, ...]:
    scripts = [path.read_text(encoding="utf-8") for path in _scripts(task.folder)]
    if not any(f'"{SMALL}"' in script for script in scripts):
        raise InputError(
            f"{task.name} has no small size: its script takes no option {SMALL}",
            hint="leave --small out, or leave the task out of --tasks",
        )
    return (*task.command, SMALL)


# Parts of the digests.


def _scripts(folder: Path) -> Iterator[Path]:
    """Yield the Python files beside the task file; their imports from elsewhere are not covered."""
    yield from sorted(folder.glob("*.py"))


def _packages(folder: Path) -> Mapping[str, str]:
    """Return the versions of the packages that the scripts import."""
    homes = metadata.packages_distributions()
    imported = {name for path in _scripts(folder) for name in _imports(path)}
    found = {home for name in imported for home in homes.get(name, ())} - {"localhpo"}
    return {home: metadata.version(home) for home in sorted(found)}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _stamps(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, size in bytes and time of change of a file, or of each file in a folder."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        known = file.stat()
        yield str(file.relative_to(path.parent)), known.st_size, known.st_mtime_ns


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
