"""Past studies that come with a model: what it was trained on, case by case.

A file of JSON, compressed. Studies of one task, such as those of one kind of model and metric on
several data sets, share its space and words, so each of these stands there once:

    {"format": 1,
     "spaces": [<[space] of a task file>, ...],
     "tasks": [{"name", "metric", "direction", "background", "space": place in spaces}, ...],
     "studies": [{"study": name, "task": place in tasks, "trials": [[config, score], ...]}, ...]}

where a configuration is a list in the order of the space, null where a value is inactive.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from localhpo.errors import InputError
from localhpo.experience.past import Past
from localhpo.space import Space
from localhpo.task import Task
from localhpo.trial import Config, Proposal, State, Trial

_FORMAT = 1


def read(path: Path, wanted: Callable[[Task], bool] = lambda _: True) -> tuple[Past, ...]:
    """Return the studies of a file whose task is wanted; the others are hardly read.

    Raises:
        InputError: it cannot be read, or is of another format.
    """
    try:
        table = json.loads(gzip.decompress(path.read_bytes()))
        if table["format"] != _FORMAT:
            raise InputError(f"{path}: format {table['format']}, and this version reads {_FORMAT}")
        spaces = [Space.from_table(rows) for rows in table["spaces"]]
        tasks = [
            Task(command=(), **{**said, "space": spaces[said["space"]]}) for said in table["tasks"]
        ]
        near = [wanted(task) for task in tasks]
        return tuple(
            Past(row["study"], tasks[row["task"]], _trials(tasks[row["task"]], row["trials"]))
            for row in table["studies"]
            if near[row["task"]]
        )
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path}: past studies cannot be read: {error}") from error


def write(path: Path, pasts: Sequence[Past]) -> None:
    """Write studies to a file. Those of one `Task` object share its text there."""
    spaces: dict[str, int] = {}
    tasks: dict[int, int] = {}
    tables: list[dict[str, Any]] = []
    studies = []
    for past in pasts:
        if id(past.task) not in tasks:
            tasks[id(past.task)] = len(tables)
            space = json.dumps(past.task.space.to_table())
            tables.append({
                "name": past.task.name, "metric": past.task.metric,
                "direction": past.task.direction, "background": past.task.background,
                "space": spaces.setdefault(space, len(spaces)),
            })  # fmt: skip
        names = past.task.space.names
        trials = [[[t.config.get(name) for name in names], t.score] for t in past.scored]
        studies.append({"study": past.study, "task": tasks[id(past.task)], "trials": trials})
    table = {
        "format": _FORMAT, "spaces": [json.loads(space) for space in spaces],
        "tasks": tables, "studies": studies,
    }  # fmt: skip
    text = json.dumps(table, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _trials(task: Task, rows: Sequence[tuple[Sequence[Any], float]]) -> tuple[Trial, ...]:
    def config(values: Sequence[Any]) -> Config:
        pairs = zip(task.space.names, values, strict=True)
        return {name: value for name, value in pairs if value is not None}

    return tuple(
        Trial(number, State.COMPLETE, Proposal(config(values), origin="engine:random"), score=score)
        for number, (values, score) in enumerate(rows)
    )
