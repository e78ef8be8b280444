"""Meta-data of past data sets, as a file that comes with a language model.

A source task is one kind of model and one metric. It holds a design (a fixed set of
configurations of the full space of that kind of model) and, for each of many data sets, the
regret of each configuration. So it tells how every configuration of the design did on every data
set, not only where it was best.

The file is compressed JSON. Source tasks of one kind share a design, and designs may share a
space, so each is stored once:

    {"format": 2,
     "spaces": [<[space] of a task file>, ...],
     "designs": [{"space": index in spaces, "configs": [config, ...]}, ...],
     KEY: [{"name", "metric", "direction", "background", "design": index in designs,
            "lengths": [number, ...], "noise": number,
            "data_sets": [name, ...], "regrets": [[hundredths, ...], ...]}, ...]}

A configuration is a list in the order of the space, null where a value is inactive. KEY is
`_SOURCE_TASKS`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localhpo.errors import InputError
from localhpo.objective import Objective
from localhpo.space import Space
from localhpo.task import Task
from localhpo.trial import Config

_FORMAT = 2

_SOURCE_TASKS = "lessons"
"""Key of the source tasks: what they were called when the format was made."""

_REGRET_UNIT = 0.01
"""The file holds regrets as integer multiples of this."""


@dataclass(frozen=True)
class SourceTask:
    """One kind of model, one metric, many data sets."""

    task: Task
    """Its full space, objective and description."""
    configs: tuple[Config, ...]
    """The design: canonical configurations."""
    data_sets: tuple[str, ...]
    regrets: tuple[tuple[float, ...], ...]
    """Regrets, (data sets, configurations): 0 is the best known value on a data set, 1 the median
    of random configurations; larger ones are cut."""
    lengths: tuple[float, ...]
    """Length scale of each hyperparameter for a Matern-5/2 kernel, in the unit cube."""
    noise: float
    """Share of the variance that such a Gaussian process does not explain."""


def read_source_tasks(
    path: Path, wanted: Callable[[Task], bool] = lambda _: True
) -> tuple[SourceTask, ...]:
    """Return the source tasks of a file whose task is wanted; the others are skipped early.

    Raises:
        InputError: the file cannot be read, or has another format.
    """
    try:
        table = json.loads(gzip.decompress(path.read_bytes()))
        if table["format"] != _FORMAT:
            raise InputError(f"{path}: format {table['format']}, and this version reads {_FORMAT}")
        spaces = [Space.from_table(rows) for rows in table["spaces"]]
        found = []
        for row in table[_SOURCE_TASKS]:
            design = table["designs"][row["design"]]
            task = _parse_task(row, spaces[design["space"]])
            if wanted(task):
                found.append(_parse_source_task(row, task, design["configs"]))
        return tuple(found)
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path}: source tasks cannot be read: {error}") from error


def write_source_tasks(path: Path, source_tasks: Sequence[SourceTask]) -> None:
    """Write source tasks to a file. Those with the same `configs` object share it there."""
    spaces: dict[str, int] = {}
    designs: dict[int, int] = {}
    tables: list[dict[str, Any]] = []
    rows = []
    for source in source_tasks:
        space = source.task.space
        if id(source.configs) not in designs:
            designs[id(source.configs)] = len(tables)
            tables.append({
                "space": spaces.setdefault(json.dumps(space.to_table()), len(spaces)),
                "configs": [[c.get(name) for name in space.names] for c in source.configs],
            })  # fmt: skip
        rows.append({
            "name": source.task.name, "metric": source.task.metric,
            "direction": source.task.direction, "background": source.task.background,
            "design": designs[id(source.configs)],
            "lengths": [float(f"{length:.3g}") for length in source.lengths],
            "noise": float(f"{source.noise:.3g}"), "data_sets": source.data_sets,
            "regrets": [[round(regret / _REGRET_UNIT) for regret in one] for one in source.regrets],
        })  # fmt: skip
    table = {
        "format": _FORMAT, "spaces": [json.loads(space) for space in spaces],
        "designs": tables, _SOURCE_TASKS: rows,
    }  # fmt: skip
    text = json.dumps(table, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _parse_task(row: dict[str, Any], space: Space) -> Task:
    return Task(
        name=row["name"],
        command=(),
        objectives=(Objective(row["metric"], row["direction"]),),
        space=space,
        background=row["background"],
    )


def _parse_source_task(
    row: dict[str, Any], task: Task, configs: Sequence[Sequence[Any]]
) -> SourceTask:
    names = task.space.names
    return SourceTask(
        task=task,
        configs=tuple(
            {name: value for name, value in zip(names, one, strict=True) if value is not None}
            for one in configs
        ),
        data_sets=tuple(row["data_sets"]),
        regrets=tuple(tuple(_REGRET_UNIT * regret for regret in one) for one in row["regrets"]),
        lengths=tuple(row["lengths"]),
        noise=row["noise"],
    )
