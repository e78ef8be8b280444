"""What kinds of models taught on many data sets, as it comes with a language model.

A lesson is one kind of model and one metric: a design of configurations of its full space, and
the regret of each of them on each of many data sets. So it tells of every configuration of the
design how it does everywhere, not only where it is best. A file of JSON, compressed. Lessons of
one kind share a design, and designs may share a space, so each of these stands there once:

    {"format": 2,
     "spaces": [<[space] of a task file>, ...],
     "designs": [{"space": place in spaces, "configs": [config, ...]}, ...],
     "lessons": [{"name", "metric", "direction", "background", "design": place in designs,
                  "lengths": [number, ...], "noise": number,
                  "data_sets": [name, ...], "regrets": [[hundredths, ...], ...]}, ...]}

where a configuration is a list in the order of the space, null where a value is inactive.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localhpo.errors import InputError
from localhpo.space import Space
from localhpo.task import Task
from localhpo.trial import Config

_FORMAT = 2

_UNIT = 0.01
"""Of a regret in the file."""


@dataclass(frozen=True)
class Lesson:
    """One kind of model, by one metric, on many data sets."""

    task: Task
    """Its full space, metric and direction, and what is said about it."""
    configs: tuple[Config, ...]
    """The design: canonical."""
    data_sets: tuple[str, ...]
    regrets: tuple[tuple[float, ...], ...]
    """By data set, then by configuration: 0 is the best known there, 1 a middling random one;
    larger ones are cut."""
    lengths: tuple[float, ...]
    """By hyperparameter: over how much of its range, from 0 to 1, regrets are alike (the lengths
    of a Matern-5/2 kernel)."""
    noise: float
    """What such a process does not explain, in parts of its spread."""


def read(path: Path, wanted: Callable[[Task], bool] = lambda _: True) -> tuple[Lesson, ...]:
    """Return the lessons of a file whose task is wanted; the others are hardly read.

    Raises:
        InputError: it cannot be read, or is of another format.
    """
    try:
        table = json.loads(gzip.decompress(path.read_bytes()))
        if table["format"] != _FORMAT:
            raise InputError(f"{path}: format {table['format']}, and this version reads {_FORMAT}")
        spaces = [Space.from_table(rows) for rows in table["spaces"]]
        found = []
        for row in table["lessons"]:
            design = table["designs"][row["design"]]
            task = _task(row, spaces[design["space"]])
            if wanted(task):
                found.append(_lesson(row, task, design["configs"]))
        return tuple(found)
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path}: lessons cannot be read: {error}") from error


def write(path: Path, lessons: Sequence[Lesson]) -> None:
    """Write lessons to a file. Those with one `configs` object share its text there."""
    spaces: dict[str, int] = {}
    designs: dict[int, int] = {}
    tables: list[dict[str, Any]] = []
    rows = []
    for lesson in lessons:
        space = lesson.task.space
        if id(lesson.configs) not in designs:
            designs[id(lesson.configs)] = len(tables)
            tables.append({
                "space": spaces.setdefault(json.dumps(space.to_table()), len(spaces)),
                "configs": [[c.get(name) for name in space.names] for c in lesson.configs],
            })  # fmt: skip
        rows.append({
            "name": lesson.task.name, "metric": lesson.task.metric,
            "direction": lesson.task.direction, "background": lesson.task.background,
            "design": designs[id(lesson.configs)],
            "lengths": [float(f"{length:.3g}") for length in lesson.lengths],
            "noise": float(f"{lesson.noise:.3g}"), "data_sets": lesson.data_sets,
            "regrets": [[round(regret / _UNIT) for regret in one] for one in lesson.regrets],
        })  # fmt: skip
    table = {
        "format": _FORMAT, "spaces": [json.loads(space) for space in spaces],
        "designs": tables, "lessons": rows,
    }  # fmt: skip
    text = json.dumps(table, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _task(row: dict[str, Any], space: Space) -> Task:
    said = {key: row[key] for key in ("name", "metric", "direction", "background")}
    return Task(command=(), space=space, **said)


def _lesson(row: dict[str, Any], task: Task, configs: Sequence[Sequence[Any]]) -> Lesson:
    names = task.space.names
    return Lesson(
        task=task,
        configs=tuple(
            {name: value for name, value in zip(names, one, strict=True) if value is not None}
            for one in configs
        ),
        data_sets=tuple(row["data_sets"]),
        regrets=tuple(tuple(_UNIT * regret for regret in one) for one in row["regrets"]),
        lengths=tuple(row["lengths"]),
        noise=row["noise"],
    )
