"""Earlier studies of the same task on this machine, whose measurements apply to the next one."""

from __future__ import annotations

import dataclasses
import itertools

from localhpo.errors import LocalHPOError
from localhpo.store import Store, StudyRecord
from localhpo.task import Task
from localhpo.trial import Trial

MAX_STUDIES = 5
"""Number of studies read, the latest ones: their journals are read as a whole."""


def read_related_trials(store: Store, key: str, task: Task) -> list[Trial]:
    """Return the trials of related earlier studies, with consecutive numbers.

    A study is related if it has the same task name or command, and hyperparameters of the same
    names and types. Their ranges may differ: measurements outside of today's ranges still show how
    memory grows. A study that cannot be read is skipped, since it is not needed.

    Args:
        store: Store with the studies.
        key: Name of the present study, which is left out.
        task: Task of the present study.
    """
    try:
        records = [r for r in store.studies() if r.name != key and _is_related(r, task)]
    except LocalHPOError:
        return []
    found: list[Trial] = []
    for record in records[-MAX_STUDIES:]:
        try:
            found += store.trials(record.name)
        except LocalHPOError:
            continue
    counter = itertools.count()
    return [dataclasses.replace(trial, number=next(counter)) for trial in found]


def _is_related(record: StudyRecord, task: Task) -> bool:
    settings = record.settings
    command = list(task.command)
    same_task = record.task_name == task.name or (
        bool(command) and settings.get("task", {}).get("command") == command
    )
    here, there = task.space.to_table(), settings.get("space", {})
    return same_task and {n: p.get("type") for n, p in here.items()} == {
        n: p.get("type") for n, p in there.items()
    }
