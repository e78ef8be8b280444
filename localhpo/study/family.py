"""Earlier studies of the same task on this machine: what they measured holds for the next one."""

from __future__ import annotations

import dataclasses
import itertools

from localhpo.errors import LocalHPOError
from localhpo.store import Store, StudyRecord
from localhpo.task import Task
from localhpo.trial import Trial

MOST_STUDIES = 5
"""The latest ones: their spools are read as a whole."""


def earlier_trials(store: Store, key: str, task: Task) -> list[Trial]:
    """Return the trials of earlier studies of the same family, numbered through.

    The same family: the same task name or command, and the same hyperparameters by name and
    kind. Their ranges may differ: what was measured beyond today's still says how memory grows.
    A study that cannot be read is passed over; it is not needed.
    """
    try:
        records = [r for r in store.studies() if r.name != key and _is_kin(r, task)]
    except LocalHPOError:
        return []
    found: list[Trial] = []
    for record in records[-MOST_STUDIES:]:
        try:
            found += store.trials(record.name)
        except LocalHPOError:
            continue
    counter = itertools.count()
    return [dataclasses.replace(trial, number=next(counter)) for trial in found]


def _is_kin(record: StudyRecord, task: Task) -> bool:
    settings = record.settings
    command = list(task.command)
    same_task = record.task_name == task.name or (
        bool(command) and settings.get("task", {}).get("command") == command
    )
    here, there = task.space.to_table(), settings.get("space", {})
    return same_task and {n: p.get("type") for n, p in here.items()} == {
        n: p.get("type") for n, p in there.items()
    }
