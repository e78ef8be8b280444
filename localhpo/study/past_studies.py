"""The past studies of a store: those that a new study may learn from, private and related ones."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localhpo.creator import Creator, open_creator
from localhpo.errors import LocalHPOError, StudyNotFoundError
from localhpo.store import Event, Store, StudyRecord
from localhpo.study.session import task_of
from localhpo.task import Task
from localhpo.transfer import PastStudy, retrieve_configs
from localhpo.trial import Trial

if TYPE_CHECKING:
    from localhpo.llm.placement import ModelPlacer
    from localhpo.task import Task


PRIVACY = "privacy"
"""Kind of the event that makes a stored study private, or public again; the last one counts."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A study that could not be read, and why."""

    study: str
    reason: str


def read_past_studies(
    store: Store, *, other_than: str = "", before: float | None = None
) -> tuple[list[PastStudy], list[Unreadable]]:
    """Return the studies of a store, the oldest first, and those that cannot be read.

    Args:
        store: where they are.
        other_than: name of a study to leave out.
        before: only what was known then, in seconds since the epoch: so a resumed study
            sees the same past studies as at its start.

    Raises:
        StoreError: the store cannot be listed.
    """
    limit = time.time() if before is None else before
    found: list[PastStudy] = []
    unreadable: list[Unreadable] = []
    for record in store.studies():
        if record.name == other_than or record.created_at > limit:
            continue
        try:
            found.append(_past(store, record, limit))
        except LocalHPOError as error:
            unreadable.append(Unreadable(record.name, str(error)))
    return found, unreadable


def open_with_past_studies(
    store: Store, key: str, task: Task, *, placer: ModelPlacer | None = None
) -> Creator:
    """Return the Creator of a study, with past studies where its task says so.

    Its model asks the placer for memory before it is loaded.

    Raises:
        InputError, MissingExtraError, ModelError: as `open_creator`.
        StoreError: the store cannot be listed.
    """
    if task.creator.transfer != "retrieve":
        return open_creator(task, placer=placer)
    try:
        before = store.study(key).created_at
    except StudyNotFoundError:
        before = None
    past_studies, _ = read_past_studies(store, other_than=key, before=before)
    return open_creator(task, retrieved=retrieve_configs(task, past_studies), placer=placer)


def set_private(store: Store, key: str, private: bool) -> None:
    """Keep a stored study out of all learning, or let it count again.

    Raises:
        StudyNotFoundError: there is no such study.
        StudyLockedError: another process runs it.
    """
    with store.writer(key) as writer:
        word = "private" if private else "no longer private"
        writer.write_event(PRIVACY, f"the study is {word}", data={"private": private})
        writer.sync()


def _past(store: Store, record: StudyRecord, limit: float) -> PastStudy:
    task = task_of(record)
    trials = tuple(trial for trial in store.trials(record.name) if _ended_by(trial, limit))
    private = _is_private(task, store.events(record.name))
    return PastStudy(record.name, task, trials, private=private)


def _ended_by(trial: Trial, limit: float) -> bool:
    return trial.finished_at is not None and trial.finished_at <= limit


def _is_private(task: Task, events: Iterable[Event]) -> bool:
    values = [bool(event.data.get("private")) for event in events if event.kind == PRIVACY]
    return values[-1] if values else task.private


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
