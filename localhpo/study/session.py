"""The right to write a study, and the trials as they stand while it is held."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from localhpo import __version__
from localhpo.errors import ConfigurationError, InputError, StudyNotFoundError, TaskError
from localhpo.executor import check_command
from localhpo.executor.clock import RealClock
from localhpo.scheduler.ledger import Ledger
from localhpo.space import Space
from localhpo.space.values import shown
from localhpo.store import Store, StudyRecord, Writer
from localhpo.study.inbox import Inbox
from localhpo.task import Task, parse, to_table
from localhpo.trial import Config, Proposal, Trial


class Session:
    """Takes the study on construction and frees it at `close`.

    It changes nothing by itself: a loop takes up what an earlier run left, and for trials that
    are run by hand `take_up` does.
    """

    def __init__(self, store: Store, key: str, task: Task, inbox: Inbox) -> None:
        """Take the study, which is created where there is none.

        Raises:
            StudyLockedError: another process has it.
            StoreError: the store cannot be written.
        """
        self.writer = _writer(store, key, task)
        self._task = task
        self._inbox = inbox
        self._taken_up = False
        try:
            self.ledger = Ledger(
                store.trials(key), recorder=self.writer, clock=RealClock(), seed=task.seed
            )
        except BaseException:
            self.close()
            raise

    def take_up(self) -> None:
        """Queue what came through the inbox; the first time, interrupt what was left running."""
        if not self._taken_up:
            self.ledger.take_up()
            self._taken_up = True
        for proposal in self.letters(self.ledger.trials):
            self.ledger.queue(proposal)

    def letters(self, trials: Sequence[Trial]) -> list[Proposal]:
        """Return what others enqueued; what is known by now is dropped.

        So is what is not in the space, which a file put there by hand may hold: it is noted,
        and does no harm to the study.
        """
        space = self._task.space
        fresh: dict[str, Config] = {}
        for config in self._inbox.look():
            try:
                fresh[space.key(config)] = space.canonical(config)
            except ConfigurationError as error:
                self.writer.event("warning", f"an enqueued configuration was dropped: {error}")
        known = {space.key(trial.config) for trial in trials}
        return [Proposal(c, origin="user") for key, c in fresh.items() if key not in known]

    def close(self) -> None:
        """Let others write. May be called twice."""
        self.writer.close()


def new_config(space: Space, config: Mapping[str, Any], trials: Sequence[Trial]) -> Config:
    """Return a user's configuration on the grid.

    Raises:
        ConfigurationError: it is not in the space, or it is that of a trial.
    """
    if not isinstance(config, Mapping):
        raise ConfigurationError(f"a configuration must map names to values; got {shown(config)}")
    config = space.canonical(config)
    for trial in trials:
        if space.key(trial.config) == space.key(config):
            raise ConfigurationError(
                f"a configuration must be new; {space.text(config)} is trial {trial.number} "
                f"({trial.state})"
            )
    return config


def task_of(record: StudyRecord) -> Task:
    """Return the task that a study was started with."""
    return parse(record.settings, folder=Path(), where=f"study {record.name}")


def check_task(task: Task) -> None:
    """Hold a task, which may have been made in Python, to what a task file is held to.

    Raises:
        TaskError: a field is out of its range, or the command does not fit the space.
    """
    parse(to_table(task), folder=task.folder, where=str(task.source or "task"))
    if task.command:
        with naming_file(task):
            check_command(task.command, task)


@contextlib.contextmanager
def naming_file(task: Task) -> Iterator[None]:
    """Let an error about a task say which file it is about.

    Raises:
        TaskError: one was raised within.
    """
    try:
        yield
    except TaskError as error:
        if task.source is None:
            raise
        raise TaskError(f"{task.source} {error}", hint=error.hint) from error


def _writer(store: Store, key: str, task: Task) -> Writer:
    """Return the writer of a study, which is created first where there is none."""
    try:
        return store.writer(key)
    except StudyNotFoundError:
        record = StudyRecord(
            name=key,
            task_name=task.name,
            settings=to_table(task),
            created_at=time.time(),
            version=__version__,
        )
        with contextlib.suppress(InputError):  # another process may have been quicker
            store.create_study(record)
        return store.writer(key)
